"""Text encoders of transformers (BERT, RoBERTa and their kin) as a start for the text part of either stream."""

from typing import Any

from mmpt.configuration.configuration_mmpt import MmptConfig, MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.predecessors.bert_keys import LAYER, map_layers, map_text_embeddings, settings
from mmpt.predecessors.key_map import KeyMap, Part, rows_from
from mmpt.predecessors.source_checkpoint import SourceCheckpoint

PRESETS = {
    "uniter": MmptSingleStreamConfig.uniter,
    "visual_bert": MmptSingleStreamConfig.visual_bert,
    "oscar": MmptSingleStreamConfig.oscar,
    "volta_uniter": MmptSingleStreamConfig.volta_uniter,
    "volta_visual_bert": MmptSingleStreamConfig.volta_visual_bert,
    "vilbert": MmptDualStreamConfig.vilbert,
    "lxmert": MmptDualStreamConfig.lxmert,
    "volta_vilbert": MmptDualStreamConfig.volta_vilbert,
    "volta_lxmert": MmptDualStreamConfig.volta_lxmert,
}
SHIFTED_POSITIONS = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"}
"""Model types that count positions from pad_token_id + 1."""

WORDS = "embeddings.word_embeddings.weight"


def read_text_encoder(source: SourceCheckpoint, preset: str, overrides: dict[str, Any]) -> tuple[MmptConfig, KeyMap]:
    """Map a text encoder to the text part of a preset's model.

    Layer i starts text layer i (VOLTA does the same), which in the single stream is the layer of both modalities. In
    VisualBERT's preset, types and positions of regions start as those of text (its original code does).

    Raises:
        ValueError: if the preset is unknown, or the encoder's embeddings are narrower than its layers.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}, expected one of {', '.join(PRESETS)}")
    root = next(key for key in source if key.endswith(WORDS)).removesuffix(WORDS)
    layers = source.count(f"{root}encoder.layer")
    vocab_size, size = source.shape(root + WORDS)
    width = source.shape(f"{root}encoder.layer.0.intermediate.dense.weight")[1] if layers else 0
    if width != size:
        raise ValueError(
            f"{source.path}: embeddings are {size} wide and layers {width}; expected an encoder with both alike"
        )
    positions = source.shape(f"{root}embeddings.position_embeddings.weight")[0]
    shifted = source.config.get("model_type") in SHIFTED_POSITIONS or root in ("roberta.",)
    skipped = int(source.setting("pad_token_id", 1)) + 1 if shifted else 0
    values: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": size,
        "num_attention_heads": source.heads("num_attention_heads", size),
        "intermediate_size": source.shape(f"{root}encoder.layer.0.intermediate.dense.weight")[0],
        "max_position_embeddings": positions - skipped,
        "pad_token_id": source.setting("pad_token_id", 0),
        **settings(source),
    }
    template = PRESETS[preset]()
    single = isinstance(template, MmptSingleStreamConfig)
    if single:
        values["num_hidden_layers"] = layers
    values |= overrides
    config = PRESETS[preset](**values)

    keys = KeyMap()
    map_text_embeddings(keys, root)
    position, types = (f"{root}embeddings.{name}_embeddings.weight" for name in ("position", "token_type"))
    if skipped:
        part = rows_from(skipped, f"row {skipped} is the first token's")
        keys.targets[position] = [("backbone.text_embeddings.position_embeddings.weight", part)]
    type_rows = source.shape(types)[0]
    fitted = _rows_fitted(type_rows, config.type_vocab_size)
    keys.targets[types] = [("backbone.text_embeddings.token_type_embeddings.weight", fitted)]
    if preset == "visual_bert":
        part = _rows_fitted(type_rows, config.region_type_vocab_size)
        keys.tensor(types, "backbone.region_embeddings.token_type_embeddings.weight", part)
        ours = "backbone.region_embeddings.position_embeddings.weight"
        keys.tensor(position, ours, rows_from(skipped, "as the text's"))
    used = min(layers, config.num_hidden_layers)
    map_layers(keys, f"{root}encoder.layer", "backbone.layers" if single else "backbone.text_layers", used)
    for number in range(used, layers):
        surplus = (f"{root}encoder.layer.{number}.{module}.{name}" for module in LAYER.values() for name in _BOTH)
        keys.drop(surplus, f"the text stream has {config.num_hidden_layers} layers")
    _map_pooler(keys, source, root, config)
    _map_head(keys, source, root, config)
    return config, keys


def _map_pooler(keys: KeyMap, source: SourceCheckpoint, root: str, config: MmptConfig) -> None:
    theirs = f"{root}pooler.dense"
    if f"{theirs}.weight" not in source:
        return
    if source.shape(f"{theirs}.weight")[0] == config.pooler_size and config.pooler_act == "tanh":
        keys.module(theirs, "backbone.text_pooler.dense")
    else:
        reason = f"the preset pools to {config.pooler_size} with {config.pooler_act}, the encoder with tanh"
        keys.drop((f"{theirs}.{name}" for name in _BOTH), reason)


def _map_head(keys: KeyMap, source: SourceCheckpoint, root: str, config: MmptConfig) -> None:
    heads = {
        "cls.predictions": ("transform.dense", "transform.LayerNorm", "bias"),
        "lm_head": ("dense", "layer_norm", "bias"),
    }
    for theirs, (dense, norm, bias) in heads.items():
        if f"{theirs}.{dense}.weight" in source and "mlm" in config.objective_weights:
            keys.module(f"{theirs}.{dense}", "heads.token.transform.dense")
            keys.module(f"{theirs}.{norm}", "heads.token.transform.layer_norm")
            keys.tensor(f"{theirs}.{bias}", "heads.token.decoder.bias")
            keys.tie(f"{theirs}.decoder.weight", root + WORDS)
            keys.tie(f"{theirs}.decoder.bias", f"{theirs}.{bias}")
    keys.drop(
        (key for key in source if key.startswith("cls.seq_relationship.")), "next sentence, which is no image's match"
    )


def _rows_fitted(theirs: int, ours: int) -> Part:
    """Cut a table, or repeat its first row: RoBERTa has one token type."""
    if ours <= theirs:
        return Part("" if ours == theirs else f"first {ours} rows", lambda tensor: tensor[:ours])
    return Part(
        f"rows {theirs}..{ours - 1} start as row 0",
        lambda tensor: tensor[[*range(theirs), *([0] * (ours - theirs))]],
    )


_BOTH = ("weight", "bias")
