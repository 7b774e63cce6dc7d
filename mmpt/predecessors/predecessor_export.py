"""The way back: our models as folders that transformers' own LXMERT and VisualBERT load."""

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
    PreTrainedConfig,
    PreTrainedModel,
    VisualBertConfig,
    VisualBertForPreTraining,
)

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.modeling_mmpt.heads import MmptForPreTraining
from mmpt.predecessors.families import FAMILIES, config_class_of
from mmpt.predecessors.key_map import KeyMap
from mmpt.predecessors.source_checkpoint import SourceCheckpoint

TARGETS = ("lxmert", "visual_bert")

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
}
"""Fields that no output of the model in use depends on."""


def export_predecessor(model: MmptForPreTraining, out: str | Path, target: str) -> None:
    """Write a model as a folder that `LxmertForPreTraining` or `VisualBertForPreTraining` loads, bit by bit.

    Raises:
        FileExistsError: if `out` holds files already.
        ValueError: if the target cannot express the model, naming the fields that differ, or a head is missing.
    """
    out = Path(out)
    _check_target(target)
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; name a new folder")
    theirs = _their_model(model.config, target)
    keys = _check_expressible(model.config, theirs, target)
    ours = model.state_dict()
    weights: dict[str, Tensor] = {}
    for their_key, ((our_key, _),) in keys.targets.items():
        if our_key in ours:
            weights[their_key] = ours[our_key]
    for their_key, to in keys.ties.items():
        if their_key in theirs.state_dict():
            weights[their_key] = weights[to]
    missing = sorted(set(theirs.state_dict()) - set(weights))
    if missing:
        raise ValueError(
            f"{target} of transformers has weights that this model lacks: {', '.join(missing[:4])}; name their "
            "objectives in objective_weights (mlm and itm are always there) and train them, or convert another model"
        )
    theirs.load_state_dict(weights, assign=True)
    theirs.tie_weights()
    theirs.save_pretrained(out)


def convert_back(source: str | Path, out: str | Path, target: str) -> None:
    """Export a folder of ours, with its tokenizer if it has one. Errors are those of `export_predecessor`."""
    _check_target(target)
    try:
        config = AutoConfig.from_pretrained(source)
    except ValueError:  # transformers': no model_type that it knows
        config = None
    if not isinstance(config, MmptConfig):
        raise ValueError(f"{source} is no model of this package; to convert one of another, leave --to out")
    export_predecessor(AutoModelForPreTraining.from_pretrained(source), out, target)
    if (Path(source) / "tokenizer_config.json").is_file():
        AutoTokenizer.from_pretrained(source).save_pretrained(out)


def _check_target(target: str) -> None:
    if target not in TARGETS:
        raise ValueError(f"got target {target!r}, expected one of {', '.join(TARGETS)}")


def _their_model(config: MmptConfig, target: str) -> PreTrainedModel:
    shared: dict[str, Any] = {name: getattr(config, name) for name in SHARED_FIELDS}
    on = config.objective_weights
    with torch.device("meta"):
        if target == "visual_bert":
            return VisualBertForPreTraining(
                VisualBertConfig(
                    **shared,
                    num_hidden_layers=config.num_hidden_layers,
                    visual_embedding_dim=config.region_feature_dim,
                )
            )
        stops = getattr(config, "text_co_attention_layers", [])
        cross = len(stops)
        return LxmertForPreTraining(
            LxmertConfig(
                **{name: value for name, value in shared.items() if name != "layer_norm_eps"},
                l_layers=config.num_hidden_layers - cross,
                x_layers=cross,
                r_layers=getattr(config, "region_num_hidden_layers", cross) - cross,
                visual_feat_dim=config.region_feature_dim,
                visual_pos_dim=config.region_box_dim,
                num_object_labels=config.num_region_classes,
                num_attr_labels=config.num_region_attributes,
                num_qa_labels=config.num_qa_labels,
                task_obj_predict=bool({"mrc", "mrc_attribute", "mrfr"} & set(on)),
                task_qa="qa" in on,
                visual_obj_loss="mrc" in on,
                visual_attr_loss="mrc_attribute" in on,
                visual_feat_loss="mrfr" in on,
            )
        )


def _check_expressible(config: MmptConfig, theirs: PreTrainedModel, target: str) -> KeyMap:
    """Read the model that would be written as the importer would, and compare its configuration with ours."""
    source = _Described(theirs)
    values, keys = FAMILIES[target].read(source)
    again = config_class_of(target, values)(**values)
    if type(again) is not type(config):
        raise ValueError(f"{target} cannot express a {type(config).__name__}, expected a {type(again).__name__}")
    of_heads = () if _classifies(config) else ("num_region_classes", "region_background_class")
    differing = {
        name: (getattr(config, name), getattr(again, name))
        for name in _own_fields(type(again)) - OF_TRAINING - set(of_heads)
        if getattr(config, name) != getattr(again, name)
    }
    if differing:
        said = "; ".join(
            f"{name} is {ours!r}, {target} has {other!r}" for name, (ours, other) in sorted(differing.items())
        )
        raise ValueError(f"{target} of transformers cannot express this model: {said}")
    return keys


def _own_fields(config_class: type[MmptConfig]) -> set[str]:
    """Return the fields of our configurations, without those that transformers gives every model."""
    return {item.name for item in fields(config_class)} - {item.name for item in fields(PreTrainedConfig)}


def _classifies(config: MmptConfig) -> bool:
    return bool({"mrc", "mrc_kl"} & set(config.objective_weights))


class _Described(SourceCheckpoint):
    """A model of transformers on the meta device, with the face of a checkpoint: keys, shapes, configuration."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.path = Path(type(model).__name__)
        self.folder = self.path
        self.config = model.config.to_dict()
        self.assumptions = []
        self._shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        self._tensors = dict.fromkeys(self._shapes)  # type: ignore[assignment]

    def shape(self, key: str) -> tuple[int, ...]:
        return self._shapes[key]
