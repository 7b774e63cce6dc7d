"""Map fine-tuned heads of UNITER, VisualBERT, Oscar, LXMERT, ViLBERT and VOLTA to the heads of our tasks."""

import re
from typing import Any

import torch
from torch import Tensor

from mmpt.predecessors.bert_keys import map_mlp_head
from mmpt.predecessors.key_map import WHOLE, KeyMap, Part
from mmpt.predecessors.source_checkpoint import SourceCheckpoint
from mmpt.predecessors.task_heads import TaskHead

CLASSIFIER = "classifiers.joint"
SCORER = "region_scorer"
TRUTH = ("false", "true")
MATCHED = Part(
    "row 1 of two; row 0 is zeros, so the log-odds are the score",
    lambda tensor: torch.cat([torch.zeros_like(tensor), tensor]),
)
RIGHT = Part("row 1, the score that the answer is right; UNITER ranks only by it", lambda tensor: tensor[1:2])


def uniter_heads(source: SourceCheckpoint) -> list[TaskHead]:
    """Read the heads of UNITER (model/vqa.py, ve.py, nlvr2.py, itm.py, re.py and vcr.py)."""
    heads = []
    if "vqa_output.3.weight" in source:
        outputs = source.shape("vqa_output.3.weight")[0]
        entails = outputs == 3
        keys = _mlp("vqa_output")
        heads.append(TaskHead("vqa_output", "vqa", keys, _gelu(source), outputs, usual=not entails))
        if entails:
            names = ("contradiction", "entailment", "neutral")
            heads.append(TaskHead("vqa_output", "entailment", keys, _gelu(source), outputs, names))
    if "nlvr2_output.weight" in source:
        heads.append(_uniter_image_pair(source))
    if "rank_output.weight" in source:
        heads.append(TaskHead("rank_output", "retrieval", _matching("rank_output"), {"retrieval_loss": "margin"}))
    for name, layers in (("re_output.weight", "linear"), ("re_output.3.weight", "mlp")):
        if name in source:
            keys = _linear("re_output", SCORER) if layers == "linear" else _mlp("re_output", SCORER)
            fields = {"grounding_head": layers, "grounding_loss": "cross_entropy"} | _act(source, "gelu")
            heads.append(TaskHead("re_output", "grounding", keys, fields))
    if "vcr_output.3.weight" in source:
        fields = {"classifier_head": "mlp"} | _act(source, "relu")
        heads.append(TaskHead("vcr_output", "multiple_choice", _mlp("vcr_output", last=RIGHT), fields))
    return heads


def visual_bert_heads(source: SourceCheckpoint) -> list[TaskHead]:
    """Read VisualBERT's heads, of transformers (`cls`, `attention`) or original (`classifier`, `flickr_attention`)."""
    heads = []
    fields: dict[str, Any] = {
        "classifier_head": "linear",
        "pooled_dropout_prob": source.setting("hidden_dropout_prob", 0.1),
    }
    for name in ("cls", "classifier"):
        if f"{name}.weight" not in source:
            continue
        outputs = source.shape(f"{name}.weight")[0]
        known = [_VISUAL_BERT_TASKS[text] for text in source.setting("architectures", []) if text in _VISUAL_BERT_TASKS]
        usual = known[0] if known else {1: "multiple_choice", 2: "nlvr2"}.get(outputs, "vqa")
        note = None if known else f"task = {usual}: no configuration gives the task of the {outputs} outputs of {name}"
        readings: dict[str, dict[str, Any]] = {
            "vqa": {"answer_loss": "kl", "answer_reads": "second_last_token"},
            # The original code gives regions of two images types 0 and 1, independent of the type for one image.
            "nlvr2": {"image_pair": "triplet", "region_token_type_id": 0},
            "classification": {},
        }
        if outputs == 1:
            readings = {"multiple_choice": {}} | readings
        for task, own in readings.items():
            count = None if task == "multiple_choice" else outputs
            names = TRUTH if task == "nlvr2" else None
            keys = _linear(name)
            heads.append(TaskHead(name, task, keys, fields | own, count, names, task == usual, note))
    for name in ("attention", "flickr_attention"):
        if f"{name}.query.weight" in source:
            keys = _linear(f"{name}.query", "query")
            keys.module(f"{name}.key", "key")
            keys.drop((f"{name}.value.weight", f"{name}.value.bias"), "defined but unused in VisualBERT")
            heads.append(TaskHead(name, "phrases", keys, {"alignment_size": source.shape(f"{name}.query.weight")[0]}))
    return heads


