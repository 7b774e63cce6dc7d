"""Our classes under transformers' own shared tests: both backbones and both pre-training models."""

import unittest
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from fetch import shared_tests
from hf_suite import NOT_FETCHED, load, model_case, processor_case, register_names
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForPreTraining,
    AutoProcessor,
    PreTrainedTokenizerFast,
)

from mmpt.configuration.configuration_mmpt import MmptConfig, MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.modeling_mmpt.heads import MmptForPreTraining
from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining, MmptDualStreamModel
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining, MmptSingleStreamModel
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.word_tokenizer import build_word_tokenizer

if shared_tests() is None:
    pytest.skip(NOT_FETCHED, allow_module_level=True)

BATCH, TOKENS, REGIONS, FEATURE, CLASSES = 3, 7, 5, 16, 6
TINY: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "region_feature_dim": FEATURE,
    "num_region_classes": CLASSES,
}

for config_class, model_class, pretraining_class in (
    (MmptSingleStreamConfig, MmptSingleStreamModel, MmptSingleStreamForPreTraining),
    (MmptDualStreamConfig, MmptDualStreamModel, MmptDualStreamForPreTraining),
):
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, model_class, exist_ok=True)
    AutoModelForPreTraining.register(config_class, pretraining_class, exist_ok=True)
    AutoImageProcessor.register(config_class, image_processor_classes={"pil": MmptImageProcessor}, exist_ok=True)
    AutoProcessor.register(config_class, MmptProcessor, exist_ok=True)
register_names(
    base=["MmptSingleStreamModel", "MmptDualStreamModel"],
    pretraining=["MmptSingleStreamForPreTraining", "MmptDualStreamForPreTraining"],
)


def single_config() -> MmptSingleStreamConfig:
    return MmptSingleStreamConfig(**TINY, region_type_embedding="shared", region_mask_embedding=True)


def dual_config() -> MmptDualStreamConfig:
    return MmptDualStreamConfig(
        **TINY, region_num_hidden_layers=2, text_co_attention_layers=[1, 2], region_co_attention_layers=[0, 1]
    )


def inputs(config: MmptConfig) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    corner = torch.rand(BATCH, REGIONS, 2, generator=draw) / 2
    return {
        "input_ids": torch.randint(1, config.vocab_size, (BATCH, TOKENS), generator=draw),
        "attention_mask": torch.ones(BATCH, TOKENS, dtype=torch.long),
        "token_type_ids": torch.zeros(BATCH, TOKENS, dtype=torch.long),
        "region_features": torch.rand(BATCH, REGIONS, FEATURE, generator=draw),
        "region_boxes": torch.cat([corner, corner + 0.4], dim=-1),
        "region_attention_mask": torch.ones(BATCH, REGIONS, dtype=torch.long),
        "masked_regions": torch.ones(BATCH, REGIONS, dtype=torch.bool),
    }


def labels(model_class: type, config: MmptConfig) -> dict[str, Tensor]:
    if not issubclass(model_class, MmptForPreTraining):
        return {}
    return {
        "mlm_labels": torch.ones(BATCH, TOKENS, dtype=torch.long),
        "mrc_labels": torch.ones(BATCH, REGIONS, dtype=torch.long),
        "mrc_kl_labels": torch.full((BATCH, REGIONS, CLASSES), 1 / CLASSES),
        "mrfr_labels": torch.ones(BATCH, REGIONS, FEATURE),
        "itm_labels": torch.tensor([1, 0, 1]),
    }


# The joint view of hidden states, the text's and the regions'.
STATES = {"num_hidden_states_types": 3}

TestSingleStream = model_case(
    "TestSingleStream",
    [MmptSingleStreamModel, MmptSingleStreamForPreTraining],
    single_config,
    inputs,
    labels=labels,
    tester={"seq_length": TOKENS + REGIONS, **STATES},
)
TestDualStream = model_case(
    "TestDualStream",
    [MmptDualStreamModel, MmptDualStreamForPreTraining],
    dual_config,
    inputs,
    labels=labels,
    tester=STATES,
)


def tokenizer() -> PreTrainedTokenizerFast:
    return build_word_tokenizer(["lower newer upper older longer string"])


def prepare_images_inputs(_case: unittest.TestCase, batch_size: int | None = None) -> np.ndarray | list[list]:
    """Regions in the place of the suite's pictures; in a batch as lists, of which an empty one has no regions."""
    regions = np.ones((REGIONS, FEATURE), dtype=np.float32)
    return regions if batch_size is None else [regions.tolist()] * batch_size


def check_region_limit(_case: unittest.TestCase, inputs: Mapping[str, Tensor], _modality: str) -> None:
    assert inputs["region_features"].shape[1] == IMAGE_OPTION["max_regions"]


# The suite turns an option of the image processor on in each way there is, and looks whether it worked. Its own option
# scales pixels.
IMAGE_OPTION = {"max_regions": 2}
load().processing.MODALITY_TEST_SPECS["images"]["init_time_kwargs"] = IMAGE_OPTION

TestProcessor = processor_case(
    "TestProcessor",
    MmptProcessor,
    {"tokenizer": tokenizer, "image_processor": MmptImageProcessor},
    flags={
        "images_input_name": "region_features",
        "prepare_images_inputs": prepare_images_inputs,
        "_check_modality_outputs": check_region_limit,
    },
)
