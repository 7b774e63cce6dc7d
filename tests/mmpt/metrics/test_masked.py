"""Masked tokens and regions: against torch's losses over all elements at once, whatever the batches."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, mean_squared_error
from torch import Tensor
from torch.nn import functional as F

from mmpt.metrics.metric_table import load_metric

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(9, 5, 7, generator=GENERATOR)
LABELS = torch.where(
    torch.rand(9, 5, generator=GENERATOR) < 0.4, torch.randint(0, 7, (9, 5), generator=GENERATOR), torch.tensor(-100)
)
MASKED = torch.rand(9, 5, 1, generator=GENERATOR) < 0.5
PROBS = torch.randn(9, 5, 7, generator=GENERATOR).softmax(-1)
FEATURES = torch.randn(9, 5, 7, generator=GENERATOR)


def only_masked(targets: Tensor) -> Tensor:
    return torch.where(MASKED, targets, torch.tensor(-100.0))


def measure(name: str, references: Tensor, selected: bool = False) -> dict[str, float]:
    """Add all in batches of 4, 4 and 1; with `selected` predictions of elements with a label alone."""
    metric = load_metric(name)
    for predictions, labels in zip(LOGITS.split(4), references.split(4), strict=True):
        labelled = labels != -100 if labels.dim() == 2 else (labels != -100).any(-1)
        metric.add_batch(predictions=predictions[labelled] if selected else predictions, references=labels)
    return metric.compute()


@pytest.mark.parametrize("selected", [False, True])
def test_masked_tokens(selected: bool) -> None:
    measures = measure("mlm", LABELS, selected)
    masked = LABELS != -100
    right = accuracy_score(LABELS[masked], LOGITS[masked].argmax(-1), normalize=False)
    assert (measures["mlm_accuracy_correct"], measures["mlm_accuracy_total"]) == (right, int(masked.sum()))
    loss = F.cross_entropy(LOGITS.flatten(0, 1), LABELS.flatten(), ignore_index=-100)
    assert measures["mlm_perplexity"] == pytest.approx(math.exp(loss), rel=1e-6)
    assert measures["mlm_perplexity_low"] < measures["mlm_perplexity"] < measures["mlm_perplexity_high"]


@pytest.mark.parametrize("selected", [False, True])
def test_masked_regions(selected: bool) -> None:
    masked = MASKED.squeeze(-1)
    classes = measure("mrc", torch.where(masked, PROBS.argmax(-1), torch.tensor(-100)), selected)
    assert classes["mrc_accuracy"] == pytest.approx(accuracy_score(PROBS[masked].argmax(-1), LOGITS[masked].argmax(-1)))
    divergence = measure("mrc_kl", only_masked(PROBS), selected)
    expected = F.kl_div(LOGITS[masked].log_softmax(-1), PROBS[masked], reduction="batchmean")
    assert divergence["mrc_kl"] == pytest.approx(float(expected), rel=1e-5)
    error = measure("mrfr", only_masked(FEATURES), selected)
    assert error["mrfr_error"] == pytest.approx(mean_squared_error(FEATURES[masked], LOGITS[masked]), rel=1e-5)
    assert error["mrfr_error_total"] == divergence["mrc_kl_total"] == classes["mrc_accuracy_total"] == masked.sum()


def test_perplexity_of_a_model_that_knows_nothing_is_the_number_of_words() -> None:
    measures = load_metric("mlm").compute(predictions=torch.zeros(3, 2, 50), references=torch.full((3, 2), 7))
    assert measures["mlm_perplexity"] == pytest.approx(50, rel=1e-6)
    assert measures["mlm_perplexity_low"] == pytest.approx(measures["mlm_perplexity_high"])


def test_examples_that_come_again_are_not_counted_again() -> None:
    once = load_metric("mlm").compute(predictions=LOGITS, references=LABELS, ids=range(9))
    metric = load_metric("mlm")
    for rows in ([0, 1, 2, 3, 4, 5], [6, 7, 8, 0, 1, 2]):
        metric.add_batch(predictions=LOGITS[rows], references=LABELS[rows], ids=rows)
    assert metric.compute() == once


def test_half_precision_noise_of_a_repeated_example_is_tolerated() -> None:
    metric = load_metric("mrfr")
    features = only_masked(FEATURES)
    metric.add_batch(predictions=LOGITS, references=features, ids=range(9))
    metric.add_batch(predictions=LOGITS.bfloat16(), references=features, ids=range(9))
    assert metric.compute() == load_metric("mrfr").compute(predictions=LOGITS, references=features)
    metric.add_batch(predictions=LOGITS, references=features, ids=range(9))
    metric.add_batch(predictions=LOGITS[[1]], references=features[[1]], ids=[0])
    with pytest.raises(ValueError, match="masked_region_features: ids '0' came twice with different predictions"):
        metric.compute()


def test_what_is_not_masked_may_be_anything() -> None:
    logits = torch.where((LABELS != -100)[..., None], LOGITS, torch.tensor(np.nan))
    assert measure("mlm", LABELS) == load_metric("mlm").compute(predictions=logits, references=LABELS)


@pytest.mark.parametrize(
    ("name", "predictions", "references", "message"),
    [
        (
            "mlm",
            torch.full((1, 2, 3), torch.nan),
            torch.zeros(1, 2).long(),
            "row 0 of the batch has a value that is NaN",
        ),
        ("mlm", torch.zeros(1, 2, 3), torch.tensor([[3, -100]]), "from 3 to 3, expected 0 to 2, as predictions have 3"),
        ("mlm", torch.zeros(3, 3), torch.tensor([[1, -100]]), r"expected \(1, 2, 'width'\) or \(1, 'width'\)"),
        ("mrfr", torch.zeros(1, 2, 3), torch.zeros(1, 2, 4), "have 3 numbers per element and references 4"),
        ("mrc_kl", torch.zeros(1, 1, 2), torch.tensor([[[0.5, 0.1]]]), "a row that sums to 0.600, expected"),
        ("mrc_kl", torch.zeros(1, 1, 2), torch.tensor([[[torch.nan, 1.0]]]), "references: row 0 of the batch has a"),
    ],
)
def test_bad_inputs_are_errors(name: str, predictions: Tensor, references: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_metric(name).add_batch(predictions=predictions, references=references)


def test_no_masked_element_is_an_error() -> None:
    with pytest.raises(ValueError, match="masked_tokens has no masked element in 2 examples; is its objective off"):
        load_metric("mlm").compute(predictions=torch.zeros(2, 3, 4), references=torch.full((2, 3), -100))
