"""VOLTA: convert its flat list of numbered sub-layers to ordinary layers and co-attention layers."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.predecessors.bert_keys import (
    TRANSFORM,
    map_answer_head,
    map_matching,
    map_text_embeddings,
    map_token_head,
    objectives,
    text_fields,
)
from mmpt.predecessors.key_map import MATCHED_FIRST, KeyMap
from mmpt.predecessors.source_checkpoint import SourceCheckpoint

REGIONS = "backbone.region_embeddings"
LISTS = ("tt_attn_sublayers", "tv_attn_sublayers", "vt_attn_sublayers", "vv_attn_sublayers")
FEED_FORWARD_LISTS = ("t_ff_sublayers", "v_ff_sublayers")
ATTENTION = ("attention_self.query", "attention_self.key", "attention_self.value", "attention_output.dense")
FEED_FORWARD = ("intermediate.dense", "output.dense", "output.LayerNorm")
TARGETS = {
    "0": ("region_class", "mrc_kl"),
    "1": ("region_feature", "mrfr"),
    "3": ("region_class", "mrc"),
    "4": ("region_attribute", "mrc_attribute"),
    "5": ("region_feature", "mrfr"),
    "6": ("region_class", "mrc"),
}
"""VOLTA's number of a visual target -> (head, objective); 2, a contrastive loss, has no counterpart."""


@dataclass
class _Stream:
    """Sub-layer numbers of one stream.

    Args:
        layers: (attention, feed-forward) of each layer.
        co_attention: (co-attention, feed-forward or None) of each co-attention layer.
        stops: for each co-attention layer, the number of layers before it.
    """

    layers: list[tuple[int, int]] = field(default_factory=list)
    co_attention: list[tuple[int, int | None]] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)


def read_volta(source: SourceCheckpoint) -> tuple[dict[str, Any], KeyMap]:
    """Read VOLTA (github.com/e-bug/volta, volta/encoders.py). Names of vision modules have the prefix `v_`.

    Raises:
        ValueError: if there is no configuration, or the topology is not that of a single stream, ViLBERT or LXMERT.
    """
    config = source.config
    missing = [name for name in (*LISTS, *FEED_FORWARD_LISTS, "image_embeddings") if name not in config]
    if missing:
        raise MmptValueError(
            f"{source.path}: the topology cannot be inferred from VOLTA's keys; give its configuration with --config, "
            f"such as config/ctrl_vilbert_base.json of its repository (it must contain {', '.join(missing)})"
        )
    if config.get("model", "bert") != "bert":
        raise MmptValueError(f"{source.path}: model is {config['model']!r}, expected 'bert'; others are not supported")
    keys = KeyMap()
    map_text_embeddings(keys, "bert.")
    attention = [set(config[name]) for name in LISTS]
    single = attention[0] == attention[1] == attention[2] == attention[3]
    layout = _single_stream(keys, config, source) if single else _dual_stream(keys, config, source)
    layers, topology = layout
    return {
        **text_fields(
            source, "bert.", layers, f"bert.encoder.layer.{min(config['t_ff_sublayers'])}.intermediate.dense"
        ),
        **_region_embeddings(keys, config, source),
        **topology,
        **_poolers(keys, config, source),
        **_heads(keys, config, source),
    }, keys


def _single_stream(keys: KeyMap, config: dict[str, Any], source: SourceCheckpoint) -> tuple[int, dict[str, Any]]:
    attentions, feed_forwards = sorted(config["tt_attn_sublayers"]), sorted(config["t_ff_sublayers"])
    shared = set(config["shared_sublayers"])
    if sorted(config["v_ff_sublayers"]) != feed_forwards or not shared >= {*attentions, *feed_forwards}:
        raise _inexpressible(source, "its single stream does not share every sub-layer between the modalities")
    if feed_forwards != [attention + 1 for attention in attentions]:
        raise _inexpressible(source, "attention and feed-forward do not alternate")
    for number, (attention, feed_forward) in enumerate(zip(attentions, feed_forwards, strict=True)):
        _map_layer(keys, f"backbone.layers.{number}", attention, feed_forward, "")
        _tie_vision(keys, attention, (*ATTENTION, "attention_output.LayerNorm"))
        _tie_vision(keys, feed_forward, FEED_FORWARD)
    _check_heads(config, source, attentions, ("num_attention_heads", "v_num_attention_heads"))
    return len(attentions), {}


