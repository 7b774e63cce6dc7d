"""LXMERT and ViLBERT: mapping of keys and configurations."""

from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.predecessors.bert_keys import (
    TRANSFORM,
    map_answer_head,
    map_layers,
    map_matching,
    map_text_embeddings,
    map_token_head,
    objectives,
    text_fields,
)
from mmpt.predecessors.key_map import MATCHED_FIRST, KeyMap
from mmpt.predecessors.source_checkpoint import SourceCheckpoint

REGIONS = "backbone.region_embeddings"
CROSS = "backbone.co_attention_layers"

# Modules of a cross-modality layer of LXMERT, after the prefix lang_ or visn_.
CROSS_LAYER = {
    "attention.query": "self_att.self.query",
    "attention.key": "self_att.self.key",
    "attention.value": "self_att.self.value",
    "attention.output": "self_att.output.dense",
    "attention_layer_norm": "self_att.output.LayerNorm",
    "feed_forward.up": "inter.dense",
    "feed_forward.down": "output.dense",
    "feed_forward.layer_norm": "output.LayerNorm",
}
REGION_HEADS = {"obj": "region_class", "attr": "region_attribute", "feat": "region_feature"}
UNUSED_GATE = "defined but unused in ViLBERT"
UNREAD_HEAD = "a fine-tuned head that no task of ViLBERT's training code uses, so it was never trained"


def read_lxmert(source: SourceCheckpoint) -> tuple[dict[str, Any], KeyMap]:
    """Read LXMERT, of transformers or original (github.com/airsplay/lxmert, src/lxrt/modeling.py).

    A cross-modality layer becomes a shared co-attention layer, followed by one ordinary layer in each stream.
    """
    keys = KeyMap()
    root = next(root for root in ("lxmert.", "bert.", "") if f"{root}encoder.visn_fc.visn_fc.weight" in source)
    encoder = f"{root}encoder"
    text, region, cross = (
        source.count(f"{encoder}.{name}", setting)
        for name, setting in (("layer", "l_layers"), ("r_layers", "r_layers"), ("x_layers", "x_layers"))
    )
    map_text_embeddings(keys, root)
    keys.modules(
        f"{encoder}.visn_fc",
        REGIONS,
        {
            "feature_projection": "visn_fc",
            "feature_layer_norm": "visn_layer_norm",
            "box_projection": "box_fc",
            "box_layer_norm": "box_layer_norm",
        },
    )
    map_layers(keys, f"{encoder}.layer", "backbone.text_layers", text)
    map_layers(keys, f"{encoder}.r_layers", "backbone.region_layers", region)
    for number in range(cross):
        theirs = f"{encoder}.x_layers.{number}"
        for name in ("query", "key", "value"):
            keys.module(f"{theirs}.visual_attention.att.{name}", f"{CROSS}.{number}.text_attention.{name}")
        keys.module(f"{theirs}.visual_attention.output.dense", f"{CROSS}.{number}.text_attention.output")
        keys.module(f"{theirs}.visual_attention.output.LayerNorm", f"{CROSS}.{number}.text_layer_norm")
        for our_name, their_name in CROSS_LAYER.items():
            keys.module(f"{theirs}.lang_{their_name}", f"backbone.text_layers.{text + number}.{our_name}")
            keys.module(f"{theirs}.visn_{their_name}", f"backbone.region_layers.{region + number}.{our_name}")
    keys.module(f"{root}pooler.dense", "backbone.text_pooler.dense")

    decoders = "obj_predict_head.decoder_dict"
    sizes = {
        name: source.shape(f"{decoders}.{name}.weight")[0]
        for name in REGION_HEADS
        if f"{decoders}.{name}.weight" in source
    }
    for name in sizes:
        keys.module(f"{decoders}.{name}", f"heads.{REGION_HEADS[name]}.decoder")
    if sizes:
        keys.modules("obj_predict_head.transform", "heads.region_transform", TRANSFORM)
    answers = map_answer_head(keys, source, "answer_head.logit_fc")
    present = {
        "mlm": map_token_head(keys, source, f"{root}embeddings.word_embeddings.weight"),
        "mrc": "obj" in sizes,
        "mrc_attribute": "attr" in sizes,
        "mrfr": "feat" in sizes,
        "itm": map_matching(keys, source, "cls.seq_relationship"),
        "qa": bool(answers),
    }
    return {
        **text_fields(source, root, text + cross, f"{encoder}.layer.0.intermediate.dense"),
        "region_feature_dim": source.size(f"{encoder}.visn_fc.visn_fc.weight", 1, "visual_feat_dim"),
        "region_box_dim": source.size(f"{encoder}.visn_fc.box_fc.weight", 1, "visual_pos_dim"),
        "region_projection_layer_norm": True,
        "region_embedding_reduction": "mean",
        "region_embedding_layer_norm": "none",
        "region_num_hidden_layers": region + cross,
        "text_co_attention_layers": list(range(text, text + cross)),
        "region_co_attention_layers": list(range(region, region + cross)),
        "share_co_attention": True,
        "co_attention_feed_forward": False,
        "share_region_head_transform": bool(sizes),
        "num_region_classes": sizes.get("obj", 0),
        "region_background_class": None,
        "num_region_attributes": sizes.get("attr", 0),
        "confidence_weighted_classes": True,
        "region_feature_loss": "smooth_l1",
        "num_qa_labels": answers,
        "objective_weights": objectives(present),
    }, keys