def oscar_heads(source: SourceCheckpoint) -> list[TaskHead]:
    """Read the heads of Oscar and VinVL (oscar/modeling/modeling_bert.py); of two outputs, 1 means matched.

    The head is one layer or an MLP, on one pooled vector or on two concatenated ones (NLVR2 with `use_pair`).
    """
    first, norm = ("classifier", False) if "classifier.weight" in source else ("classifier.0", True)
    if f"{first}.weight" not in source:
        return []
    pooled = source.shape("bert.pooler.dense.weight")[0]
    width = source.shape(f"{first}.weight")[1]
    fields: dict[str, Any] = {"pooled_dropout_prob": source.setting("hidden_dropout_prob", 0.1)}
    if first == "classifier":
        last, fields["classifier_head"] = first, "linear"
    else:
        norm = "classifier.3.weight" in source
        last = "classifier.3" if norm else "classifier.2"
        fields |= {"classifier_head": "mlp", "classifier_hidden_size": source.shape(f"{first}.weight")[0]}
        fields |= {"classifier_layer_norm": norm} | _act(source, "relu")
    if f"{last}.weight" not in source or width not in (pooled, 2 * pooled):
        return []
    outputs = source.shape(f"{last}.weight")[0]

    def keys() -> KeyMap:
        if last == "classifier":
            return _linear("classifier")
        mapped = _linear(first, f"{CLASSIFIER}.transform.dense")
        if norm:
            mapped.module("classifier.2", f"{CLASSIFIER}.transform.layer_norm")
        mapped.module(last, f"{CLASSIFIER}.decoder")
        return mapped

    if width == 2 * pooled:
        return [TaskHead("classifier", "nlvr2", keys(), fields | {"image_pair": "pair"}, outputs, TRUTH)]
    ranks = outputs == 2 and last == "classifier"
    why = "not in a configuration; the value of VinVL's VQA"
    loss = "bce" if ranks or source.setting("loss_type", "bce", why) == "bce" else "kl"
    heads = [
        TaskHead("classifier", "vqa", keys(), fields | {"answer_loss": loss}, outputs, usual=not ranks),
        TaskHead("classifier", "classification", keys(), fields, outputs, usual=False),
    ]
    if ranks:
        matching = {"num_matching_classes": 2, "retrieval_loss": "cross_entropy"}
        matching["pooled_dropout_prob"] = fields["pooled_dropout_prob"]
        heads.append(TaskHead("classifier", "retrieval", _linear("classifier", "heads.matching"), matching))
    return heads


def lxmert_heads(source: SourceCheckpoint) -> list[TaskHead]:
    """Read the heads of LXMERT, original (src/tasks) or of transformers, where VQA uses the pre-training head."""
    heads = []
    if "logit_fc.3.weight" in source:
        outputs, hidden = source.shape("logit_fc.3.weight")
        if source.shape("logit_fc.0.weight")[1] == hidden:  # two concatenated pooled vectors
            fields = {"image_pair": "pair"} | _gelu(source)
            heads.append(TaskHead("logit_fc", "nlvr2", _mlp("logit_fc"), fields, outputs, TRUTH))
        else:
            heads.append(TaskHead("logit_fc", "vqa", _mlp("logit_fc"), _gelu(source), outputs))
    if "answer_head.logit_fc.3.weight" in source:
        alone = "cls.predictions.transform.dense.weight" not in source
        outputs = source.shape("answer_head.logit_fc.3.weight")[0]
        note = (
            "answer_loss = bce: LXMERT's loss for VQA and GQA; the cross-entropy of transformers' class is answer_loss "
            "= kl with one answer per question"
        )
        keys = _mlp("answer_head.logit_fc")
        heads.append(TaskHead("answer_head", "vqa", keys, _gelu(source), outputs, usual=alone, note=note))
    return heads


def vilbert_heads(source: SourceCheckpoint) -> list[TaskHead]:
    """Read the heads of ViLBERT and 12-in-1 (vilbert/vilbert.py: VILBertForVLTasks always has all heads)."""
    heads = []
    for name in ("vil_prediction", "vil_prediction_gqa"):
        if f"{name}.logit_fc.3.weight" in source:
            outputs = source.shape(f"{name}.logit_fc.3.weight")[0]
            heads.append(TaskHead(name, "vqa", _mlp(f"{name}.logit_fc"), _gelu(source), outputs))
    name = "vil_binary_prediction"
    if f"{name}.logit_fc.3.weight" in source:
        outputs = source.shape(f"{name}.logit_fc.3.weight")[0]
        fields = {"image_pair": "pair"} | _gelu(source)
        heads.append(TaskHead(name, "nlvr2", _mlp(f"{name}.logit_fc"), fields, outputs, TRUTH))
    if "vil_tri_prediction.weight" in source:
        names = ("contradiction", "neutral", "entailment")
        outputs = source.shape("vil_tri_prediction.weight")[0]
        fields = {"classifier_head": "linear"}
        heads.append(
            TaskHead("vil_tri_prediction", "entailment", _linear("vil_tri_prediction"), fields, outputs, names)
        )
    if "vil_logit.weight" in source:
        fields = {"retrieval_loss": "cross_entropy"}
        heads.append(TaskHead("vil_logit", "retrieval", _matching("vil_logit"), fields))
        fields = {"classifier_head": "linear"}
        heads.append(TaskHead("vil_logit", "multiple_choice", _linear("vil_logit"), fields, usual=False))
    if "vision_logit.weight" in source:
        heads.append(TaskHead("vision_logit", "grounding", _linear("vision_logit", SCORER), {"grounding_loss": "bce"}))
    return heads


