"""The last layer is computed where its output is read, and nothing else changes: losses, logits, gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmpt.modeling_mmpt import modeling_single_stream, unpadding
from mmpt.processing.pretraining.layout import pretraining_layout
from tests.factories.models import STREAMS, tiny_backbone, tiny_batch, tiny_labels, tiny_pretraining
from tests.factories.task_models import CASES, task_batch, task_labels, task_layout, tiny_task

# Of a dual stream: there are layers behind the last co-attention of either stream.
STOPS: dict[str, dict[str, Any]] = {
    "single": {},
    "dual": {"text_co_attention_layers": [0, 1], "region_co_attention_layers": [0, 2]},
}


@pytest.fixture(autouse=True)
def no_more_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches here are so small that rounding up would compute every place of them."""
    monkeypatch.setattr(unpadding, "MULTIPLE", 1)


def outcome(model: Any, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of the output, and the gradients."""
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    values = {name: value.detach() for name, value in output.items() if isinstance(value, Tensor)}
    return values, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model: Any, batch: dict[str, Tensor], *ways: dict[str, Any]) -> None:
    """Compare ways to give a batch, the first of which computes everything; in double precision up to the losses."""
    model.double()
    batch = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in batch.items()}
    expected, expected_gradients = outcome(model, batch | ways[0])
    for way in ways[1:]:
        values, gradients = outcome(model, batch | way)
        assert values.keys() == expected.keys() - {name for name in expected if "hidden_state" in name}
        assert gradients.keys() == expected_gradients.keys()
        for name, value in values.items():
            # Sums of other lengths are added up in another order: some roundings of a number near 1.
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=4e-6, msg=name)
        largest = max(gradient.abs().max() for gradient in expected_gradients.values())
        for name, gradient in expected_gradients.items():
            assert (gradients[name] - gradient).abs().max() <= 2e-6 * largest, name


WHOLE = {"output_hidden_states": True}


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("stream", STREAMS)
def test_pretraining_loses_nothing(stream: str, attention: str, ragged: bool) -> None:
    model = tiny_pretraining(stream, attention=attention, **STOPS[stream])
    batch = tiny_batch(ragged=ragged) | tiny_labels()
    assert_same(model, batch | {"align_logits": True}, {}, pretraining_layout(model.config, batch))


@pytest.mark.parametrize("objective", ["mlm", "mrc", "itm"])
@pytest.mark.parametrize("stream", STREAMS)
def test_each_objective_alone_loses_nothing(stream: str, objective: str) -> None:
    model = tiny_pretraining(stream, objective_weights={objective: 1.0}, **STOPS[stream])
    batch = tiny_batch() | {f"{objective}_labels": tiny_labels()[f"{objective}_labels"]}
    assert_same(model, batch | {"align_logits": True}, {}, pretraining_layout(model.config, batch))


@pytest.mark.parametrize(("stream", "task"), CASES)
def test_tasks_lose_nothing(stream: str, task: str) -> None:
    model, batch = tiny_task(stream, task, **STOPS[stream]), task_batch(task)
    assert_same(model, batch | {"labels": task_labels(task)}, WHOLE, {}, task_layout(model.config, batch))


@pytest.mark.parametrize("fusion", ["late", "hybrid"])
@pytest.mark.parametrize("stream", STREAMS)
def test_other_fusions_lose_nothing(stream: str, fusion: str) -> None:
    model = tiny_task(stream, "SequenceClassification", fusion=fusion, **STOPS[stream])
    batch = task_batch("SequenceClassification")
    labels = {"labels": task_labels("SequenceClassification")}
    assert_same(model, batch | labels, WHOLE, {}, task_layout(model.config, batch))


@pytest.mark.parametrize("image_pair", ["pair_attention", "triplet"])
@pytest.mark.parametrize("stream", STREAMS)
def test_other_ways_to_read_two_images_lose_nothing(stream: str, image_pair: str) -> None:
    task = "ImagesAndTextClassification"
    model, batch = tiny_task(stream, task, image_pair=image_pair, **STOPS[stream]), task_batch(task)
    assert_same(model, batch | {"labels": task_labels(task)}, WHOLE, {}, task_layout(model.config, batch))


@pytest.mark.parametrize("stream", STREAMS)
def test_only_the_places_that_are_read_are_computed(stream: str) -> None:
    model, batch = tiny_backbone(stream, **STOPS[stream]), tiny_batch()
    whole, labels = model(**batch), tiny_labels()
    pooled, labelled = {"text": [(0, 0), (1, 0), (2, 0)]}, {"text": [(0, 1), (1, 2)]}
    pooled["region"], labelled["region"] = pooled["text"], [(0, 3), (1, 1)]
    for reads, given in (("pooled", {}), ("labelled", pretraining_layout(model.config, batch | labels))):
        part = model(**batch, **given, reads=reads)
        for name in ("text", "region"):
            found, expected = part[f"{name}_last_hidden_state"], whole[f"{name}_last_hidden_state"]
            read = torch.zeros(found.shape[:2], dtype=torch.bool)
            for place in pooled[name] + (labelled[name] if given else []):
                read[place] = True
            torch.testing.assert_close(found[read], expected[read], rtol=1e-5, atol=1e-5)
            assert not found[~read].any()


def test_states_are_whole_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, given: dict[str, Tensor], *arguments: Any) -> None:
        assert not given, "a part of the places was computed"

    monkeypatch.setattr(modeling_single_stream, "layout_of", refuse)
    model, batch = tiny_pretraining("single"), tiny_batch() | tiny_labels()
    batch |= pretraining_layout(model.config, batch)
    states = model(**batch, output_hidden_states=True).hidden_states
    torch.testing.assert_close(states[-1], model.backbone(**tiny_batch()).last_hidden_state)
    model.config.output_attentions = True
    assert model(**batch).attentions[-1].shape[2] == 9