def _dual_stream(keys: KeyMap, config: dict[str, Any], source: SourceCheckpoint) -> tuple[int, dict[str, Any]]:
    text = _parse(config["tt_attn_sublayers"], config["tv_attn_sublayers"], config["t_ff_sublayers"], source)
    region = _parse(config["vv_attn_sublayers"], config["vt_attn_sublayers"], config["v_ff_sublayers"], source)
    co = [number for number, _ in text.co_attention]
    if co != [number for number, _ in region.co_attention]:
        raise _inexpressible(source, "text attends to vision in other sub-layers than vision to text")
    followed = {after is not None for stream in (text, region) for _, after in stream.co_attention}
    shared = {number in config["shared_sublayers"] for number in co}
    if len(followed) > 1 or len(shared) > 1:
        raise _inexpressible(
            source, "some co-attention sub-layers are shared or followed by a feed-forward, others not"
        )
    has_feed_forward, is_shared = followed == {True}, shared == {True}

    for stream, prefix, ours in ((text, "", "backbone.text_layers"), (region, "v_", "backbone.region_layers")):
        for number, (attention, feed_forward) in enumerate(stream.layers):
            _map_layer(keys, f"{ours}.{number}", attention, feed_forward, prefix)
    for number, sublayer in enumerate(co):
        ours = f"backbone.co_attention_layers.{number}"
        _map_co_attention(keys, f"{ours}.text", sublayer, "", "" if is_shared else "v_")
        if is_shared:
            _tie_vision(keys, sublayer, (*ATTENTION, "attention_output.LayerNorm"))
        else:
            _map_co_attention(keys, f"{ours}.region", sublayer, "v_", "")
        for stream, prefix, name in ((text, "", "text"), (region, "v_", "region")):
            after = stream.co_attention[number][1]
            if after is not None:
                _map_feed_forward(keys, f"{ours}.{name}_feed_forward", after, prefix)

    _check_heads(config, source, [attention for attention, _ in text.layers], ("num_attention_heads",))
    _check_heads(config, source, [attention for attention, _ in region.layers], ("v_num_attention_heads",))
    first_region = f"bert.encoder.layer.{region.layers[0][1]}.intermediate.v_dense.weight"
    return len(text.layers), {
        "region_num_hidden_layers": len(region.layers),
        "region_hidden_size": source.size(first_region, 1, "v_hidden_size"),
        "region_num_attention_heads": int(config["v_num_attention_heads"]),
        "region_intermediate_size": source.size(first_region, 0, "v_intermediate_size"),
        "text_co_attention_layers": text.stops,
        "region_co_attention_layers": region.stops,
        "co_attention_hidden_size": source.shape(f"bert.encoder.layer.{co[0]}.attention_self.query.weight")[0],
        "co_attention_num_heads": _co_attention_heads(config, source, co),
        "share_co_attention": is_shared,
        "co_attention_feed_forward": has_feed_forward,
    }


def _parse(own: list[int], other: list[int], feed_forward: list[int], source: SourceCheckpoint) -> _Stream:
    """Group the sub-layers of one stream into layers (self-attention and feed-forward) and co-attention layers."""
    kinds = {**dict.fromkeys(own, "own"), **dict.fromkeys(feed_forward, "feed_forward")}
    if set(own) & set(other):
        raise _inexpressible(source, f"sub-layers {sorted(set(own) & set(other))} attend to both modalities")
    kinds |= dict.fromkeys(other, "other")
    order, stream = sorted(kinds), _Stream()
    while order:
        number = order.pop(0)
        follower = order.pop(0) if order and kinds[order[0]] == "feed_forward" else None
        if kinds[number] == "other":
            stream.co_attention.append((number, follower))
            stream.stops.append(len(stream.layers))
        elif kinds[number] == "own" and follower is not None:
            stream.layers.append((number, follower))
        else:
            raise _inexpressible(source, f"sub-layer {number} is not an attention followed by a feed-forward")
    return stream


