"""The families of checkpoints, and how one is recognised by its keys."""

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
        signs: a checkpoint that has one of these keys (or, ending in a dot, keys that begin so) is of the family.
        read: gives the fields of our configuration, and the key map.
        config_class: of the model that it becomes; None where the checkpoint tells.
        read_heads: gives the fine-tuned heads that can be converted.
        lowercase: whether its text was lower-cased.
        whole_image_region: whether a region with the mean feature stands in front.
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
"""By name; VOLTA stands before VisualBERT, because its VisualBERT has VisualBERT's embeddings."""


def recognise(source: SourceCheckpoint) -> str:
    """Return the name of the family whose keys the checkpoint has, "bert" for a text encoder and nothing else.

    Raises:
        ValueError: if it has the keys of none, showing some of those it has.
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
        f"of {', '.join(FAMILIES)}, or a text encoder of transformers alone. Name the family with --from if you know it"
    )


def config_class_of(name: str, values: dict[str, Any]) -> type[MmptConfig]:
    """Return the configuration class of a family's checkpoint with these fields."""
    fixed = FAMILIES[name].config_class
    return fixed or (MmptDualStreamConfig if "text_co_attention_layers" in values else MmptSingleStreamConfig)
