"""The last layer is computed where its output is read, and nothing else changes: losses, logits, gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmpt.modeling_mmpt import heads, modeling_base, task_base
from mmpt.modeling_mmpt import unpadding as packing
from tests.factories.models import STREAMS, tiny_backbone, tiny_batch, tiny_labels, tiny_pretraining
from tests.factories.task_models import CASES, task_batch, task_labels, tiny_task

# Of a dual stream: there are layers behind the last co-attention of either stream.
STOPS: dict[str, dict[str, Any]] = {
    "single": {},
    "dual": {"text_co_attention_layers": [0, 1], "region_co_attention_layers": [0, 2]},
}


@pytest.fixture(autouse=True)
def no_more_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches here are so small that rounding up would compute every place of them."""
    monkeypatch.setattr(packing, "MULTIPLE", 1)


def everywhere(config: Any, flags: dict[str, Any]) -> bool:
    return True


def outcome(model: Any, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of the output, and the gradients."""
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    values = {name: value.detach() for name, value in output.items() if isinstance(value, Tensor)}
    return values, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model: Any, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradients = outcome(model, batch)
    for module in (heads, task_base):
        monkeypatch.setattr(module, "returns_states", everywhere)
    expected, expected_gradients = outcome(model, batch)
    assert values.keys() == expected.keys()
    assert gradients.keys() == expected_gradients.keys()
    for name, value in expected.items():
        # Sums of other lengths are added up in another order: some roundings of a number near 1.
        torch.testing.assert_close(values[name], value, rtol=1e-5, atol=4e-6, msg=name)
    largest = max(gradient.abs().max() for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        assert (gradients[name] - gradient).abs().max() <= 2e-6 * largest, name


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("stream", STREAMS)
def test_pretraining_loses_nothing(stream: str, attention: str, ragged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_pretraining(stream, attention=attention, **STOPS[stream])
    assert_same(model, tiny_batch(ragged=ragged) | tiny_labels(), monkeypatch)


@pytest.mark.parametrize("objective", ["mlm", "mrc", "itm"])
@pytest.mark.parametrize("stream", STREAMS)
def test_each_objective_alone_loses_nothing(stream: str, objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_pretraining(stream, objective_weights={objective: 1.0}, **STOPS[stream])
    labels = {f"{objective}_labels": tiny_labels()[f"{objective}_labels"]}
    assert_same(model, tiny_batch() | labels, monkeypatch)


@pytest.mark.parametrize(("stream", "task"), CASES)
def test_tasks_lose_nothing(stream: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same(tiny_task(stream, task, **STOPS[stream]), task_batch(task) | {"labels": task_labels(task)}, monkeypatch)


@pytest.mark.parametrize("fusion", ["late", "hybrid"])
@pytest.mark.parametrize("stream", STREAMS)
def test_other_fusions_lose_nothing(stream: str, fusion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_task(stream, "SequenceClassification", fusion=fusion, **STOPS[stream])
    labels = {"labels": task_labels("SequenceClassification")}
    assert_same(model, task_batch("SequenceClassification") | labels, monkeypatch)


@pytest.mark.parametrize("stream", STREAMS)
def test_only_the_places_that_are_read_are_computed(stream: str) -> None:
    model, batch = tiny_backbone(stream, **STOPS[stream]), tiny_batch()
    whole = model(**batch)
    places = {
        "read_tokens": torch.tensor([[1, 0, 1, 0, 0]] * 3).bool(),
        "read_regions": torch.tensor([[1, 0, 0, 0]] * 3).bool(),
    }
    part = model(**batch, **places)
    for name, kept in (("text", [0, 2]), ("region", [0])):
        found, expected = part[f"{name}_last_hidden_state"], whole[f"{name}_last_hidden_state"]
        others = [place for place in range(found.shape[1]) if place not in kept]
        torch.testing.assert_close(found[:, kept], expected[:, kept])
        assert not found[:, others].any()


def test_states_are_whole_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a part of the places was read")

    monkeypatch.setattr(modeling_base, "Packing", refuse)
    model = tiny_pretraining("single")
    states = model(**tiny_batch(), **tiny_labels(), output_hidden_states=True).hidden_states
    torch.testing.assert_close(states[-1], model.backbone(**tiny_batch()).last_hidden_state)
    model.config.output_attentions = True
    assert model(**tiny_batch(), **tiny_labels()).attentions[-1].shape[2] == 9
