# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Convolutions with frozen norms, and the bottleneck blocks that the region detectors are made of."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.configuration.configuration_bottom_up import BottomUpConfig


class BottomUpConvolution(nn.Module):
    """A convolution without bias and the frozen batch norm behind it."""

    def __init__(
        self, config: BottomUpConfig, width: int, out: int, size: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, size, stride=stride, padding=size // 2, groups=groups, bias=False)
        self.norm = FrozenNorm(out, config.norm_eps)
        self.folded: tuple[Tensor, Tensor] | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (images or regions, out, rows, columns)."""
        if self.folded is None:
            return self.norm(self.conv(hidden))
        conv = self.conv
        weight, bias = self.folded
        return F.conv2d(hidden, weight, bias, conv.stride, conv.kernel_size[0] // 2, groups=conv.groups)


class FrozenNorm(nn.Module):
    """A batch norm with the statistics of the training of the detector, for good."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((width,), value))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what was given, normed."""
        return F.batch_norm(hidden, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return what a channel is multiplied by and what is added then, two of (width,), in float64."""
        gain, bias, mean, variance = (
            buffer.double() for buffer in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = gain / (variance + self.eps).sqrt()
        return scale, bias - mean * scale


class BottomUpBlock(nn.Module):
    """A bottleneck of ResNet or ResNeXt."""

    def __init__(self, config: BottomUpConfig, width: int, inner: int, out: int, stride: int, first: bool) -> None:
        super().__init__()
        strides = (stride, 1) if config.stride_in_1x1 else (1, stride)
        self.conv1 = BottomUpConvolution(config, width, inner, 1, strides[0])
        self.conv2 = BottomUpConvolution(config, inner, inner, 3, strides[1], config.groups)
        self.conv3 = BottomUpConvolution(config, inner, out, 1)
        self.shortcut = BottomUpConvolution(config, width, out, 1, stride) if first else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (images or regions, out, rows, columns)."""
        shortcut = hidden if self.shortcut is None else self.shortcut(hidden)
        hidden = F.relu(self.conv1(hidden))
        hidden = F.relu(self.conv2(hidden))
        return F.relu(self.conv3(hidden) + shortcut)


class BottomUpStage(nn.Sequential):
    """Stage 0 (res2) to 3 (res5); the dilation of res5 is in `split_phases`."""

    def __init__(self, config: BottomUpConfig, number: int, width: int, stride: int) -> None:
        out, inner = config.stage_widths[number], config.inner_widths[number]
        super().__init__(
            *(
                BottomUpBlock(config, out if place else width, inner, out, 1 if place else stride, place == 0)
                for place in range(config.stage_depths[number])
            )
        )

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Have the norms within the weights of the convolutions meanwhile, which saves a pass over the maps."""
        convolutions = [module for module in self.modules() if isinstance(module, BottomUpConvolution)]
        try:
            for module in convolutions:
                weight, (scale, shift) = module.conv.weight, module.norm.scale_and_shift()
                folded = (weight.double() * scale[:, None, None, None]).to(weight.dtype)
                module.folded = (folded.contiguous(memory_format=torch.channels_last), shift.to(weight.dtype))
            yield
        finally:
            for module in convolutions:
                module.folded = None
