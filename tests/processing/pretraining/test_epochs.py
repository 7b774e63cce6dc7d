"""The epoch reaches the masks whatever wraps the data, and evaluation keeps its own."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import ChainDataset, ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, random_split
from transformers import Trainer, TrainingArguments, set_seed

from mmpt.configuration.errors import MmptTypeError, MmptValueError
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.pretraining.epochs import EpochCallback, NumberedRows, text_lengths
from mmpt.processing.pretraining.sampling import EpochSampler
from mmpt.training.trainer import MmptTrainer
from tests.factories.training import tiny_collator, tiny_dataset, tiny_model, tiny_trainer

ROWS = 8
Batches = list[list[tuple[int, ...]]]
Table = datasets.Dataset


def rows_of(pairs: PairDataset) -> list[dict[str, Any]]:
    """The examples of a table as plain dicts, without id, epoch or table."""
    return [{name: pairs[row][name] for name in ("text", "image_id", "regions")} for row in range(len(pairs))]


class Rows(Dataset[Any]):
    """A user's dataset."""

    def __init__(self, pairs: PairDataset) -> None:
        self.rows = rows_of(pairs)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


class Stream(IterableDataset[Any]):
    """A user's stream; of several workers each gives its share."""

    def __init__(self, pairs: PairDataset) -> None:
        self.rows = rows_of(pairs)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        yield from self.rows if worker is None else self.rows[worker.id :: worker.num_workers]


