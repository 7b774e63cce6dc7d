"""A loss or a gradient norm that is not finite: found in every step, named, and never saved."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from mmpt.configuration.errors import MmptFloatingPointError
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.training.finite_watch import FiniteWatch
from tests.factories.training import tiny_dataset, tiny_model, tiny_trainer


def poisoned(row: int) -> PairDataset:
    """The tiny pairs, one of which has features whose squares are above what float32 holds."""
    dataset = tiny_dataset()
    dataset.regions[f"image-{row}"].features[0] *= 1e30  # type: ignore[index]
    return dataset


def error_of(trainer: Any) -> str:
    with pytest.raises(MmptFloatingPointError) as caught:
        trainer.train()
    return str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"logging_steps": 1},
        {"logging_steps": 1000},
        {"logging_strategy": "no"},
        {"logging_steps": 1000, "gradient_accumulation_steps": 2},
        {"logging_steps": 3, "bf16": True},
        {"logging_steps": 1000, "save_strategy": "steps", "save_steps": 3},
        {"logging_steps": 1000, "dataloader_num_workers": 1},
        {"logging_steps": 1000, "train_sampling_strategy": "group_by_length"},
        {"logging_steps": 1000, "train_sampling_strategy": "sequential"},
    ],
)
def test_the_example_with_a_bad_feature_is_named_with_its_step(tmp_path: Path, arguments: dict[str, Any]) -> None:
    trainer = tiny_trainer(tmp_path, tiny_model(), train=poisoned(5), **({"max_steps": 8} | arguments))
    seen: list[bool] = []
    step = trainer.training_step

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        loss = step(*args, **kwargs)
        seen.append(bool(loss.isfinite()))
        return loss

    trainer.training_step = watched
    message = error_of(trainer)
    first = seen.index(False) // arguments.get("gradient_accumulation_steps", 1) + 1
    assert f" at step {first} " in message
    assert "'image-5' (row 5)" in message
    assert "the first layer with NaN is " in message
    assert "image-1" not in message  # of its batch the one example is named
    assert "objectives that are not finite: " in message
    assert "told apart" not in message
    for folder in tmp_path.glob("checkpoint-*"):
        assert int(folder.name.partition("-")[2]) < first


class _Break(TrainerCallback):
    """Make a module's output NaN from a step on, without touching a weight."""

    def __init__(self, module: torch.nn.Module, step: int) -> None:
        self.module, self.step = module, step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            self.module.register_forward_hook(lambda module, given, output: output * math.nan)


def layer_of(model: MmptForPreTraining) -> tuple[str, torch.nn.Module]:
    """Return the first LayerNorm of the encoder."""
    return next((n, m) for n, m in model.named_modules() if "layers.1" in n and isinstance(m, torch.nn.LayerNorm))


@pytest.mark.parametrize("stream", ["single", "dual"])
def test_the_layer_that_breaks_is_named_where_steps_lie_between(tmp_path: Path, stream: str) -> None:
    model = tiny_model(stream, num_hidden_layers=2)
    name, module = next(
        (n, m) for n, m in model.named_modules() if "layers.1" in n and isinstance(m, torch.nn.LayerNorm)
    )
    trainer = tiny_trainer(tmp_path, model, max_steps=6, logging_steps=1000)
    trainer.add_callback(_Break(module, 3))
    message = error_of(trainer)
    assert "the loss is nan at step 3 " in message
    assert f"the first layer with NaN is {name}, with the examples 'image-" in message
    # A fused optimiser leaves the weights as they were before the step.
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())


def test_gradients_that_are_not_finite_stop_the_run_though_every_loss_is(tmp_path: Path) -> None:
    model = tiny_model()
    trainer = tiny_trainer(tmp_path, model, max_steps=6, logging_steps=1000)
    calls = [0]

    def broken(gradient: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return gradient * math.inf if calls[0] >= 2 else gradient

    name, weight = next(
        (n, w) for n, w in model.named_parameters() if n.endswith("layers.0.output.weight") or "layers.0" in n
    )
    weight.register_hook(broken)
    message = error_of(trainer)
    assert "the gradient norm is" in message
    assert "at step 2 " in message
    assert f"the gradients break at {name}" in message


def overflowing(folder: Path, model: MmptForPreTraining, steps: set[int], scale: float, **arguments: Any) -> Any:
    """A trainer with the loss scaler of fp16, whose gradients overflow in some steps."""
    trainer = tiny_trainer(folder, model, logging_steps=1000, **arguments)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    calls = [0]

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return gradient * math.inf if calls[0] in steps else gradient

    next(iter(model.heads.parameters())).register_hook(overflow)
    return trainer


def test_a_step_that_the_loss_scaler_skips_is_no_failure(tmp_path: Path) -> None:
    model = tiny_model()
    trainer = overflowing(tmp_path, model, {2}, 2.0**16, max_steps=4)
    assert trainer.train().global_step == 4
    assert trainer.accelerator.scaler.get_scale() == 2.0**15
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())


def test_a_loss_scaler_that_skips_every_step_stops_the_run(tmp_path: Path) -> None:
    trainer = overflowing(tmp_path, tiny_model(), set(range(100)), 2.0**-10, max_steps=8)
    assert "the gradient is inf at step 8" in error_of(trainer)


def test_weights_that_are_not_finite_are_named_and_never_saved(tmp_path: Path) -> None:
    model = tiny_model()

    class Poison(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                model.heads["matching"].weight.data.fill_(math.inf)

    trainer = tiny_trainer(tmp_path, model, logging_steps=1000, save_strategy="steps", save_steps=2)
    trainer.add_callback(Poison())
    message = error_of(trainer)
    assert "weight heads.matching.weight" in message
    assert not list(tmp_path.glob("checkpoint-*"))


def test_the_watch_notes_the_first_and_forgets_no_later_one() -> None:
    watch = FiniteWatch(torch.device("cpu"))
    watch.see_loss(torch.tensor(1.0), 1)
    assert watch.look() == []
    assert float(watch.found) == 0
    watch.see_norm(torch.tensor(math.inf), 2)
    watch.see_loss(torch.tensor(-math.inf), 3)
    watch.see_norm(torch.tensor(2.0), 4)
    assert watch.look() == [(2, "gradient norm", math.inf)]
    assert float(watch.found) == 1