def _map_layer(keys: KeyMap, ours: str, attention: int, feed_forward: int, prefix: str) -> None:
    theirs = f"bert.encoder.layer.{attention}"
    for name in ("query", "key", "value"):
        keys.module(f"{theirs}.attention_self.{prefix}{name}", f"{ours}.attention.{name}")
    keys.module(f"{theirs}.attention_output.{prefix}dense", f"{ours}.attention.output")
    keys.module(f"{theirs}.attention_output.{prefix}LayerNorm", f"{ours}.attention_layer_norm")
    _map_feed_forward(keys, f"{ours}.feed_forward", feed_forward, prefix)


def _map_feed_forward(keys: KeyMap, ours: str, number: int, prefix: str) -> None:
    theirs = f"bert.encoder.layer.{number}"
    keys.module(f"{theirs}.intermediate.{prefix}dense", f"{ours}.up")
    keys.module(f"{theirs}.output.{prefix}dense", f"{ours}.down")
    keys.module(f"{theirs}.output.{prefix}LayerNorm", f"{ours}.layer_norm")


def _map_co_attention(keys: KeyMap, ours: str, number: int, queries: str, others: str) -> None:
    theirs = f"bert.encoder.layer.{number}"
    keys.module(f"{theirs}.attention_self.{queries}query", f"{ours}_attention.query")
    keys.module(f"{theirs}.attention_self.{others}key", f"{ours}_attention.key")
    keys.module(f"{theirs}.attention_self.{others}value", f"{ours}_attention.value")
    keys.module(f"{theirs}.attention_output.{queries}dense", f"{ours}_attention.output")
    keys.module(f"{theirs}.attention_output.{queries}LayerNorm", f"{ours}_layer_norm")


def _tie_vision(keys: KeyMap, number: int, names: Iterable[str]) -> None:
    """Tie the two copies of a shared sub-layer in the file, one of which has the prefix `v_`."""
    for name in names:
        block, _, module = name.partition(".")
        theirs = f"bert.encoder.layer.{number}.{block}"
        keys.tie_modules([(f"{theirs}.v_{module}", f"{theirs}.{module}")])


def _region_embeddings(keys: KeyMap, config: dict[str, Any], source: SourceCheckpoint) -> dict[str, Any]:
    kind = config["image_embeddings"]
    if kind == "visualbert":
        theirs = "bert.embeddings"
        keys.module(f"{theirs}.projection", f"{REGIONS}.feature_projection")
        for name in ("token_type", "position"):
            keys.tensor(f"{theirs}.{name}_embeddings_visual.weight", f"{REGIONS}.{name}_embeddings.weight")
        return {
            "region_feature_dim": source.size(f"{theirs}.projection.weight", 1, "v_feature_size"),
            "region_box_dim": 0,
            "region_projection_layer_norm": False,
            "region_embedding_layer_norm": "shared",
            "region_type_embedding": "own",
            "region_type_vocab_size": source.shape(f"{theirs}.token_type_embeddings_visual.weight")[0],
            "region_token_type_id": 1,
            "region_position_embedding": True,
        }
    layouts: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
        "vilbert": (
            "bert.v_embeddings",
            {"layer_norm": "LayerNorm"},
            {"region_projection_layer_norm": False, "region_embedding_layer_norm": "own"},
        ),
        "lxmert": (
            "bert.v_embeddings",
            {"feature_layer_norm": "ImgLayerNorm", "box_layer_norm": "LocLayerNorm"},
            {
                "region_projection_layer_norm": True,
                "region_embedding_layer_norm": "none",
                "region_embedding_reduction": "mean",
            },
        ),
        "uniter": (
            "bert.embeddings",
            {
                "feature_layer_norm": "image_layer_norm",
                "box_layer_norm": "image_location_layer_norm",
                "layer_norm": "v_LayerNorm",
            },
            {"region_type_embedding": "shared", "region_token_type_id": 1},
        ),
    }
    if kind not in layouts:
        raise _inexpressible(source, f"image_embeddings is {kind!r}, expected {', '.join(layouts)} or visualbert")
    theirs, norms, fields = layouts[kind]
    projections = {"feature_projection": "image_embeddings", "box_projection": "image_location_embeddings"}
    keys.modules(theirs, REGIONS, projections | norms)
    if kind == "uniter":
        keys.tie("bert.embeddings.image_token_type_embeddings.weight", "bert.embeddings.token_type_embeddings.weight")
    return {
        "region_feature_dim": source.size(f"{theirs}.image_embeddings.weight", 1, "v_feature_size"),
        "region_box_dim": source.size(f"{theirs}.image_location_embeddings.weight", 1, "num_locs"),
        **fields,
    }


