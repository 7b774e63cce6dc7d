"""The order of the examples of an epoch, and the step that each belongs to."""

from collections.abc import Iterator, Sized

import torch
from torch import Tensor
from torch.utils.data import Sampler

from mmpt.processing.pairs.dataset import StepIndex
from mmpt.processing.pretraining.epochs import text_lengths

GROUPED_STEPS = 50
"""Examples of so many steps are sorted by length together: enough for even lengths, few enough for a random order."""


class EpochSampler(Sampler[int]):
    """Shuffle by (seed, epoch), and say with each index in which optimiser step it is used.

    Args:
        dataset: whose rows are shuffled, any with a length.
        seed: of the shuffles.
        examples_per_step: examples of all ranks and micro-batches of an optimiser step.
        group_by_length: put texts of like length into one step, so that little is padded.
    """

    def __init__(self, dataset: Sized, seed: int, examples_per_step: int, group_by_length: bool = False) -> None:
        self.dataset = dataset
        self.seed = seed
        self.examples_per_step = examples_per_step
        self.lengths = torch.from_numpy(text_lengths(dataset)) if group_by_length else None
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        order = torch.randperm(len(self), generator=generator)
        if self.lengths is not None:
            order = self._grouped(order, self.lengths, generator)
        for place, index in enumerate(order.tolist()):
            yield StepIndex(index, place // self.examples_per_step)

    def _grouped(self, order: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """Return the order with each run of `GROUPED_STEPS` steps sorted by length and cut into shuffled steps."""
        runs = []
        for run in order.split(self.examples_per_step * GROUPED_STEPS):
            steps = run[lengths[run].argsort(stable=True)].split(self.examples_per_step)
            whole = [step for step in steps if len(step) == self.examples_per_step]
            shuffled = [whole[k] for k in torch.randperm(len(whole), generator=generator).tolist()]
            runs += [*shuffled, *steps[len(whole) :]]  # a step that is not whole comes last, or all would shift
        return torch.cat(runs)
