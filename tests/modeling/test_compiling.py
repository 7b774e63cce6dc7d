"""With a layout in the batch no shape depends on what a tensor holds: nothing waits for a device, everything compiles.

Fake tensors have no numbers, so whatever asks for one raises.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mmpt.processing.pretraining.layout import pretraining_layout
from tests.factories.models import tiny_batch as padded_batch
from tests.factories.models import tiny_labels as padded_labels
from tests.factories.models import tiny_pretraining
from tests.factories.task_models import CASES, task_batch, task_labels, task_layout, tiny_task

DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def train_without_numbers(model: Any, batch: dict[str, Tensor]) -> None:
    """Run a training step's passes on fake tensors."""
    with FakeTensorMode() as fake:
        for module in model.modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, fake.from_tensor(weight))
        output = model.train()(**{name: fake.from_tensor(value) for name, value in batch.items()})
        assert output.loss.shape == ()
        output.loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("stream", "attention"), [("single", "sdpa"), ("dual", "eager")])
def test_pretraining_needs_no_number(stream: str, attention: str) -> None:
    model, batch = tiny_pretraining(stream, attention=attention, **DROPOUT), padded_batch() | padded_labels()
    train_without_numbers(model, batch | pretraining_layout(model.config, batch))


@pytest.mark.parametrize(
    ("stream", "task", "more"),
    [
        *((stream, task, {}) for stream, task in CASES),
        ("single", "Grounding", {"grounding_loss": "cross_entropy"}),
        ("single", "QuestionAnswering", {"answer_reads": "second_last_token"}),
        ("single", "QuestionAnswering", {"answer_loss": "kl"}),
        ("single", "SequenceClassification", {"fusion": "late"}),
        ("single", "SequenceClassification", {"fusion": "hybrid"}),
        ("dual", "ImagesAndTextClassification", {"image_pair": "pair_attention"}),
        ("single", "ImagesAndTextClassification", {"image_pair": "triplet"}),
        ("dual", "ImageAndTextRetrieval", {"contrastive_size": 4}),
    ],
)
def test_tasks_need_no_number(stream: str, task: str, more: dict[str, Any]) -> None:
    model, batch = tiny_task(stream, task, **DROPOUT, **more), task_batch(task)
    train_without_numbers(model, batch | task_layout(model.config, batch) | {"labels": task_labels(task)})


def test_fake_tensors_find_a_wait() -> None:
    model, batch = tiny_pretraining("single"), padded_batch() | padded_labels()
    with pytest.raises(Exception, match="nonzero"):
        train_without_numbers(model, batch)


def test_a_training_step_is_one_graph() -> None:
    config = {"num_hidden_layers": 1, "objective_weights": {"mlm": 1.0, "itm": 1.0}}
    model, labels = tiny_pretraining("single", attention="sdpa", **config).train(), padded_labels()
    batch = padded_batch() | {name: labels[name] for name in ("mlm_labels", "itm_labels")}
    batch |= pretraining_layout(model.config, batch)
    losses, gradients = [], []
    for way in (model, torch.compile(model, fullgraph=True, dynamic=False, backend="eager")):
        model.zero_grad()
        loss = way(**batch).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-5)
