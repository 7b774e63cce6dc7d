"""Bottom-up attention's detector under transformers' own shared tests; `make suite` runs them."""

import os
import unittest

import pytest
import torch
from torch import Tensor

from mmpt import BottomUpConfig, BottomUpDetector, register_auto_classes
from tests.transformers_suite.fetch import shared_tests
from tests.transformers_suite.hf_suite import NOT_FETCHED, model_case, register_names

if not os.environ.get("MMPT_TASK_SUITE"):
    pytest.skip("run `make suite`, which sets MMPT_TASK_SUITE", allow_module_level=True)
if shared_tests() is None:
    pytest.skip(NOT_FETCHED, allow_module_level=True)

register_auto_classes()
register_names(base=["BottomUpDetector"], pretraining=[])


def config() -> BottomUpConfig:
    return BottomUpConfig(
        stem_width=8, stage_widths=[8, 16, 32, 32], inner_widths=[8, 8, 8, 8], stage_depths=[1, 1, 1, 1], rpn_width=8,
        num_classes=4, num_attributes=3, class_embedding_size=4, attribute_hidden_size=8, num_proposals=8,
        min_regions=4, max_regions=8,
    )  # fmt: skip


def inputs(_: BottomUpConfig) -> dict[str, Tensor]:
    return {"pixel_values": torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 200 - 100}


TestBottomUp = model_case(
    "TestBottomUp", [BottomUpDetector], config, inputs, labels=lambda *_: {}, tester={"is_training": False}
)

NO_TRANSFORMER = "a convolutional detector has no tokens, no attention and no layers of one width"
for name in (
    "test_attention_outputs",
    "test_config",  # wants a hidden_size
    "test_hidden_states_output",
    "test_model_get_set_embeddings",
    "test_model_outputs_equivalence",  # asks for hidden states
    "test_resize_tokens_embeddings",
    "test_retain_grad_hidden_states_attentions",
):
    setattr(TestBottomUp, name, unittest.skip(NO_TRANSFORMER)(lambda self: None))
