"""The order of the examples of an epoch, and the step that each belongs to."""

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from mmpt.processing.pair_dataset import StepIndex


class EpochSampler(Sampler[int]):
    """Shuffle by (seed, epoch), and say with each index in which optimiser step it is used.

    Args:
        dataset: whose indices are shuffled.
        seed: of the shuffles.
        examples_per_step: examples of all ranks and micro-batches of an optimiser step.
    """

    def __init__(self, dataset: Sized, seed: int, examples_per_step: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.examples_per_step = examples_per_step
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        order = torch.randperm(len(self), generator=generator).tolist()
        for place, index in enumerate(order):
            yield StepIndex(index, place // self.examples_per_step)
