"""The models of the downstream tasks under transformers' own shared tests: both streams, and every fusion.

`make suite` runs them: five minutes of a core, which is as much as all other tests together may take.
"""

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.modeling_mmpt.task_models import MODELS
from tests.transformers_suite.fetch import shared_tests
from tests.transformers_suite.hf_suite import NOT_FETCHED, model_case
from tests.transformers_suite.tiny_cases import BATCH, REGIONS, STATES, TOKENS, dual_config, inputs, single_config

if not os.environ.get("MMPT_TASK_SUITE"):
    pytest.skip("run `make suite`, which sets MMPT_TASK_SUITE", allow_module_level=True)
if shared_tests() is None:
    pytest.skip(NOT_FETCHED, allow_module_level=True)

CHOICES, ANSWERS, PHRASES = 2, 2, 3
LABELS: dict[str, Callable[[], Tensor]] = {
    "QuestionAnswering": lambda: torch.full((BATCH, ANSWERS), 0.5),
    "SequenceClassification": lambda: torch.zeros(BATCH, dtype=torch.long),
    "ImagesAndTextClassification": lambda: torch.ones(BATCH, dtype=torch.long),
    "MultipleChoice": lambda: torch.zeros(BATCH, dtype=torch.long),
    "ImageAndTextRetrieval": lambda: torch.arange(BATCH),
    "Grounding": lambda: torch.full((BATCH, REGIONS), 0.5),
    "RegionToPhraseAlignment": lambda: torch.full((BATCH, PHRASES, REGIONS), 1 / REGIONS),
}
BOTH = ("ImageAndTextRetrieval", "Grounding", "RegionToPhraseAlignment")
"""Tasks that a text alone says nothing of."""

FUSED = ("QuestionAnswering", "SequenceClassification")


def task_inputs(task: str) -> Callable[[MmptConfig], dict[str, Tensor]]:
    """Return what makes the inputs of a task."""

    def make(config: MmptConfig) -> dict[str, Tensor]:
        batch = inputs(config)
        if task == "ImagesAndTextClassification":
            return {k: torch.stack([v, v.flip(0)], 1) if "region" in k else v for k, v in batch.items()}
        if task == "MultipleChoice":
            return {k: v if "region" in k else torch.stack([v] * CHOICES, 1) for k, v in batch.items()}
        if task == "RegionToPhraseAlignment":
            batch["phrase_positions"] = torch.arange(1, 1 + PHRASES).expand(BATCH, -1)
        return batch

    return make


def with_contrastive_head(reverses: Callable[..., None]) -> Callable[[Any], None]:
    """Return the test of reversed conversions for a model that has the weight which is converted."""

    def test(case: Any) -> None:
        prepare = case.model_tester.prepare_config_and_inputs_for_common

        def prepare_with_head() -> tuple[Any, Any]:
            config, inputs = prepare()
            config.contrastive_size = 8
            return config, inputs

        with patch.object(case.model_tester, "prepare_config_and_inputs_for_common", prepare_with_head):
            reverses(case, check_keys_were_modified=False)  # the weight is reshaped, its key stays

    return test


def case_of(stream: str, task: str, fusion: str) -> Any:
    """Return the shared tests for a class."""
    make = single_config if stream == "Single" else dual_config

    def config() -> MmptConfig:
        made = make()
        made.fusion, made.num_labels = fusion, ANSWERS
        made.pooled_fusion = "mul"  # or else the last region layer of the dual stream has no say in a decision
        return made

    case = model_case(
        f"Test{stream}{task}{fusion.capitalize()}",
        [MODELS[f"Mmpt{stream}StreamFor{task}"]],
        config,
        task_inputs(task),
        labels=lambda _class, _config: {"labels": LABELS[task]()},
        tester={"seq_length": TOKENS + REGIONS if stream == "Single" else TOKENS, **STATES},
    )
    # The suite compares attention backends on a text alone; tests/modeling/test_task_models.py does it with both.
    left_out = ["test_eager_matches_sdpa_inference"] if task in BOTH else []
    if (stream, task) == ("Dual", "Grounding"):
        # Regions are scored, so nothing reads what the last co-attention gives the text, and it has no gradient.
        left_out.append("test_training_gradient_checkpointing")
    if (stream, fusion) == ("Single", "late"):
        # The joint view is put together behind two encodings, and what was put together gets no gradient.
        left_out.append("test_retain_grad_hidden_states_attentions")
    if task == "ImageAndTextRetrieval":
        case.test_reverse_loading_mapping = with_contrastive_head(case.test_reverse_loading_mapping)
    for name in dir(case):
        if name.startswith(tuple(left_out)):
            setattr(case, name, None)
    return case


for stream in ("Single", "Dual"):
    for task in LABELS:
        for fusion in ("early", "late", "hybrid") if task in FUSED else ("early",):
            case = case_of(stream, task, fusion)
            globals()[case.__name__] = case
del case
