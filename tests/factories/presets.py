"""Tiny models of every preset, pre-training and task class, each with a batch that has labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining
from tests.factories.models import DUAL_SIZES, SIZES, tiny_batch, tiny_labels
from tests.factories.task_models import CLASSES, TASKS, task_batch, task_class, task_labels

SINGLE = ("default", "uniter", "visual_bert", "oscar", "volta_uniter", "volta_visual_bert")
DUAL = ("default", "vilbert", "lxmert", "volta_vilbert", "volta_lxmert")
PRESETS = [("single", name) for name in SINGLE] + [("dual", name) for name in DUAL]
EQUAL_WIDTHS = {"region_hidden_size": 16, "region_num_attention_heads": 2, "co_attention_hidden_size": 16}


@dataclass
class Case:
    """A model, how it is made, and what it is given.

    Args:
        name: stream, preset, class and fusion.
    """

    name: str
    model_class: type[PreTrainedModel]
    config: Any
    batch: dict[str, Tensor]
    labels: dict[str, Tensor]

    def build(self, seed: int = 0) -> Any:
        """Return the model in evaluation mode, with the same weights for the same seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.model_class(self.config).eval()


def preset_config(stream: str, preset: str, **overrides: Any) -> Any:
    """Return the configuration of a preset, tiny."""
    config_class: Any = MmptSingleStreamConfig if stream == "single" else MmptDualStreamConfig
    sizes = SIZES | {"num_labels": CLASSES, "initializer_range": 0.1}
    sizes |= DUAL_SIZES | EQUAL_WIDTHS if stream == "dual" else {}
    sizes |= {"num_qa_labels": 5, "num_region_attributes": 4} if preset == "lxmert" else {}
    if preset == "oscar":
        del sizes["num_region_classes"]
    make = config_class if preset == "default" else getattr(config_class, preset)
    return make(**{**sizes, **overrides})


def pretraining_case(stream: str, preset: str, **overrides: Any) -> Case:
    """Return a model for pre-training with labels of all its objectives."""
    config = preset_config(stream, preset, **overrides)
    model_class = MmptSingleStreamForPreTraining if stream == "single" else MmptDualStreamForPreTraining
    more = {
        "mrc_attribute_labels": torch.where(tiny_labels()["masked_regions"], 1, -100),
        "qa_labels": torch.tensor([1, -100, 4]),
    }
    given = tiny_labels() | more
    labels = {key: value for key, value in given.items() if key.removesuffix("_labels") in config.objective_weights}
    batch = tiny_batch() | {"masked_regions": given["masked_regions"]}
    return Case(_name(stream, preset, "PreTraining", overrides), model_class, config, batch, labels)


def task_case(stream: str, preset: str, task: str, **overrides: Any) -> Case:
    """Return a model of a task with labels."""
    more = {"region_type_embedding": "own"} if task == "ImagesAndTextClassification" and preset == "default" else {}
    config = preset_config(stream, preset, **more, **overrides)
    name = _name(stream, preset, task, overrides)
    return Case(name, task_class(stream, task), config, task_batch(task), {"labels": task_labels(task)})


def every_case() -> Iterator[Case]:
    """Yield every preset's pre-training, every preset's tasks, and the fusions and heads that presets leave out."""
    for stream, preset in PRESETS:
        yield pretraining_case(stream, preset)
        for task in TASKS:
            yield task_case(stream, preset, task)
    for stream in ("single", "dual"):
        early = {"mlm": 1.0, "mrc": 1.0, "mrfr": 1.0}
        yield pretraining_case(stream, "default", fusion="late", objective_weights=early)
        yield pretraining_case(stream, "default", fusion="hybrid", tie_region_feature_decoder=True)
        for fusion in ("late", "hybrid"):
            yield task_case(stream, "default", "QuestionAnswering", fusion=fusion, late_fusion="learned")
        yield task_case(stream, "default", "ImageAndTextRetrieval", contrastive_size=8)
        yield task_case(stream, "default", "ImagesAndTextClassification", image_pair="pair_attention")


def mechanism_cases() -> Iterator[Case]:
    """Yield the few cases that have every way of reading a weight that there is."""
    yield pretraining_case("single", "uniter")
    yield pretraining_case("single", "volta_visual_bert")
    yield pretraining_case("dual", "lxmert")
    yield pretraining_case("dual", "vilbert", tie_region_feature_decoder=True)
    yield task_case("dual", "default", "QuestionAnswering", fusion="hybrid", late_fusion="learned")
    yield task_case("single", "uniter", "ImageAndTextRetrieval", contrastive_size=8)
    yield task_case("single", "default", "ImagesAndTextClassification", image_pair="pair_attention")


def _name(stream: str, preset: str, model: str, overrides: dict[str, Any]) -> str:
    return " ".join([stream, preset, model, *(str(value) for value in overrides.values() if isinstance(value, str))])
