"""The epoch of every example, whatever dataset it comes from: what a Trainer's DataLoader adds to the examples."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset
from transformers import TrainerCallback

from mmpt.configuration.errors import MmptTypeError, MmptValueError
from mmpt.processing.pairs.dataset import StepIndex

Collate = Callable[[Sequence[Any]], Any]


class EpochCollator:
    """A collate function that gives the epoch to every example before it calls the one that it holds.

    Args:
        collate: makes a batch of examples.
        for_evaluation: stay at epoch 0, so that every evaluation sees the same masks.
    """

    def __init__(self, collate: Collate, *, for_evaluation: bool = False) -> None:
        self.collate = collate
        self.for_evaluation = for_evaluation
        # Workers that outlive an epoch see a new epoch only in shared memory.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __call__(self, examples: Sequence[Any]) -> Any:
        given = {"epoch": int(self._epoch), "for_evaluation": self.for_evaluation}
        return self.collate(
            [dict(example) | given if isinstance(example, Mapping) else example for example in examples]
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the examples of the next batches; workers that run see it too."""
        if not self.for_evaluation:
            self._epoch.fill_(epoch)


class NumberedRows(Dataset[Any]):
    """A map-style dataset whose examples say from which part of a `ConcatDataset` and for which step they are.

    Args:
        dataset: any dataset with a length.

    Raises:
        TypeError: if it has no length or no rows.
    """

    def __init__(self, dataset: Any) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise MmptTypeError(
                f"the dataset is a {type(dataset).__name__}, expected one with rows by number and a length, as a "
                "PairDataset or a list, or a torch.utils.data.IterableDataset"
            )
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self._numbered(index, self.dataset[int(index)])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        rows = [int(index) for index in indices]
        together = getattr(self.dataset, "__getitems__", None)
        examples = [self.dataset[row] for row in rows] if together is None else together(rows)
        return [self._numbered(index, example) for index, example in zip(indices, examples, strict=True)]

    def _numbered(self, index: int, example: Any) -> Any:
        if not isinstance(example, Mapping):
            return example
        given = {"part": part_of(self.dataset, int(index))}
        if isinstance(index, StepIndex):
            given["step"] = index.step
        return dict(example) | given


def part_of(dataset: Any, row: int) -> int:
    """Return a number for the part that a row is of, through each `Subset` and `ConcatDataset`; the first has 0."""
    if isinstance(dataset, Subset):
        return part_of(dataset.dataset, int(dataset.indices[row]))
    if isinstance(dataset, ConcatDataset):
        place = bisect_right(dataset.cumulative_sizes, row)
        before = dataset.cumulative_sizes[place - 1] if place else 0
        return place + len(dataset.datasets) * part_of(dataset.datasets[place], row - before)
    return 0


def text_lengths(dataset: Any) -> NDArray[np.int64]:
    """Return (rows,) the length of each text in characters, second text included: what rows are grouped by.

    Raises:
        ValueError: if the dataset does not give its texts without the regions of every row.
    """
    if hasattr(dataset, "text_lengths"):
        return np.asarray(dataset.text_lengths(), dtype=np.int64)
    if isinstance(dataset, NumberedRows):
        return text_lengths(dataset.dataset)
    if isinstance(dataset, Subset):
        return text_lengths(dataset.dataset)[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([text_lengths(member) for member in dataset.datasets])
    if hasattr(dataset, "with_format") and "text" in dataset.column_names:
        table = dataset.with_format(None)
        columns = [table[name] for name in ("text", "text_pair") if name in table.column_names]
        return np.array([sum(len(text or "") for text in texts) for texts in zip(*columns, strict=True)])
    if isinstance(dataset, (list, tuple)) and all(isinstance(row, Mapping) and "text" in row for row in dataset):
        return np.array([len(row["text"]) + len(row.get("text_pair") or "") for row in dataset])
    raise MmptValueError(
        f"train_sampling_strategy is 'group_by_length', and a {type(dataset).__name__} does not say how long its texts "
        "are; give it a method text_lengths() that returns the number of characters of each row, or use 'random'"
    )


def give_epochs(loader: Any, *, for_evaluation: bool = False) -> None:
    """Put an `EpochCollator` around the collate function of a DataLoader, accelerate's wrappers included."""
    inner = getattr(loader, "base_dataloader", loader)
    if not isinstance(inner.collate_fn, EpochCollator):
        inner.collate_fn = EpochCollator(inner.collate_fn, for_evaluation=for_evaluation)


class EpochCallback(TrainerCallback):
    """Give the epoch to the examples of a Trainer's training, whatever dataset they come from.

    `MmptTrainer` has it, and so has every Trainer that is made after an `MmptDataCollator` and trains with it. Add it
    to the callbacks yourself where a function of your own calls the collator.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._next_epoch = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        collate = getattr(train_dataloader, "collate_fn", None)
        self.is_on = collate is not None and self.is_for(collate)
        self._next_epoch = int(state.epoch or 0)
        if self.is_on:
            give_epochs(train_dataloader)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        if not self.is_on:
            return
        # Counted, because `state.epoch` of a stream without a length is no whole number when an epoch begins.
        for target in (train_dataloader.collate_fn, *_with_epochs(train_dataloader.dataset)):
            if hasattr(target, "set_epoch"):
                target.set_epoch(self._next_epoch)
        self._next_epoch += 1

    def is_for(self, collate: Collate) -> bool:
        """Return whether training with this collate function is to have epochs."""
        return True


def _with_epochs(dataset: Any) -> Iterator[Any]:
    """Yield what may have epochs: the dataset, and the streams that it chains."""
    if isinstance(dataset, NumberedRows):
        dataset = dataset.dataset
    yield dataset
    if isinstance(dataset, IterableDataset):
        for member in (getattr(dataset, "dataset", None), *(getattr(dataset, "datasets", None) or ())):
            yield from _with_epochs(member)


class RepeatedDraws:
    """Say whether the examples that come have come before with the same draws; about a thousand are remembered."""

    def __init__(self) -> None:
        # The workers of a second epoch are often new ones; what the first ones saw is in shared memory.
        self._seen = torch.zeros(1024, dtype=torch.int64).share_memory_()
        self._repeats = torch.zeros((), dtype=torch.int64).share_memory_()

    def found(self, keys: NDArray[np.uint64]) -> bool:
        """Remember a batch, and return whether half of what is remembered has come again.

        Args:
            keys: (batch,), what the draws of each example depend on.
        """
        seen, numbers = self._seen.numpy(), keys.view(np.int64)
        places = (keys % np.uint64(len(seen))).astype(np.int64)
        self._repeats += int((seen[places] == numbers).sum())
        empty = seen[places] == 0
        seen[places[empty]] = numbers[empty]
        return 2 * int(self._repeats) > int(np.count_nonzero(seen))
