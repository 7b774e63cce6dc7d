"""A watch over losses and gradient norms: on the device in every step, looked at when a run logs, saves or ends."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

NEVER = 2**62


class FiniteWatch:
    """Note the first step whose loss or gradient norm is not finite, without waiting for the device.

    Args:
        device: of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        self._steps = torch.full((2,), NEVER, dtype=torch.long, device=device)
        self._values = torch.zeros(2, device=device)

    def see_loss(self, loss: Tensor, step: int) -> None:
        """Note the loss of a micro-batch."""
        self._see(0, loss, step)

    def see_norm(self, norm: Any, step: int) -> None:
        """Note the norm of a step's gradients."""
        if not isinstance(norm, Tensor):
            norm = torch.tensor(float(norm), device=self._steps.device)
        self._see(1, norm.detach().to(self._steps.device), step)

    @property
    def found(self) -> Tensor:
        """Whether something was not finite so far: 1 or 0 on the device, in the form that fused optimisers read."""
        return (self._steps.min() < NEVER).float()

    def look(self) -> list[tuple[int, str, float]]:
        """Return (step, what, value) of what was not finite first, the loss before the norm; this waits."""
        found: list[tuple[int, str, float]] = [
            (step, what, value)
            for step, what, value in zip(
                self._steps.tolist(), ("loss", "gradient norm"), self._values.tolist(), strict=True
            )
            if step < NEVER
        ]
        return sorted(found, key=lambda each: each[0])[:1]

    def _see(self, place: int, value: Tensor, step: int) -> None:
        first = ~value.isfinite() & (self._steps[place] == NEVER)
        self._values[place] = torch.where(first, value.float(), self._values[place])
        self._steps[place] = torch.where(first, step, self._steps[place])


def first_broken_module(model: nn.Module, inputs: Mapping[str, Any], rows: int) -> tuple[str | None, list[int], Any]:
    """Run a forward pass and return the first module whose output is NaN, the rows that are, and the pass's output.

    Args:
        rows: of the batch. No row is returned where the module's output has not one for each.
    """
    broken: list[tuple[str, list[int]]] = []
    handles = []

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            nans = [tensor for tensor in _tensors(output) if bool(tensor.isnan().any())] if not broken else []
            if nans:
                broken.append((name or type(module).__name__, broken_rows(dict(enumerate(nans)), rows)))

        return hook

    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(hook_for(name)))
    try:
        output = model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    name, which = broken[0] if broken else (None, [])
    return name, which, output


def broken_parameters(model: nn.Module, gradients: bool = False) -> list[str]:
    """Return the names of the parameters that are not finite, or of those whose gradients are not."""
    return [
        name
        for name, parameter in model.named_parameters()
        for tensor in [parameter.grad if gradients else parameter]
        if tensor is not None and not bool(tensor.isfinite().all())
    ]


def broken_rows(inputs: Mapping[Any, Any], rows: int) -> list[int]:
    """Return the rows of a batch with an input that is not finite."""
    found: set[int] = set()
    for value in inputs.values():
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim and len(value) == rows:
            found.update(torch.nonzero(~value.reshape(rows, -1).isfinite().all(1)).flatten().tolist())
    return sorted(found)


def _tensors(output: Any) -> Iterator[Tensor]:
    """Yield the tensors of numbers in what a module returns."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _tensors(value)
