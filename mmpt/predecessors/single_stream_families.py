"""UNITER, VisualBERT and Oscar: mapping of keys and configurations."""

from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.predecessors.bert_keys import (
    map_layers,
    map_matching,
    map_text_embeddings,
    map_token_head,
    objectives,
    text_fields,
)
from mmpt.predecessors.key_map import MATCHED_FIRST, KeyMap, Part, columns
from mmpt.predecessors.source_checkpoint import SourceCheckpoint

REGIONS = "backbone.region_embeddings"


def read_uniter(source: SourceCheckpoint) -> tuple[dict[str, Any], KeyMap]:
    """Read UNITER (github.com/ChenRocks/UNITER, model/model.py and model/pretrain.py)."""
    keys, root = KeyMap(), "uniter."
    layers = source.count("uniter.encoder.layer", "num_hidden_layers")
    words = "uniter.embeddings.word_embeddings.weight"
    map_text_embeddings(keys, root)
    map_layers(keys, "uniter.encoder.layer", "backbone.layers", layers)
    keys.module("uniter.pooler.dense", "backbone.text_pooler.dense")
    keys.modules(
        "uniter.img_embeddings",
        REGIONS,
        {
            "feature_projection": "img_linear",
            "box_projection": "pos_linear",
            "feature_layer_norm": "img_layer_norm",
            "box_layer_norm": "pos_layer_norm",
            "layer_norm": "LayerNorm",
        },
    )
    mask = Part("row 1; UNITER uses zeros in place of row 0", lambda tensor: tensor[1])
    keys.tensor("uniter.img_embeddings.mask_embedding.weight", f"{REGIONS}.mask_embedding", mask)

    classes = source.shape("region_classifier.net.3.weight")[0] if "region_classifier.net.3.weight" in source else 0
    if classes:
        keys.module("region_classifier.net.0", "heads.region_class.transform.dense")
        keys.module("region_classifier.net.2", "heads.region_class.transform.layer_norm")
        keys.module("region_classifier.net.3", "heads.region_class.decoder")
    regresses = "feat_regress.bias" in source
    if regresses:
        keys.module("feat_regress.net.0", "heads.region_feature.transform.dense")
        keys.module("feat_regress.net.2", "heads.region_feature.transform.layer_norm")
        keys.tensor("feat_regress.bias", "heads.region_feature.bias")
        keys.tie("feat_regress.weight", "uniter.img_embeddings.img_linear.weight")
    present = {
        "mlm": map_token_head(keys, source, words),
        "mrc": bool(classes),
        "mrc_kl": bool(classes),
        "mrfr": regresses,
        "itm": map_matching(keys, source, "itm_output"),
    }
    return {
        **text_fields(source, root, layers, "uniter.encoder.layer.0.intermediate.dense"),
        "region_feature_dim": source.size("uniter.img_embeddings.img_linear.weight", 1, "img_dim"),
        "region_box_dim": source.shape("uniter.img_embeddings.pos_linear.weight")[1],
        "region_type_embedding": "shared",
        "region_token_type_id": 1,
        "region_mask_embedding": True,
        "tie_region_feature_decoder": True,
        "num_region_classes": classes,
        "region_background_class": 0 if classes else None,
        "objective_weights": objectives(present),
    }, keys


