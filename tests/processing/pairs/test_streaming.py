"""Streamed pairs are the pairs of the table, each once, in an order that seed and epoch decide."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from mmpt.processing.pairs.streaming import StreamedPairDataset
from mmpt.processing.store.filling import fill_store
from mmpt.processing.store.parquet import write_parquet
from mmpt.processing.store.region_store import RegionStore
from tests.factories.examples import random_regions
from tests.factories.sources import ListSource
from tests.factories.training import tiny_model, tiny_trainer

IMAGES = 12
PAIRS = {
    "text": [f"red star {n}" for n in range(2 * IMAGES)],
    "image_id": [f"image-{n % IMAGES}" for n in range(2 * IMAGES)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("streamed")
    images = [random_regions(2 + n % 3, seed=n, image_id=f"image-{n}") for n in range(IMAGES)]
    fill_store(base / "store", ListSource(images), shard_bytes=300)
    write_parquet(base / "store", base / "parquet")
    return base


def given(dataset: Any) -> list[tuple[int, str, str]]:
    return [(item["example_id"], item["text"], item["image_id"]) for item in dataset]


def test_every_pair_comes_once_with_its_regions(folder: Path) -> None:
    store = RegionStore.open(folder / "store")
    dataset = StreamedPairDataset(PAIRS, folder / "parquet", buffer=5)
    items = list(dataset)
    assert sorted(item["example_id"] for item in items) == list(range(2 * IMAGES))
    assert dataset.missing == 0
    for item in items:
        assert (item["text"], item["image_id"]) == tuple(column[item["example_id"]] for column in PAIRS.values())
        expected = store[item["image_id"]]
        np.testing.assert_array_equal(item["regions"].features, expected.features)
        np.testing.assert_array_equal(item["regions"].class_probs, expected.class_probs)


def test_order_depends_on_seed_and_epoch_alone(folder: Path) -> None:
    dataset = StreamedPairDataset(PAIRS, folder / "parquet", buffer=5, seed=1)
    first = given(dataset)
    assert given(dataset) == first == given(StreamedPairDataset(PAIRS, folder / "parquet", buffer=5, seed=1))
    assert given(StreamedPairDataset(PAIRS, folder / "parquet", buffer=5, seed=2)) != first
    dataset.set_epoch(1)
    assert given(dataset) != first
    in_order = given(StreamedPairDataset(PAIRS, folder / "parquet", buffer=1))
    assert [image for _, _, image in in_order] == [f"image-{n // 2}" for n in range(2 * IMAGES)]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_share_the_pairs(folder: Path, workers: int) -> None:
    dataset = StreamedPairDataset(PAIRS, folder / "parquet", buffer=3)
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=given)
    assert sorted(row for batch in loader for row, _, _ in batch) == list(range(2 * IMAGES))


def test_images_without_pairs_are_passed_over_and_missing_ones_counted(folder: Path) -> None:
    pairs = {"text": ["a", "b", "c"], "image_id": ["image-3", "nowhere", "image-3"]}
    dataset = StreamedPairDataset(pairs, folder / "parquet")
    assert sorted(given(dataset)) == [(0, "a", "image-3"), (2, "c", "image-3")]
    assert dataset.missing == 1


def test_source_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json, expected a folder or a repository"):
        StreamedPairDataset(PAIRS, tmp_path)
    with pytest.raises(ValueError, match="buffer is 0, expected at least 1 pair"):
        StreamedPairDataset(PAIRS, tmp_path, buffer=0)


def test_trainer_trains_on_a_stream(folder: Path, tmp_path: Path) -> None:
    dataset = StreamedPairDataset(PAIRS, folder / "parquet", buffer=8)
    trainer = tiny_trainer(tmp_path, tiny_model(), train=dataset, max_steps=8)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 8
    assert np.isfinite(losses).all()
    assert trainer.state.epoch == pytest.approx(8 * 4 / (2 * IMAGES), abs=0.35)
