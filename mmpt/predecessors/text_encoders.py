"""Initialise the text part of a model from a text encoder of transformers (BERT, RoBERTa and similar)."""

from typing import Any

from mmpt.configuration.configuration_mmpt import MmptConfig, MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.predecessors.bert_keys import LAYER, map_text_embeddings, settings
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
SHIFTED_POSITIONS = {"roberta", "xlm-roberta", "camembert", "data2vec-text"}
"""Model types whose positions start at pad_token_id + 1."""

COVERED = (
    "BERT, RoBERTa, XLM-RoBERTa, CamemBERT, Data2Vec-text, ERNIE, DistilBERT, and ELECTRA if its embeddings are as "
    "wide as its layers"
)

WORDS = "embeddings.word_embeddings.weight"

DISTILBERT_LAYER = {
    "attention.query": "attention.q_lin",
    "attention.key": "attention.k_lin",
    "attention.value": "attention.v_lin",
    "attention.output": "attention.out_lin",
    "attention_layer_norm": "sa_layer_norm",
    "feed_forward.up": "ffn.lin1",
    "feed_forward.down": "ffn.lin2",
    "feed_forward.layer_norm": "output_layer_norm",
}
"""Our module name in a layer -> theirs."""

DISTILBERT_SETTINGS = {
    "n_heads": "num_attention_heads",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}

TOKEN_HEADS = (
    (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
        "cls.predictions.decoder",
    ),
    ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder"),
    ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias", "generator_lm_head"),
    ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector"),
)
"""(hidden layer, its norm, bias, decoder) of the MLM heads of BERT, RoBERTa, ELECTRA's generator, DistilBERT."""

OTHER_HEADS = {
    "cls.seq_relationship.": "next-sentence prediction, which is not image-text matching",
    "discriminator_predictions.": "replaced-token detection, for which there is no objective",
}


def read_text_encoder(source: SourceCheckpoint, preset: str, overrides: dict[str, Any]) -> tuple[MmptConfig, KeyMap]:
    """Map a text encoder to the text part of a preset's model.

    Layer i initialises text layer i, as in VOLTA; in a single stream, this layer is shared by both modalities. With
    VisualBERT's preset, type and position embeddings of regions are initialised from those of text, as in its original
    code.

    Raises:
        ValueError: if the preset is unknown, or the encoder has another architecture than BERT.
    """
    if preset not in PRESETS:
        raise MmptValueError(f"unknown preset {preset!r}, expected one of {', '.join(PRESETS)}")
    root = next(key for key in source if key.endswith(WORDS)).removesuffix(WORDS)
    distilled = f"{root}transformer.layer.0.attention.q_lin.weight" in source
    if distilled:
        source.config |= {
            ours: source.config[name] for name, ours in DISTILBERT_SETTINGS.items() if name in source.config
        }
    theirs_layer, names = (
        (f"{root}transformer.layer", DISTILBERT_LAYER) if distilled else (f"{root}encoder.layer", LAYER)
    )
    layers = source.count(theirs_layer, "num_hidden_layers", *(["n_layers"] if distilled else []))
    position, types = (f"{root}embeddings.{name}_embeddings.weight" for name in ("position", "token_type"))
    up = f"{theirs_layer}.0.{names['feed_forward.up']}.weight"
    for key in (position, up, f"{theirs_layer}.0.{names['attention.query']}.weight", *([] if distilled else [types])):
        if key not in source:
            raise MmptValueError(
                f"{source.path} has no {key!r}: this encoder does not have BERT's architecture. Supported are {COVERED}"
            )
    vocab_size = source.size(root + WORDS, 0, "vocab_size")
    size = source.size(root + WORDS, 1, "hidden_size", "dim")
    inner, width = source.size(up, 0, "intermediate_size", "hidden_dim"), source.shape(up)[1]
    if width != size:
        raise MmptValueError(
            f"{source.path}: embeddings have width {size} and layers width {width}; expected the same width"
        )
    shifted = source.config.get("model_type") in SHIFTED_POSITIONS or root == "roberta."
    skipped = int(source.setting("pad_token_id", 1)) + 1 if shifted else 0
    values: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": size,
        "num_attention_heads": source.heads("num_attention_heads", size),
        "intermediate_size": inner,
        "max_position_embeddings": source.shape(position)[0] - skipped,
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
    if skipped:
        part = rows_from(skipped, f"row {skipped} is the first token's")
        keys.targets[position] = [("backbone.text_embeddings.position_embeddings.weight", part)]
    of_types = root + WORDS if distilled else types
    keys.targets.pop(types)
    keys.tensor(of_types, _OUR_TYPES, _types_part(source, types, config.type_vocab_size))
    if preset == "visual_bert":
        part = _types_part(source, types, config.region_type_vocab_size)
        keys.tensor(of_types, "backbone.region_embeddings.token_type_embeddings.weight", part)
        ours = "backbone.region_embeddings.position_embeddings.weight"
        keys.tensor(position, ours, rows_from(skipped, "as the text's"))
    stream = "backbone.layers" if single else "backbone.text_layers"
    for number in range(layers):
        if number < config.num_hidden_layers:
            keys.modules(f"{theirs_layer}.{number}", f"{stream}.{number}", names)
        else:
            surplus = (f"{theirs_layer}.{number}.{module}.{name}" for module in names.values() for name in _BOTH)
            keys.drop(surplus, f"the text stream has {config.num_hidden_layers} layers")
    _map_pooler(keys, source, root, config)
    _map_head(keys, source, root, config)
    return config, keys


def keys_beside_text(source: SourceCheckpoint) -> list[str]:
    """Return the keys that do not belong to a text encoder with BERT's architecture."""
    root = next((key.removesuffix(WORDS) for key in source if key.endswith(WORDS)), None)
    if root is None:
        return list(source)
    parts = tuple(root + part for part in ("embeddings.", "encoder.layer.", "transformer.layer.", "pooler."))
    heads = tuple(name for names in TOKEN_HEADS for name in names) + tuple(OTHER_HEADS)
    return [key for key in source if not key.startswith((*parts, *heads))]


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
    for dense, norm, bias, decoder in TOKEN_HEADS:
        if f"{dense}.weight" in source and "mlm" in config.objective_weights:
            keys.module(dense, "heads.token.transform.dense")
            keys.module(norm, "heads.token.transform.layer_norm")
            keys.tensor(bias, "heads.token.decoder.bias")
            keys.tie(f"{decoder}.weight", root + WORDS)
            if bias != f"{decoder}.bias":
                keys.tie(f"{decoder}.bias", bias)
    for head, reason in OTHER_HEADS.items():
        keys.drop((key for key in source if key.startswith(head)), reason)


def _types_part(source: SourceCheckpoint, types: str, rows: int) -> Part:
    """Truncate the table of types, or repeat its first row (RoBERTa has one type); use zeros if there is no table."""
    if types not in source:
        return Part("zeros: DistilBERT has no token types", lambda words: words.new_zeros(rows, words.shape[1]))
    theirs = source.shape(types)[0]
    if rows <= theirs:
        return Part("" if rows == theirs else f"first {rows} rows", lambda table: table[:rows])
    return Part(
        f"rows {theirs}..{rows - 1} copy row 0", lambda table: table[[*range(theirs), *([0] * (rows - theirs))]]
    )


_BOTH = ("weight", "bias")
_OUR_TYPES = "backbone.text_embeddings.token_type_embeddings.weight"