def table_of(pairs: PairDataset) -> Table:
    """A `datasets.Dataset` that adds the regions when a row is read."""

    def add_regions(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return batch | {"regions": [pairs.regions[name] for name in batch["image_id"]]}

    return Table.from_dict(pairs.pairs).with_transform(add_regions)


def stream_of(pairs: PairDataset) -> datasets.IterableDataset:
    def add_regions(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"regions": pairs.regions[row["image_id"]]}

    return Table.from_dict(pairs.pairs).to_iterable_dataset().map(add_regions)


MAPS: dict[str, Callable[[], Any]] = {
    "pairs": lambda: tiny_dataset(ROWS),
    "random_split": lambda: random_split(tiny_dataset(10), [ROWS, 2], torch.Generator().manual_seed(0))[0],
    "nested subset": lambda: Subset(Subset(tiny_dataset(12), range(1, 11)), torch.arange(ROWS)),
    "concat": lambda: ConcatDataset([tiny_dataset(4), Subset(tiny_dataset(6, 1), [0, 1, 2, 3])]),
    "list": lambda: rows_of(tiny_dataset(ROWS)),
    "rows": lambda: Rows(tiny_dataset(ROWS)),
    "table": lambda: table_of(tiny_dataset(ROWS)),
}
STREAMS: dict[str, Callable[[], Any]] = {
    "stream": lambda: Stream(tiny_dataset(ROWS)),
    "chain": lambda: ChainDataset([Stream(tiny_dataset(4)), Stream(tiny_dataset(4, 1))]),
    "datasets stream": lambda: stream_of(tiny_dataset(ROWS)),
}


def record(trainer: Trainer) -> tuple[Batches, Batches]:
    """Return lists that fill with the rows of each training and each evaluation batch."""
    seen: tuple[Batches, Batches] = ([], [])
    original = trainer.compute_loss

    def spy(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        rows = torch.cat([inputs["input_ids"], inputs["masked_regions"].long()], 1).tolist()
        seen[0 if model.training else 1].append(sorted(map(tuple, rows)))
        return original(model, inputs, *args, **kwargs)

    trainer.compute_loss = spy  # type: ignore[method-assign]
    return seen


def different(batches: Batches) -> bool:
    """Whether each batch, an epoch long, has masks of its own."""
    return len({str(batch) for batch in batches}) == len(batches) == 3


ONE_BATCH_AN_EPOCH = {
    "per_device_train_batch_size": ROWS,
    "per_device_eval_batch_size": ROWS,
    "learning_rate": 0.0,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "max_steps": 3,
}


@pytest.mark.parametrize("name", [*MAPS, *STREAMS])
def test_masks_change_with_the_epoch_and_evaluation_keeps_its_own(tmp_path: Path, name: str) -> None:
    make = (MAPS | STREAMS)[name]
    data = make()
    trainer = tiny_trainer(tmp_path, tiny_model(), train=data, evaluation=data, **ONE_BATCH_AN_EPOCH)
    training, evaluation = record(trainer)
    trainer.train()
    assert different(training)
    assert len(evaluation) == 3
    assert evaluation[0] == evaluation[1] == evaluation[2] == training[0]


@pytest.mark.parametrize("name", ["concat", "table", "stream"])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing(tmp_path: Path, name: str, persistent: bool) -> None:
    make = (MAPS | STREAMS)[name]
    found = []
    for workers in (0, 1):
        arguments = ONE_BATCH_AN_EPOCH | {
            "dataloader_num_workers": workers,
            "dataloader_persistent_workers": persistent and workers > 0,
        }
        trainer = tiny_trainer(tmp_path, tiny_model(), train=make(), evaluation=make(), **arguments)
        found.append(record(trainer))
        trainer.train()
    assert found[0] == found[1]
    assert different(found[1][0])


@pytest.mark.parametrize("name", [*MAPS, *STREAMS])
def test_a_run_resumed_in_its_second_epoch_ends_with_equal_weights(tmp_path: Path, name: str) -> None:
    make = (MAPS | STREAMS)[name]
    arguments = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "max_steps": 10,
        "save_strategy": "steps",
        "save_steps": 5,
    }

    def run(resume: bool) -> MmptTrainer:
        set_seed(0)
        trainer = tiny_trainer(tmp_path, tiny_model(hidden_dropout_prob=0.1), train=make(), **arguments)
        trainer.train(resume_from_checkpoint=resume or None)
        return trainer

    whole = run(False)
    shutil.rmtree(tmp_path / "checkpoint-10")
    resumed = run(True)
    assert resumed.state.log_history[5:-1] == whole.state.log_history[5:-1]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


@pytest.mark.parametrize("name", [*MAPS, *STREAMS])
def test_the_stock_trainer_gives_the_epoch_too(tmp_path: Path, name: str) -> None:
    model, data = tiny_model(), (MAPS | STREAMS)[name]()
    arguments = TrainingArguments(
        str(tmp_path),
        remove_unused_columns=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        prediction_loss_only=True,
        label_names=["mlm_labels"],
        disable_tqdm=True,
        **ONE_BATCH_AN_EPOCH,
    )
    trainer = Trainer(model, arguments, data_collator=tiny_collator(model), train_dataset=data, eval_dataset=data)
    training, evaluation = record(trainer)
    trainer.train()
    assert different(training)
    if name != "pairs":  # accelerate sets the epoch of a PairDataset that is not for evaluation
        assert evaluation[0] == evaluation[1] == evaluation[2]


def test_a_function_around_the_collator_needs_the_callback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = []
    for callbacks in ([], [EpochCallback()]):
        caplog.clear()
        model = tiny_model()
        collator = tiny_collator(model)
        arguments = TrainingArguments(
            str(tmp_path),
            remove_unused_columns=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            max_steps=3,
            per_device_train_batch_size=ROWS,
        )
        trainer = Trainer(
            model,
            arguments,
            data_collator=lambda examples, collator=collator: collator(examples),
            train_dataset=MAPS["list"](),
            callbacks=callbacks,
        )
        training, _ = record(trainer)
        trainer.train()
        found.append((different(training), "mmpt.EpochCallback()" in caplog.text))
    assert found == [(False, True), (True, False)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_of_ones_own_sets_the_epoch_or_is_warned(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    data = MAPS["random_split"]()
    for told in (True, False):
        caplog.clear()
        collator = tiny_collator(tiny_model())
        loader: Any = DataLoader(
            data, ROWS, collate_fn=collator, num_workers=workers, persistent_workers=workers > 0, shuffle=True
        )
        batches = []
        for epoch in range(3):
            if told:
                collator.set_epoch(epoch)
            batches += [sorted(map(tuple, batch["input_ids"].tolist())) for batch in loader]
        assert different(batches) == told
        if workers == 0:  # a worker's warning is on its own standard error
            assert ("set_epoch(epoch) of this collator" in caplog.text) == (not told)
            assert caplog.text.count("come again") == (not told)


def test_workers_share_what_they_saw() -> None:
    collator = tiny_collator(tiny_model())
    loader: Any = DataLoader(MAPS["list"](), 4, collate_fn=collator, num_workers=2)
    list(loader)
    assert collator._repeated_draws is not None
    assert np.count_nonzero(collator._repeated_draws._seen.numpy()) == ROWS
    assert int(collator._repeated_draws._repeats) == 0
    list(loader)
    assert int(collator._repeated_draws._repeats) > 0


def test_evaluation_and_one_pass_raise_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    collator = tiny_collator(tiny_model())
    evaluation = tiny_dataset(ROWS, for_evaluation=True)
    for _ in range(3):
        first = [batch["input_ids"] for batch in DataLoader(Subset(evaluation, range(6)), 3, collate_fn=collator)]
        collator.set_epoch(4)
        second = [batch["input_ids"] for batch in DataLoader(Subset(evaluation, range(6)), 3, collate_fn=collator)]
        assert all(map(torch.equal, first, second))
    big = rows_of(tiny_dataset(ROWS)) * 300
    loader: Any = DataLoader(
        [row | {"example_id": n} for n, row in enumerate(big)], 64, collate_fn=tiny_collator(tiny_model())
    )
    list(loader)
    assert "come again" not in caplog.text


@pytest.mark.parametrize("epoch", [-1, 0.5, None, "1"])
def test_what_is_no_epoch_is_refused(epoch: Any) -> None:
    with pytest.raises(MmptValueError, match="expected a whole number, 0 or more"):
        tiny_collator(tiny_model()).set_epoch(epoch)


def test_parts_of_a_concatenation_do_not_share_draws_and_the_first_draws_as_if_alone(tmp_path: Path) -> None:
    once = tiny_dataset(ROWS)
    model = tiny_model()
    collator = tiny_collator(model, policy="joint")
    twice = NumberedRows(ConcatDataset([once, ConcatDataset([Subset(once, range(ROWS)), once])]))
    batches = [collator([twice[row] for row in range(part * ROWS, (part + 1) * ROWS)]) for part in range(3)]
    alone = collator([once[row] for row in range(ROWS)])
    for name, value in alone.items():
        assert torch.equal(value, batches[0][name]), name
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert not torch.equal(batches[one]["masked_regions"], batches[other]["masked_regions"])


def test_partners_come_from_the_whole_table_of_a_wrapped_dataset() -> None:
    whole, model = tiny_dataset(12), tiny_model(objectives=("itm",))
    collator = tiny_collator(model, mismatch_probability=1.0)
    rows = NumberedRows(ConcatDataset([tiny_dataset(3, 1), Subset(whole, [5, 6])]))
    batch = collator([rows[row] for row in (3, 4)])
    plain = collator([whole[5] | {"part": 1}, whole[6] | {"part": 1}])
    assert batch["itm_labels"].tolist() == [0, 0]
    for name, value in plain.items():
        assert torch.equal(value, batch[name]), name


@pytest.mark.parametrize("name", [name for name in MAPS if name != "rows"])
def test_wrapped_data_is_grouped_by_length(name: str) -> None:
    data = NumberedRows(MAPS[name]())
    lengths = text_lengths(data)
    expected = MAPS[name]()
    assert lengths.tolist() == [len(expected[row]["text"]) for row in range(ROWS)]
    assert sorted(EpochSampler(data, 0, 2, group_by_length=True)) == list(range(ROWS))


def test_data_that_cannot_be_grouped_or_numbered_says_what_to_do(tmp_path: Path) -> None:
    grouped = {"train_sampling_strategy": "group_by_length"}
    with pytest.raises(MmptValueError, match=r"a Rows does not say .* give it a method text_lengths\(\)"):
        tiny_trainer(tmp_path, tiny_model(), train=MAPS["rows"](), **grouped).train()
    with pytest.raises(MmptValueError, match="the training data is a stream"):
        tiny_trainer(tmp_path, tiny_model(), train=STREAMS["stream"](), **grouped).train()
    with pytest.raises(MmptTypeError, match="the dataset is a generator, expected one with rows by number"):
        tiny_trainer(tmp_path, tiny_model(), train=iter([1]) and (row for row in ())).train()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(MAPS))
@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_one_objective_a_step_works_with_wrapped_data(tmp_path: Path, name: str, strategy: str) -> None:
    if (name, strategy) == ("rows", "group_by_length"):
        return
    data = MAPS[name]()
    trainer = tiny_trainer(
        tmp_path,
        tiny_model(),
        train=data,
        evaluation=data,
        masking={"policy": "one_objective"},
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=6,
        train_sampling_strategy=strategy,
    )
    trainer.train()
    for event in trainer.state.log_history[:-1]:
        assert sum(event[f"{objective}_count"] > 0 for objective in trainer.objectives) == 1
    assert sum(trainer.evaluate()[f"eval_{objective}_count"] > 0 for objective in trainer.objectives) > 1


def test_one_objective_a_step_on_a_stream_says_what_to_do(tmp_path: Path) -> None:
    masking = {"policy": "one_objective"}
    with pytest.raises(MmptValueError, match="gives it to datasets with a length"):
        tiny_trainer(tmp_path, tiny_model(), train=STREAMS["stream"](), masking=masking).train()
