"""Keys shared by all predecessors: BERT's embeddings, layers and heads, and the inferred configuration fields."""

from collections.abc import Callable
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.predecessors.key_map import WHOLE, KeyMap, Part
from mmpt.predecessors.source_checkpoint import SourceCheckpoint

TRANSFORM = {"dense": "dense", "layer_norm": "LayerNorm"}
LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_layer_norm": "attention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "feed_forward.layer_norm": "output.LayerNorm",
}
"""Our module name in a layer -> theirs."""


def text_fields(source: SourceCheckpoint, root: str, layers: int, first_layer: str) -> dict[str, Any]:
    """Return the configuration fields of BERT: sizes from shapes, the rest from the checkpoint's configuration.

    Args:
        root: prefix of `embeddings`, including the dot.
        layers: number of layers.
        first_layer: the first linear layer of a feed-forward block, whose shape gives `intermediate_size`.

    Raises:
        ValueError: if the configuration contradicts a shape.
    """
    words = f"{root}embeddings.word_embeddings.weight"
    hidden_size = source.size(words, 1, "hidden_size")
    return {
        "vocab_size": source.size(words, 0, "vocab_size"),
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": source.heads("num_attention_heads", hidden_size),
        "intermediate_size": source.size(f"{first_layer}.weight", 0, "intermediate_size"),
        "max_position_embeddings": source.size(
            f"{root}embeddings.position_embeddings.weight", 0, "max_position_embeddings"
        ),
        "type_vocab_size": source.size(f"{root}embeddings.token_type_embeddings.weight", 0),
        **settings(source),
    }


def settings(source: SourceCheckpoint) -> dict[str, Any]:
    """Return the fields that cannot be inferred from weights, with BERT's values as defaults.

    Raises:
        ValueError: if text and regions have different activations, which our models do not support.
    """
    found = {
        name: source.setting(name, default)
        for name, default in (
            ("hidden_act", "gelu"),
            ("hidden_dropout_prob", 0.1),
            ("attention_probs_dropout_prob", 0.1),
            ("initializer_range", 0.02),
            ("layer_norm_eps", 1e-12),
        )
    }
    for name in ("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob"):
        of_regions = source.config.get(f"v_{name}", found[name])
        if of_regions == found[name]:
            continue
        if name == "hidden_act":
            raise MmptValueError(
                f"{source.path}: hidden_act is {found[name]!r} but v_hidden_act {of_regions!r}; both streams have one "
                "activation here, so this checkpoint cannot be expressed"
            )
        source.assumptions.append(f"{name} = {found[name]} for both streams; v_{name} was {of_regions}")
    return found


def map_text_embeddings(keys: KeyMap, root: str) -> None:
    ours = "backbone.text_embeddings"
    for name in ("word", "position", "token_type"):
        keys.tensor(f"{root}embeddings.{name}_embeddings.weight", f"{ours}.{name}_embeddings.weight")
    keys.module(f"{root}embeddings.LayerNorm", f"{ours}.layer_norm")


def map_layers(keys: KeyMap, theirs: str, ours: str, count: int) -> None:
    for number in range(count):
        keys.modules(f"{theirs}.{number}", f"{ours}.{number}", LAYER)


def map_token_head(keys: KeyMap, source: SourceCheckpoint, word_embeddings: str) -> bool:
    """Map BERT's MLM head, if present, and return whether it is. Its decoder is tied to the word embeddings."""
    if "cls.predictions.transform.dense.weight" not in source:
        return False
    keys.modules("cls.predictions.transform", "heads.token.transform", TRANSFORM)
    keys.tensor("cls.predictions.bias", "heads.token.decoder.bias")
    keys.tie("cls.predictions.decoder.weight", word_embeddings)
    keys.tie("cls.predictions.decoder.bias", "cls.predictions.bias")
    return True


def map_matching(keys: KeyMap, source: SourceCheckpoint, theirs: str, part: Part = WHOLE) -> bool:
    """Map the image-text matching head, if present, and return whether it is."""
    if f"{theirs}.weight" not in source:
        return False
    keys.module(theirs, "heads.matching", part)
    return True


def map_answer_head(keys: KeyMap, source: SourceCheckpoint, theirs: str) -> int:
    """Map LXMERT's answer head, if present, and return its number of answers, otherwise 0."""
    if f"{theirs}.3.weight" not in source:
        return 0
    map_mlp_head(keys, theirs, "heads.answer")
    return source.shape(f"{theirs}.3.weight")[0]


def map_mlp_head(keys: KeyMap, theirs: str, ours: str, last: Part = WHOLE) -> None:
    """Map a sequence of Linear, activation, LayerNorm and Linear; `last` selects a part of the last layer."""
    keys.module(f"{theirs}.0", f"{ours}.transform.dense")
    keys.module(f"{theirs}.2", f"{ours}.transform.layer_norm")
    keys.module(f"{theirs}.3", f"{ours}.decoder", last)


def drop_buffers(keys: KeyMap, source: SourceCheckpoint) -> None:
    keys.drop((key for key in source if key.endswith("position_ids")), "a constant that the model creates itself")


def objectives(present: dict[str, bool], weights: Callable[[str], float] = lambda _: 1.0) -> dict[str, float]:
    return {name: weights(name) for name, there in present.items() if there}