def read_visual_bert(source: SourceCheckpoint) -> tuple[dict[str, Any], KeyMap]:
    """Read VisualBERT, of transformers or original (github.com/uclanlp/visualbert, which uses region type 0)."""
    keys = KeyMap()
    original = "bert.embeddings.token_type_embeddings_visual.weight" in source
    keys.drop((key for key in source if key.startswith("detector.")), IMAGE_NETWORK)
    root = "bert." if original else next(root for root in ("visual_bert.", "") if f"{root}{_HF_PROJECTION}" in source)
    theirs = f"{root}embeddings."
    names = (
        ("projection", "token_type_embeddings_visual", "position_embeddings_visual")
        if original
        else ("visual_projection", "visual_token_type_embeddings", "visual_position_embeddings")
    )
    layers = source.count(f"{root}encoder.layer", "num_hidden_layers")
    map_text_embeddings(keys, root)
    map_layers(keys, f"{root}encoder.layer", "backbone.layers", layers)
    keys.module(f"{root}pooler.dense", "backbone.text_pooler.dense")
    keys.module(theirs + names[0], f"{REGIONS}.feature_projection")
    keys.tensor(f"{theirs}{names[1]}.weight", f"{REGIONS}.token_type_embeddings.weight")
    keys.tensor(f"{theirs}{names[2]}.weight", f"{REGIONS}.position_embeddings.weight")
    present = {
        "mlm": map_token_head(keys, source, f"{theirs}word_embeddings.weight"),
        "itm": map_matching(keys, source, "cls.seq_relationship"),
    }
    return {
        **text_fields(source, root, layers, f"{root}encoder.layer.0.intermediate.dense"),
        "region_feature_dim": source.size(f"{theirs}{names[0]}.weight", 1, "visual_embedding_dim"),
        "region_box_dim": 0,
        "region_projection_layer_norm": False,
        "region_embedding_layer_norm": "shared",
        "region_type_embedding": "own",
        "region_type_vocab_size": source.shape(f"{theirs}{names[1]}.weight")[0],
        "region_token_type_id": 0 if original else 1,
        "region_position_embedding": True,
        "num_region_classes": 0,
        "region_background_class": None,
        "objective_weights": objectives(present),
    }, keys


def read_oscar(source: SourceCheckpoint) -> tuple[dict[str, Any], KeyMap]:
    """Read Oscar and VinVL (github.com/microsoft/Oscar), whose projection of feature and box is split into two."""
    keys, root = KeyMap(), "bert."
    layers = source.count("bert.encoder.layer", "num_hidden_layers")
    both = source.size("bert.img_embedding.weight", 1, "img_feature_dim")
    features = both - BOX_NUMBERS
    if features < 1:
        raise MmptValueError(
            f"{source.path}: bert.img_embedding has input size {both}, expected a feature and {BOX_NUMBERS} box numbers"
        )
    map_text_embeddings(keys, root)
    map_layers(keys, "bert.encoder.layer", "backbone.layers", layers)
    keys.module("bert.pooler.dense", "backbone.text_pooler.dense")
    projection = "bert.img_embedding.weight"
    keys.tensor(projection, f"{REGIONS}.feature_projection.weight", columns(0, features, "the feature's columns"))
    keys.tensor(projection, f"{REGIONS}.box_projection.weight", columns(features, None, "the box's columns"))
    keys.tensor("bert.img_embedding.bias", f"{REGIONS}.feature_projection.bias")
    zeros = Part("zeros: both projections share one bias", lambda tensor: tensor.new_zeros(tensor.shape))
    keys.tensor("bert.img_embedding.bias", f"{REGIONS}.box_projection.bias", zeros)
    has_norm = "bert.LayerNorm.weight" in source
    if has_norm:
        keys.module("bert.LayerNorm", f"{REGIONS}.layer_norm")
        theirs, ours = source.setting("img_layer_norm_eps", 1e-12), source.setting("layer_norm_eps", 1e-12)
        if theirs != ours:
            raise MmptValueError(
                f"{source.path}: img_layer_norm_eps is {theirs} and layer_norm_eps {ours}; our models use one value "
                "for all norms, so this checkpoint cannot be expressed"
            )
    present = {
        "mlm": map_token_head(keys, source, "bert.embeddings.word_embeddings.weight"),
        "itm": map_matching(keys, source, "cls.seq_relationship", MATCHED_FIRST),
    }
    classes = source.shape("cls.seq_relationship.weight")[0] if present["itm"] else 2
    return {
        **text_fields(source, root, layers, "bert.encoder.layer.0.intermediate.dense"),
        "region_feature_dim": features,
        "region_box_dim": BOX_NUMBERS,
        "region_projection_layer_norm": False,
        "region_embedding_layer_norm": "own" if has_norm else "none",
        "num_region_classes": 0,
        "region_background_class": None,
        "num_matching_classes": classes,
        "objective_weights": objectives(present),
    }, keys


BOX_NUMBERS = 6
IMAGE_NETWORK = "the image network of VisualBERT's VCR model; our models take extracted features"
_HF_PROJECTION = "embeddings.visual_projection.weight"
