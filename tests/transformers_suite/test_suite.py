"""Our classes under transformers' own shared tests: both backbones and both pre-training models."""

import unittest
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mmpt import register_auto_classes
from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining, MmptDualStreamModel
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining, MmptSingleStreamModel
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.word_tokenizer import build_word_tokenizer
from tests.transformers_suite.fetch import shared_tests
from tests.transformers_suite.hf_suite import NOT_FETCHED, load, model_case, processor_case, register_names
from tests.transformers_suite.tiny_cases import (
    BATCH,
    CLASSES,
    FEATURE,
    REGIONS,
    STATES,
    TOKENS,
    dual_config,
    inputs,
    single_config,
)

if shared_tests() is None:
    pytest.skip(NOT_FETCHED, allow_module_level=True)

register_auto_classes()
register_names(
    base=["MmptSingleStreamModel", "MmptDualStreamModel"],
    pretraining=["MmptSingleStreamForPreTraining", "MmptDualStreamForPreTraining"],
)


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
