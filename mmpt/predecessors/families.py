"""Table of predecessors, and recognition of a checkpoint by its keys."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmpt.configuration.configuration_mmpt import MmptConfig, MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.predecessors.dual_stream_families import read_lxmert, read_vilbert
from mmpt.predecessors.fine_tuned_heads import (
    lxmert_heads,
    oscar_heads,
    uniter_heads,
    vilbert_heads,
    visual_bert_heads,
    volta_heads,
)
from mmpt.predecessors.key_map import KeyMap
from mmpt.predecessors.single_stream_families import read_oscar, read_uniter, read_visual_bert
from mmpt.predecessors.source_checkpoint import SourceCheckpoint
from mmpt.predecessors.task_heads import TaskHead
from mmpt.predecessors.text_encoders import WORDS, keys_beside_text
from mmpt.predecessors.volta import read_volta

Read = Callable[[SourceCheckpoint], tuple[dict[str, Any], KeyMap]]
ReadHeads = Callable[[SourceCheckpoint], list[TaskHead]]


@dataclass(frozen=True)
class Family:
    """A predecessor.

    Args:
        signs: keys, or prefixes that end in a dot; a checkpoint with any of them belongs to the family.
        read: returns the fields of our configuration, and the mapping of keys.
        config_class: configuration class of the converted model; None infers it from the checkpoint.
        read_heads: returns the fine-tuned heads that can be converted.
        lowercase: whether its text is lower-cased.
        whole_image_region: whether a whole-image region with the mean feature comes first.
    """

    signs: tuple[str, ...]
    read: Read
    config_class: type[MmptConfig] | None
    read_heads: ReadHeads
    lowercase: bool = True
    whole_image_region: bool = False


FAMILIES = {
    "uniter": Family(("uniter.img_embeddings.",), read_uniter, MmptSingleStreamConfig, uniter_heads, lowercase=False),
    "lxmert": Family(
        ("lxmert.encoder.visn_fc.", "encoder.visn_fc."),
        read_lxmert,
        MmptDualStreamConfig,
        lxmert_heads,
    ),
    "lxmert_original": Family(("bert.encoder.visn_fc.",), read_lxmert, MmptDualStreamConfig, lxmert_heads),
    "vilbert": Family(
        ("bert.encoder.c_layer.",), read_vilbert, MmptDualStreamConfig, vilbert_heads, whole_image_region=True
    ),
    "volta": Family(
        ("bert.encoder.layer.0.attention_self.query.weight",), read_volta, None, volta_heads, whole_image_region=True
    ),
    "visual_bert": Family(
        (
            "visual_bert.embeddings.visual_projection.",
            "embeddings.visual_projection.",
            "bert.embeddings.token_type_embeddings_visual.",
        ),
        read_visual_bert,
        MmptSingleStreamConfig,
        visual_bert_heads,
    ),
    "oscar": Family(("bert.img_embedding.",), read_oscar, MmptSingleStreamConfig, oscar_heads),
}
"""Families by name. VOLTA comes before VisualBERT, because VOLTA's VisualBERT has VisualBERT's embeddings."""


def recognise(source: SourceCheckpoint) -> str:
    """Return the name of the family of a checkpoint, or "bert" for a text encoder without other parts.

    Raises:
        ValueError: if it belongs to no family; the message shows some of its keys.
    """
    for name, family in FAMILIES.items():
        if any(key == sign or (sign.endswith(".") and key.startswith(sign)) for sign in family.signs for key in source):
            return name
    foreign = keys_beside_text(source)
    if any(key.endswith(WORDS) for key in source) and not foreign:
        return "bert"
    shown = foreign or list(source)
    raise MmptValueError(
        f"{source.path} is of no known family: it has {len(shown)} keys such as {', '.join(shown[:4])}; expected one "
        f"of {', '.join(FAMILIES)}, or only a text encoder of transformers. Name the family with --from if you know it"
    )


def config_class_of(name: str, values: dict[str, Any]) -> type[MmptConfig]:
    """Return the configuration class for a checkpoint of a family with these fields."""
    fixed = FAMILIES[name].config_class
    return fixed or (MmptDualStreamConfig if "text_co_attention_layers" in values else MmptSingleStreamConfig)
