"""`torch.jit.trace` and `torch.export` of a model give its numbers at other batch sizes and lengths too."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.factories.models import STREAMS, tiny_batch, tiny_pretraining
from tests.factories.task_models import CASES, task_batch, tiny_task

KINDS: dict[str, dict[str, Any]] = {
    "early": {},
    "late": {"fusion": "late", "late_fusion": "max"},
    "hybrid": {"fusion": "hybrid", "late_fusion": "learned"},
    "second last token": {"answer_reads": "second_last_token"},
    "pair attention": {"image_pair": "pair_attention"},
    "triplet": {"image_pair": "triplet"},
}
OF_TASK = {"QuestionAnswering": ("early", "late", "hybrid", "second last token")}
OF_TASK["ImagesAndTextClassification"] = ("early", "pair attention", "triplet")
TRACED = [(stream, task, kind) for stream, task in CASES for kind in OF_TASK.get(task, ("early",))]


def shorter(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return two rows of a batch with one place less of each modality."""
    axes = {"input_ids": -1, "attention_mask": -1, "token_type_ids": -1}
    axes |= {"region_features": -2, "region_boxes": -2, "region_attention_mask": -1}
    return {
        name: value[1:].narrow(axes[name], 0, value.shape[axes[name]] - 1).contiguous() if name in axes else value[1:]
        for name, value in batch.items()
    }


def traced(model: nn.Module, batch: dict[str, Tensor]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, example_kwarg_inputs=batch, strict=False, check_trace=False)


@pytest.mark.parametrize(("stream", "task", "kind"), TRACED)
def test_a_traced_task_model_gives_the_models_logits_for_other_shapes(stream: str, task: str, kind: str):
    model = tiny_task(stream, task, **KINDS[kind])
    batch = task_batch(task)
    program = traced(model, batch)
    for given in (batch, task_batch(task, seed=5), shorter(batch)):
        with torch.no_grad():
            torch.testing.assert_close(program(**given)["logits"], model(**given).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_traced_model_for_pretraining_gives_its_logits_for_other_shapes(stream: str):
    model = tiny_pretraining(stream, region_mask_embedding=True, tie_region_feature_decoder=True)
    program = traced(model, tiny_batch())
    for given in (tiny_batch(), tiny_batch(seed=5), shorter(tiny_batch())):
        with torch.no_grad():
            found, expected = program(**given), model(**given)
        for name in ("mlm_logits", "mrc_logits", "mrfr_prediction", "itm_logits"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stream", STREAMS)
def test_an_exported_task_model_takes_other_shapes(stream: str):
    model = tiny_task(stream, "SequenceClassification")
    batch = tiny_batch()
    free = {"input_ids": 1, "attention_mask": 1, "token_type_ids": 1, "region_features": 1, "region_boxes": 1}
    free["region_attention_mask"] = 1
    auto = torch.export.Dim.AUTO
    shapes = {name: {0: auto, axis: auto} for name, axis in free.items()}
    program = torch.export.export(model, (), batch, dynamic_shapes=shapes)
    for given in (batch, shorter(batch)):
        torch.testing.assert_close(program.module()(**given).logits, model(**given).logits, rtol=1e-5, atol=1e-5)
