"""Export our models to folders that transformers' LXMERT and VisualBERT load."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForPreTraining,
    AutoTokenizer,
    LxmertConfig,
    LxmertForPreTraining,
    LxmertForQuestionAnswering,
    PreTrainedConfig,
    PreTrainedModel,
    VisualBertConfig,
    VisualBertForMultipleChoice,
    VisualBertForPreTraining,
    VisualBertForQuestionAnswering,
    VisualBertForVisualReasoning,
)

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.configuration_tasks import MmptTaskConfig
from mmpt.configuration.errors import MmptFileExistsError, MmptValueError
from mmpt.configuration.pretrained import load_pretrained
from mmpt.configuration.self_contained import open_to_umask
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.task_base import MmptTaskModel
from mmpt.modeling_mmpt.task_models import MODELS, TASK_MODELS
from mmpt.predecessors.families import FAMILIES, config_class_of
from mmpt.predecessors.key_map import KeyMap
from mmpt.predecessors.source_checkpoint import SourceCheckpoint
from mmpt.predecessors.task_heads import PRETRAINING, choose_head, use_head

Model = MmptForPreTraining | MmptTaskModel
TARGETS: dict[str, dict[str, type[PreTrainedModel]]] = {
    "lxmert": {PRETRAINING: LxmertForPreTraining, "vqa": LxmertForQuestionAnswering},
    "visual_bert": {
        PRETRAINING: VisualBertForPreTraining,
        "vqa": VisualBertForQuestionAnswering,
        "nlvr2": VisualBertForVisualReasoning,
        "classification": VisualBertForVisualReasoning,
        "multiple_choice": VisualBertForMultipleChoice,
    },
}
"""Target -> task -> class of transformers."""

SHARED_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
)
OF_TRAINING = {
    "objective_weights",
    "schema_version",
    "confidence_weighted_classes",
    "region_feature_loss",
    "pad_token_id",
    "pooled_dropout_prob",
    "answer_loss",
}
"""Fields that affect training only, not the outputs of the model."""

OF_PRETRAINING_HEADS = {
    "num_region_classes",
    "region_background_class",
    "num_region_attributes",
    "num_qa_labels",
    "num_matching_classes",
    "share_region_head_transform",
    "tie_region_feature_decoder",
}
OF_EVERY_MODEL = {"fusion", "contrastive_size", "classifier_act"}
"""Task fields for which every target has a fixed value."""


def export_predecessor(model: Model, out: str | Path, target: str) -> None:
    """Write a model to a folder that transformers' LXMERT or VisualBERT loads, with bit-identical weights.

    Supported are the pre-training classes, `LxmertForQuestionAnswering`, and VisualBERT's classes for question
    answering, visual reasoning and multiple choice.

    Raises:
        FileExistsError: if `out` is not empty.
        ValueError: if the target cannot express the model (the message names the fields), or a head is missing.
    """
    out = Path(out)
    _check_target(target)
    if out.is_dir() and any(out.iterdir()):
        raise MmptFileExistsError(f"{out} is not empty; name a new folder")
    task = _task_of(model)
    if task not in TARGETS[target]:
        raise MmptValueError(
            f"{target} of transformers has no class for a {type(model).__name__}, expected a model for "
            f"{', '.join(TARGETS[target])}"
        )
    theirs = _their_model(model.config, target, task)
    keys = _check_expressible(model.config, theirs, target, task)
    ours = model.saved_state_dict()
    weights: dict[str, Tensor] = {}
    for their_key, ((our_key, _),) in keys.targets.items():
        if our_key in ours:
            weights[their_key] = ours[our_key]
    for their_key, to in keys.ties.items():
        if their_key in theirs.state_dict():
            weights[their_key] = weights[to]
    missing = sorted(set(theirs.state_dict()) - set(weights))
    if missing:
        raise MmptValueError(
            f"{target} of transformers has weights that this model lacks: {', '.join(missing[:4])}; name their "
            "objectives in objective_weights (mlm and itm are always needed) and train them, or convert another model"
        )
    theirs.load_state_dict(weights, assign=True)
    theirs.tie_weights()
    theirs.save_pretrained(out)
    open_to_umask(Path(out))


def convert_back(source: str | Path, out: str | Path, target: str) -> None:
    """Export a saved model, with its tokenizer if it has one. Errors are those of `export_predecessor`."""
    _check_target(target)
    try:
        config = load_pretrained(AutoConfig, source)
    except ValueError:  # transformers does not know the model_type
        config = None
    if not isinstance(config, MmptConfig):
        raise MmptValueError(f"{source} is not a model of this package; to convert a predecessor, leave out --to")
    model_class = MODELS.get((config.architectures or [""])[0], AutoModelForPreTraining)
    export_predecessor(load_pretrained(model_class, source), out, target)
    if (Path(source) / "tokenizer_config.json").is_file():
        load_pretrained(AutoTokenizer, source).save_pretrained(out)


def _check_target(target: str) -> None:
    if target not in TARGETS:
        raise MmptValueError(f"got target {target!r}, expected one of {', '.join(TARGETS)}")


def _task_of(model: Model) -> str:
    return next(
        (task for task, classes in TASK_MODELS.items() if isinstance(model, tuple(classes.values()))), PRETRAINING
    )


def _their_model(config: MmptConfig, target: str, task: str) -> PreTrainedModel:
    shared: dict[str, Any] = {name: getattr(config, name) for name in SHARED_FIELDS}
    on = config.objective_weights
    their_class: Any = TARGETS[target][task]
    if task != PRETRAINING:
        shared |= {"id2label": config.id2label, "label2id": config.label2id}
    with torch.device("meta"):
        if target == "visual_bert":
            return their_class(
                VisualBertConfig(
                    **shared,
                    num_hidden_layers=config.num_hidden_layers,
                    visual_embedding_dim=config.region_feature_dim,
                )
            )
        stops = getattr(config, "text_co_attention_layers", [])
        cross = len(stops)
        return their_class(
            LxmertConfig(
                **{name: value for name, value in shared.items() if name != "layer_norm_eps"},
                l_layers=config.num_hidden_layers - cross,
                x_layers=cross,
                r_layers=getattr(config, "region_num_hidden_layers", cross) - cross,
                visual_feat_dim=config.region_feature_dim,
                visual_pos_dim=config.region_box_dim,
                num_object_labels=config.num_region_classes,
                num_attr_labels=config.num_region_attributes,
                num_qa_labels=config.num_labels or 0 if task == "vqa" else config.num_qa_labels,
                task_obj_predict=bool({"mrc", "mrc_attribute", "mrfr"} & set(on)),
                task_qa="qa" in on,
                visual_obj_loss="mrc" in on,
                visual_attr_loss="mrc_attribute" in on,
                visual_feat_loss="mrfr" in on,
            )
        )


def _check_expressible(config: MmptConfig, theirs: PreTrainedModel, target: str, task: str) -> KeyMap:
    """Convert the exported model back on the meta device, and compare its configuration with ours."""
    source = _Described(theirs)
    values, keys = FAMILIES[target].read(source)
    head = choose_head(FAMILIES[target].read_heads(source), task, source, pretrains=True)
    own_fields: set[str] = set()
    if head is not None:
        use_head(keys, head)
        values, own_fields = values | head.fields, set(head.fields)
    again = config_class_of(target, values)(**values)
    if type(again) is not type(config):
        raise MmptValueError(f"{target} cannot express a {type(config).__name__}, expected a {type(again).__name__}")
    unread = OF_TRAINING | (_own_fields(MmptTaskConfig) - OF_EVERY_MODEL - own_fields)
    if head is not None:
        unread |= OF_PRETRAINING_HEADS
    elif not _classifies(config):
        unread |= {"num_region_classes", "region_background_class"}
    differing = {
        name: (getattr(config, name), getattr(again, name))
        for name in _own_fields(type(again)) - unread
        if getattr(config, name) != getattr(again, name)
    }
    if differing:
        differences = "; ".join(
            f"{name} is {ours!r}, {target} has {other!r}" for name, (ours, other) in sorted(differing.items())
        )
        raise MmptValueError(f"{target} of transformers cannot express this model: {differences}")
    return keys


def _own_fields(config_class: type[PreTrainedConfig]) -> set[str]:
    """Return the fields of a configuration, without those of every transformers configuration."""
    return {item.name for item in fields(config_class)} - {item.name for item in fields(PreTrainedConfig)}


def _classifies(config: MmptConfig) -> bool:
    return bool({"mrc", "mrc_kl"} & set(config.objective_weights))


class _Described(SourceCheckpoint):
    """A transformers model on the meta device with the interface of a checkpoint: keys, shapes, configuration."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.path = Path(type(model).__name__)
        self.folder = self.path
        self.config_path = self.path / "config.json"
        self.config = model.config.to_dict()
        self.assumptions = []
        self._shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        self._tensors = dict.fromkeys(self._shapes)  # type: ignore[assignment]

    def shape(self, key: str) -> tuple[int, ...]:
        return self._shapes[key]