def volta_heads(source: SourceCheckpoint) -> list[TaskHead]:
    """Read the heads of VOLTA, by the name of their task (volta/encoders.py: `clfs_dict` of BertForVLTasks).

    A linear layer with one output reads pooled vectors (retrieval) or regions (grounding). If both have the same width,
    both readings are returned and neither is the default.
    """
    pooled = source.shape("bert.t_pooler.dense.weight")[0] if "bert.t_pooler.dense.weight" in source else 0
    regions = int(source.config.get("v_hidden_size", source.config.get("hidden_size", 0)))
    heads = []
    names = {match[0]: None for key in source if (match := re.match(r"clfs_dict\.[^.]+", key))}
    for name in names:
        if f"{name}.logit_fc.3.weight" in source:
            outputs = source.shape(f"{name}.logit_fc.3.weight")[0]
            hidden, width = source.shape(f"{name}.logit_fc.0.weight")
            keys = _mlp(f"{name}.logit_fc")
            fields = _gelu(source) | {"classifier_hidden_size": hidden}
            if width == 2 * pooled:
                heads.append(TaskHead(name, "nlvr2", keys, fields | {"image_pair": "pair"}, outputs, TRUTH))
            else:
                heads.append(TaskHead(name, "vqa", keys, fields, outputs))
        elif f"{name}.3.weight" in source:  # modules 1 and 2 are GELU and dropout
            keys = _linear(f"{name}.0", f"{SCORER}.transform.dense")
            keys.module(f"{name}.3", f"{SCORER}.decoder")
            fields = {"grounding_head": "mlp", "classifier_layer_norm": False, "grounding_loss": "bce"}
            heads.append(TaskHead(name, "grounding", keys, fields | _act(source, "gelu")))
        elif f"{name}.weight" in source:
            outputs, width = source.shape(f"{name}.weight")
            if outputs == 3 and width == pooled:
                fields = {"classifier_head": "linear"}
                order = ("contradiction", "neutral", "entailment")
                heads.append(TaskHead(name, "entailment", _linear(name), fields, outputs, order))
            unclear = pooled == regions
            if outputs == 1 and width == pooled:
                fields = {"retrieval_loss": "cross_entropy"}
                heads.append(TaskHead(name, "retrieval", _matching(name), fields, usual=not unclear))
            if outputs == 1 and width == regions:
                fields = {"grounding_loss": "bce"}
                heads.append(TaskHead(name, "grounding", _linear(name, SCORER), fields, usual=not unclear))
    return heads


def _uniter_image_pair(source: SourceCheckpoint) -> TaskHead:
    outputs, width = source.shape("nlvr2_output.weight")
    types, hidden = source.shape("uniter.embeddings.token_type_embeddings.weight")
    keys = _linear("nlvr2_output")
    kind = "pair" if width == 2 * hidden else "triplet"
    if "attn1.in_proj_weight" in source:
        kind = "pair_attention"
        for theirs, ours in (("attn1", "first_to_second"), ("attn2", "second_to_first")):
            for number, name in enumerate(("query", "key", "value")):
                part = _third(number, hidden)
                for kept in ("weight", "bias"):
                    keys.tensor(f"{theirs}.in_proj_{kept}", f"pair_attention.{ours}.{name}.{kept}", part)
            keys.module(f"{theirs}.out_proj", f"pair_attention.{ours}.output")
        keys.module("fc.0", "pair_attention.merge")
        keys.module("attn_pool.fc.0", "pair_attention.pool.score")
    # With two rows, both images have the same type: `use_img_type` was off.
    fields = {"classifier_head": "linear", "image_pair": kind, "image_pair_types": types > 2}
    return TaskHead("nlvr2_output", "nlvr2", keys, fields, outputs, TRUTH)


def _third(number: int, size: int) -> Part:
    def take(tensor: Tensor) -> Tensor:
        return tensor[number * size : (number + 1) * size].clone()

    return Part(f"rows {number * size} to {(number + 1) * size - 1}", take)


def _mlp(theirs: str, ours: str = CLASSIFIER, last: Part = WHOLE) -> KeyMap:
    keys = KeyMap()
    map_mlp_head(keys, theirs, ours, last)
    return keys


def _linear(theirs: str, ours: str = CLASSIFIER) -> KeyMap:
    keys = KeyMap()
    keys.module(theirs, ours)
    return keys


def _matching(theirs: str) -> KeyMap:
    keys = KeyMap()
    keys.module(theirs, "heads.matching", MATCHED)
    return keys


def _gelu(source: SourceCheckpoint) -> dict[str, Any]:
    """Return the fields of an MLP head with GELU, independent of the activation of the encoder."""
    return {"classifier_head": "mlp"} | _act(source, "gelu")


def _act(source: SourceCheckpoint, act: str) -> dict[str, Any]:
    return {} if source.setting("hidden_act", "gelu") == act else {"classifier_act": act}


_VISUAL_BERT_TASKS = {
    "VisualBertForQuestionAnswering": "vqa",
    "VisualBertForVisualReasoning": "nlvr2",
    "VisualBertForMultipleChoice": "multiple_choice",
}