def _poolers(keys: KeyMap, config: dict[str, Any], source: SourceCheckpoint) -> dict[str, Any]:
    fusion = config.get("fusion_method", "mul")
    if fusion not in ("mul", "sum", "text"):
        raise _inexpressible(source, f"fusion_method is {fusion!r}, expected 'mul', 'sum' or 'text'")
    keys.module("bert.t_pooler.dense", "backbone.text_pooler.dense")
    if fusion != "text":
        keys.module("bert.v_pooler.dense", "backbone.region_pooler.dense")
    return {
        "pooler_size": source.size("bert.t_pooler.dense.weight", 0, "pooler_size"),
        "pooler_act": "relu",
        "pooled_fusion": fusion,
        "pooled_dropout_prob": 0.1,
    }


def _heads(keys: KeyMap, config: dict[str, Any], source: SourceCheckpoint) -> dict[str, Any]:
    decoders = "cls.imagePredictions.decoder_dict"
    found = {number: f"{decoders}.{number}" for number in TARGETS if f"{decoders}.{number}.weight" in source}
    heads = [TARGETS[number][0] for number in found]
    for head in heads:
        if heads.count(head) > 1:
            raise _inexpressible(source, f"its visual targets {', '.join(found)} need more than one {head} head")
    for number, theirs in found.items():
        keys.module(theirs, f"heads.{TARGETS[number][0]}.decoder")
    if found:
        transform = "heads.region_transform" if len(found) > 1 else f"heads.{heads[0]}.transform"
        keys.modules("cls.imagePredictions.transform", transform, TRANSFORM)
    sizes = {TARGETS[number][0]: source.shape(f"{theirs}.weight")[0] for number, theirs in found.items()}
    answers = map_answer_head(keys, source, "cls.qaPredictions.logit_fc")
    present = {
        "mlm": map_token_head(keys, source, "bert.embeddings.word_embeddings.weight"),
        **{TARGETS[number][1]: True for number in found},
        "itm": map_matching(keys, source, "cls.bi_seq_relationship", MATCHED_FIRST),
        "qa": bool(answers),
    }
    weights = {
        TARGETS[number][1]: weight
        for number, weight in config.get("visual_target_weights", {}).items()
        if number in found
    }
    return {
        "share_region_head_transform": len(found) > 1,
        "num_region_classes": sizes.get("region_class", 0),
        "region_background_class": None if "3" in found or "region_class" not in sizes else 0,
        "num_region_attributes": sizes.get("region_attribute", 0),
        "confidence_weighted_classes": "3" in found or "4" in found,
        "num_qa_labels": answers,
        "objective_weights": objectives(present, lambda name: float(weights.get(name, 1.0))),
    }


def _check_heads(
    config: dict[str, Any], source: SourceCheckpoint, sublayers: list[int], names: tuple[str, ...]
) -> None:
    for name in names:
        own = config.get(f"sublayer2{name}", {})
        odd = {number: own[str(number)] for number in sublayers if own.get(str(number), config[name]) != config[name]}
        if odd:
            raise _inexpressible(source, f"sub-layers {odd} have another number of heads than {name} {config[name]}")
    if len({config[name] for name in names}) > 1:
        raise _inexpressible(source, f"{' and '.join(names)} differ in a shared stack")


def _co_attention_heads(config: dict[str, Any], source: SourceCheckpoint, sublayers: list[int]) -> int:
    heads = {
        int(config.get(f"sublayer2{name}", {}).get(str(number), config[name]))
        for name in ("num_attention_heads", "v_num_attention_heads")
        for number in sublayers
    }
    if len(heads) > 1:
        raise _inexpressible(source, f"its co-attention sub-layers have {sorted(heads)} heads, expected one number")
    return heads.pop()


def _inexpressible(source: SourceCheckpoint, why: str) -> MmptValueError:
    return MmptValueError(
        f"{source.path}: {why}. Supported are single stream, ViLBERT's and LXMERT's topologies, each layer an "
        "attention and a feed-forward"
    )