def read_vilbert(source: SourceCheckpoint) -> tuple[dict[str, Any], KeyMap]:
    """Read ViLBERT and 12-in-1 (github.com/facebookresearch/vilbert-multi-task, vilbert/vilbert.py).

    In the names of their co-attention layers, 1 is vision and 2 is text.
    """
    keys, root = KeyMap(), "bert."
    text, region = (
        source.count("bert.encoder.layer", "num_hidden_layers"),
        source.count("bert.encoder.v_layer", "v_num_hidden_layers"),
    )
    co = source.count("bert.encoder.c_layer")
    map_text_embeddings(keys, root)
    tasks = "bert.embeddings.task_embeddings.weight"
    if tasks in source:
        keys.tensor(tasks, "backbone.text_embeddings.task_embeddings.weight")
    keys.modules(
        "bert.v_embeddings",
        REGIONS,
        {
            "feature_projection": "image_embeddings",
            "box_projection": "image_location_embeddings",
            "layer_norm": "LayerNorm",
        },
    )
    map_layers(keys, "bert.encoder.layer", "backbone.text_layers", text)
    map_layers(keys, "bert.encoder.v_layer", "backbone.region_layers", region)
    for number in range(co):
        theirs, ours = f"bert.encoder.c_layer.{number}", f"{CROSS}.{number}"
        for stream, queries, others, initial in (("text", 2, 1, "t"), ("region", 1, 2, "v")):
            keys.module(f"{theirs}.biattention.query{queries}", f"{ours}.{stream}_attention.query")
            keys.module(f"{theirs}.biattention.key{others}", f"{ours}.{stream}_attention.key")
            keys.module(f"{theirs}.biattention.value{others}", f"{ours}.{stream}_attention.value")
            keys.module(f"{theirs}.biOutput.dense{queries}", f"{ours}.{stream}_attention.output")
            keys.module(f"{theirs}.biOutput.LayerNorm{queries}", f"{ours}.{stream}_layer_norm")
            keys.module(f"{theirs}.{initial}_intermediate.dense", f"{ours}.{stream}_feed_forward.up")
            keys.module(f"{theirs}.{initial}_output.dense", f"{ours}.{stream}_feed_forward.down")
            keys.module(f"{theirs}.{initial}_output.LayerNorm", f"{ours}.{stream}_feed_forward.layer_norm")
        gates = (f"{theirs}.biOutput.q_dense{i}.{name}" for i in (1, 2) for name in ("weight", "bias"))
        keys.drop(gates, UNUSED_GATE)
    keys.drop(("linguisic_logit.weight", "linguisic_logit.bias"), UNREAD_HEAD)
    keys.module("bert.t_pooler.dense", "backbone.text_pooler.dense")
    keys.module("bert.v_pooler.dense", "backbone.region_pooler.dense")

    decoder = "cls.imagePredictions.decoder.weight"
    outputs = source.shape(decoder)[0] if decoder in source else 0
    features = source.shape("bert.v_embeddings.image_embeddings.weight")[1]
    target = source.setting("visual_target", int(outputs == features)) if outputs else 0
    if target not in (0, 1):
        raise MmptValueError(
            f"{source.path}: visual_target is {target}, expected 0 (classes) or 1 (features); the contrastive head of "
            "visual_target 2 has no counterpart here"
        )
    if outputs:
        head = "heads.region_class" if target == 0 else "heads.region_feature"
        keys.modules("cls.imagePredictions.transform", f"{head}.transform", TRANSFORM)
        keys.module("cls.imagePredictions.decoder", f"{head}.decoder")
    classes = outputs if target == 0 else 0
    present = {
        "mlm": map_token_head(keys, source, "bert.embeddings.word_embeddings.weight"),
        "mrc_kl": bool(classes),
        "mrfr": bool(outputs) and target == 1,
        "itm": map_matching(keys, source, "cls.bi_seq_relationship", MATCHED_FIRST),
    }
    region_size = source.size("bert.v_embeddings.image_embeddings.weight", 0, "v_hidden_size")
    first = "bert.encoder.c_layer.0.biattention.query1.weight"
    inner = source.size(first, 0, "bi_hidden_size") if co else region_size
    why = "not in a configuration; ViLBERT's released models join the last text layers with the first region layers"
    return {
        **text_fields(source, root, text, "bert.encoder.layer.0.intermediate.dense"),
        "region_feature_dim": source.size("bert.v_embeddings.image_embeddings.weight", 1, "v_feature_size"),
        "region_box_dim": source.shape("bert.v_embeddings.image_location_embeddings.weight")[1],
        "region_projection_layer_norm": False,
        "region_embedding_layer_norm": "own",
        "num_task_tokens": source.shape(tasks)[0] if tasks in source else 0,
        "region_num_hidden_layers": region,
        "region_hidden_size": region_size,
        "region_num_attention_heads": source.heads("v_num_attention_heads", region_size, 128),
        "region_intermediate_size": source.size(
            "bert.encoder.v_layer.0.intermediate.dense.weight", 0, "v_intermediate_size"
        ),
        "text_co_attention_layers": source.setting("t_biattention_id", list(range(text - co, text)), why),
        "region_co_attention_layers": source.setting("v_biattention_id", list(range(co)), why),
        "co_attention_hidden_size": inner,
        "co_attention_num_heads": source.heads("bi_num_attention_heads", inner, 128),
        "share_co_attention": False,
        "co_attention_feed_forward": True,
        "pooler_size": source.shape("bert.t_pooler.dense.weight")[0],
        "pooler_act": "relu",
        "pooled_fusion": source.setting("fusion_method", "mul"),
        "pooled_dropout_prob": 0.1,
        "num_region_classes": classes,
        "region_background_class": 0 if classes else None,
        "objective_weights": objectives(present),
    }, keys
