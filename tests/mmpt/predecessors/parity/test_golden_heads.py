"""The fine-tuned heads of 12-in-1 give what ViLBERT's original code gave, each as the model of its task."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpt import (
    MmptDualStreamForGrounding,
    MmptDualStreamForImageAndTextRetrieval,
    MmptDualStreamForImagesAndTextClassification,
    MmptDualStreamForMultipleChoice,
    MmptDualStreamForQuestionAnswering,
    MmptDualStreamForSequenceClassification,
)
from mmpt.modeling_mmpt.task_base import MmptTaskModel
from tests.mmpt.predecessors.parity.golden_case import GoldenCase

FOLDER = Path(os.environ.get("MMPT_TEST_DATA", "")) / "parity" / "vilbert_12in1"
TOLERANCE = {"eager": 1e-5, "sdpa": 1e-4}
Batch = dict[str, Tensor]


def pooled(model: MmptTaskModel, batch: Batch) -> Tensor:
    return model(**batch).logits


def pairs(model: MmptTaskModel, batch: Batch) -> Tensor:
    """Rows 2i and 2i + 1 are a pair, in the vectors with a text each; the model itself has one text a pair."""
    logits, _ = model.decisions(batch)
    return logits["joint"]


def choices(model: MmptTaskModel, batch: Batch) -> Tensor:
    """The rows as four examples of one choice."""
    return model(**{name: value if "region" in name else value[:, None] for name, value in batch.items()}).logits


def regions(model: MmptTaskModel, batch: Batch) -> Tensor:
    logits = model(**batch).logits
    return (logits * batch["region_attention_mask"])[..., None]


def scores(model: MmptTaskModel, batch: Batch) -> Tensor:
    return model(**batch).logits[:, None]


HEADS = [
    ("vil_prediction", "task.vqa", MmptDualStreamForQuestionAnswering, pooled),
    ("vil_prediction_gqa", "task.gqa", MmptDualStreamForQuestionAnswering, pooled),
    ("nlvr2", "task.binary", MmptDualStreamForImagesAndTextClassification, pairs),
    ("entailment", "task.tri", MmptDualStreamForSequenceClassification, pooled),
    ("retrieval", "task.logit", MmptDualStreamForImageAndTextRetrieval, scores),
    ("multiple_choice", "task.logit", MmptDualStreamForMultipleChoice, choices),
    ("grounding", "task.region_logit", MmptDualStreamForGrounding, regions),
]


@pytest.mark.parametrize("attention", TOLERANCE)
@pytest.mark.parametrize(("task", "name", "model_class", "read"), HEADS, ids=[head[0] for head in HEADS])
def test_every_head_of_12_in_1_agrees(task, name, model_class, read, attention: str, tmp_path: Path):
    if not FOLDER.is_dir():
        pytest.skip("MMPT_TEST_DATA has no folder parity/vilbert_12in1")
    case = GoldenCase(FOLDER)
    model = case.convert(tmp_path, "weights.safetensors", attention, task=task)
    assert type(model) is model_class
    batch, expected = case.batch(""), case.expected()[""]
    with torch.no_grad():
        found = read(model, batch)
        states = model.backbone(**batch)
    assert found.shape == expected[name].shape
    assert (found - expected[name]).abs().max().item() <= TOLERANCE[attention]
    if model.reads_pooled:
        assert (states.pooler_output - expected["pooled_fused"]).abs().max().item() <= TOLERANCE[attention]
    # The task embedding moves the answer: without it the numbers are others.
    without = {key: value for key, value in batch.items() if key != "task_ids"}
    with torch.no_grad():
        assert (read(model, without) - expected[name]).abs().max().item() > 1e-3


def test_12_in_1_is_for_pre_training_until_a_task_is_named(tmp_path: Path):
    if not FOLDER.is_dir():
        pytest.skip("MMPT_TEST_DATA has no folder parity/vilbert_12in1")
    model = GoldenCase(FOLDER).convert(tmp_path, "weights.safetensors", "eager")
    report = model.conversion_report
    (sentence,) = [said for said in report.assumptions if said.startswith("task = pretraining")]
    assert all(
        name in sentence for name in ("vil_prediction (vqa)", "vil_prediction_gqa (vqa)", "vil_logit (retrieval)")
    )
    reasons = {key.theirs: key.note for key in report.of("dropped")}
    assert reasons["vil_tri_prediction.weight"].endswith("use it with --task vil_tri_prediction")
    assert "it was never trained" in reasons["linguisic_logit.weight"]
