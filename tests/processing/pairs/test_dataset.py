"""Pairs are joined with regions before training begins, and partners of mismatched pairs are never true."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mmpt.processing.pairs.dataset import MissingRegionsError, PairDataset, StepIndex
from mmpt.processing.regions import Regions
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.store.writer import RegionStoreWriter

PAIRS = {"text": ["a cat", "a dog", "two cows"], "image_id": ["1", "2", "1"]}


def make_regions(image_id: str) -> Regions:
    features = np.full((2, 3), int(image_id), dtype=np.float16)
    return Regions(features=features, boxes=np.array([[0, 0, 1, 1]] * 2), image_id=image_id)


REGIONS = {image_id: make_regions(image_id) for image_id in ("1", "2", "3")}


@pytest.mark.parametrize("make_table", [dict, Dataset.from_dict])
def test_item_joins_text_and_regions(make_table: Any) -> None:
    dataset = PairDataset(make_table(PAIRS), REGIONS)
    assert len(dataset) == 3
    item = dataset[1]
    assert item.pop("pair_table") is dataset
    assert item.pop("regions") is REGIONS["2"]
    assert item == {"text": "a dog", "image_id": "2", "example_id": 1, "epoch": 0}


def test_item_carries_optional_columns_where_the_row_has_them() -> None:
    table = {
        **PAIRS,
        "text_pair": ["yes", None, "no"],
        "hard_negative_image_ids": [["3"], [], None],
        "hard_negative_texts": [["a dog", "a cow"], None, []],
    }
    dataset = PairDataset(Dataset.from_dict(table), REGIONS)
    names = ("text_pair", "hard_negative_image_ids", "hard_negative_texts")
    found = [{name: item[name] for name in names if name in item} for item in dataset]
    assert found == [
        {"text_pair": "yes", "hard_negative_image_ids": ["3"], "hard_negative_texts": ["a dog", "a cow"]},
        {"hard_negative_image_ids": []},
        {"text_pair": "no", "hard_negative_texts": []},
    ]
    assert [dataset.text_pair_of(row) for row in range(3)] == ["yes", None, "no"]


def test_parts_of_a_row_are_read_alone() -> None:
    dataset = PairDataset(PAIRS, REGIONS)
    assert dataset.text_of(2) == "two cows"
    assert dataset.text_pair_of(2) is None
    assert dataset.regions_of(2) is REGIONS["1"]


def test_chosen_and_shuffled_rows_of_a_dataset_keep_their_order() -> None:
    dataset = PairDataset(Dataset.from_dict(PAIRS).select([2, 0]), REGIONS)
    assert [item["text"] for item in dataset] == ["two cows", "a cat"]


@pytest.mark.parametrize("row", [-1, 3])
def test_row_outside_the_table_is_an_index_error(row: int) -> None:
    with pytest.raises(IndexError, match=rf"row {row} is not in this table, expected 0\.\.2"):
        PairDataset(PAIRS, REGIONS)[row]


def test_missing_regions_are_all_listed_before_training() -> None:
    table = {"text": ["a caption"] * 10, "image_id": ["1", *map(str, range(12, 21))]}
    with pytest.raises(
        ValueError, match=r"9 of 10 images .* \(coverage 10\.0 %\): '12', '13', '14', '15', '16', \."
    ) as error:
        PairDataset(table, REGIONS)
    assert isinstance(error.value, MissingRegionsError)
    assert error.value.missing_ids == [str(n) for n in range(12, 21)]
    assert pickle.loads(pickle.dumps(error.value)).missing_ids == error.value.missing_ids


def test_coverage_is_not_rounded_up_to_everything() -> None:
    regions = {str(n): REGIONS["1"] for n in range(1999)}
    table = {"text": ["a caption"] * 2000, "image_id": [str(n) for n in range(2000)]}
    with pytest.raises(MissingRegionsError, match=r"coverage 99\.9 %"):
        PairDataset(table, regions)


def test_images_of_hard_negatives_need_regions_too() -> None:
    with pytest.raises(MissingRegionsError, match=r"1 of 3 images in the pair table have no regions.*: '9'"):
        PairDataset({**PAIRS, "hard_negative_image_ids": [["9"], ["1", "9"], None]}, REGIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": [], "image_id": []}, r"the pair table is empty"),
        ({"text": ["a", "b"]}, r"columns .* have different lengths, \{'text': 2, 'image_id': 3\}"),
        ({"text": ["a", 7, "b"]}, r"column 'text' holds 7 in row 1, expected a non-empty string"),
        ({"text": ["a", "b", b"c"]}, r"column 'text' holds b'c' in row 2"),
        ({"text": ["a", " \n", "b"]}, r"column 'text' holds ' \\n' in row 1, expected a non-empty string"),
        ({"text": ["a", "b", None]}, r"column 'text' is null in row 2"),
        ({"text": ["a", "\ud800", "b"]}, r"column 'text' holds '\\ud800' in row 1"),
        ({"image_id": ["1", "", "2"]}, r"column 'image_id' holds '' in row 1"),
        ({"text_pair": ["yes", "", None]}, r"column 'text_pair' holds '' in row 1"),
        ({"hard_negative_texts": [None, "a cow", None]}, r"column 'hard_negative_texts' holds 'a cow' in row 1"),
        (
            {"hard_negative_texts": [None, ["a"], ["b", ""]]},
            r"column 'hard_negative_texts' holds \['b', ''\] in row 2, expected a list of non-empty strings",
        ),
    ],
)
def test_bad_table_is_refused_by_row(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairDataset({**PAIRS, **changes}, REGIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": [1, 2, 1]}, r"column 'image_id' holds int64, 1 in row 0; expected a non-empty string"),
        ({"image_id": ["1", None, "2"]}, r"column 'image_id' is null in row 1"),
        ({"hard_negative_texts": ["a", "b", "c"]}, r"column 'hard_negative_texts' holds string, a in row 0"),
        ({"hard_negative_texts": [["a"], [], [None]]}, r"column 'hard_negative_texts' holds \[None\] in row 2"),
    ],
)
def test_bad_dataset_is_refused_by_row(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairDataset(Dataset.from_dict({**PAIRS, **changes}), REGIONS)


def test_missing_column_lists_the_columns() -> None:
    with pytest.raises(ValueError, match=r"no column 'text', got caption, image_id"):
        PairDataset({"caption": ["a"], "image_id": ["1"]}, REGIONS)
    with pytest.raises(ValueError, match=r"no column 'text', got train; .*choose one split of a DatasetDict"):
        PairDataset(DatasetDict({"train": Dataset.from_dict(PAIRS)}), REGIONS)  # type: ignore[arg-type]


def test_list_of_pairs_is_refused() -> None:
    with pytest.raises(TypeError, match=r"is a list, expected a datasets\.Dataset or a dict of columns"):
        PairDataset([("a cat", "1")], REGIONS)  # type: ignore[arg-type]


def test_regions_are_read_only_when_asked_for() -> None:
    class Counting(dict[str, Regions]):
        reads = 0

        def __getitem__(self, image_id: str) -> Regions:
            self.reads += 1
            return super().__getitem__(image_id)

    regions = Counting(REGIONS)
    dataset = PairDataset(PAIRS, regions)
    assert regions.reads == 0
    _ = dataset[0]
    assert regions.reads == 1


def test_step_index_is_its_row_and_pickles() -> None:
    index = pickle.loads(pickle.dumps(StepIndex(2, step=40)))
    assert (index, index.step) == (2, 40)
    item = PairDataset(PAIRS, REGIONS)[index]
    assert (item["text"], item["step"]) == ("two cows", 40)
    assert type(item["example_id"]) is int


def test_epoch_stays_0_in_evaluation() -> None:
    training, evaluation = PairDataset(PAIRS, REGIONS), PairDataset(PAIRS, REGIONS, for_evaluation=True)
    for dataset in (training, evaluation):
        dataset.set_epoch(5)
    assert (training[0]["epoch"], evaluation[0]["epoch"]) == (5, 0)


def keep_facts(items: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    partners = items[0]["pair_table"].partners(np.array([1]), np.array([True]), np.array([[0.0]]))
    return [(item["epoch"], item["text"], float(item["regions"].features[0, 0]), int(partners[0])) for item in items]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_persistent_workers_read_the_store_and_see_a_new_epoch(tmp_path: Path, start: str) -> None:
    with RegionStoreWriter(tmp_path / "store", extractor={}) as writer:
        for regions in REGIONS.values():
            writer.add(regions)
    Dataset.from_dict(PAIRS).save_to_disk(tmp_path / "pairs")
    dataset = PairDataset(Dataset.load_from_disk(tmp_path / "pairs"), RegionStore.open(tmp_path / "store"))
    loader = DataLoader(
        dataset, 3, num_workers=1, persistent_workers=True, multiprocessing_context=start, collate_fn=keep_facts
    )
    for epoch in (0, 7):
        dataset.set_epoch(epoch)
        facts = [(epoch, "a cat", 1.0, 0), (epoch, "a dog", 2.0, 0), (epoch, "two cows", 1.0, 0)]
        assert list(loader) == [facts]


def test_pickled_dataset_on_disk_carries_no_texts(tmp_path: Path) -> None:
    table = {"text": [f"a long caption of number {n}" * 20 for n in range(100)], "image_id": ["1"] * 100}
    Dataset.from_dict(table).save_to_disk(tmp_path)
    dataset = PairDataset(Dataset.load_from_disk(tmp_path), REGIONS)
    pickled = pickle.dumps(dataset)
    assert b"a long caption" not in pickled
    assert pickle.loads(pickled)[99]["text"] == table["text"][99]


def accepted(texts: list[str], images: list[str], row: int, replace_image: bool, other: int) -> bool:
    result = (images[other], texts[row]) if replace_image else (images[row], texts[other])
    differ = images[other] != images[row] and texts[other] != texts[row]
    return differ and result not in set(zip(images, texts, strict=True))


def candidates(row_uniforms: list[float], rows: int) -> Iterator[int]:
    for uniform in row_uniforms:
        yield int(uniform * rows)
    yield from ((int(row_uniforms[-1] * rows) + 1 + step) % rows for step in range(rows))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    rows = draw(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("123")), min_size=1, max_size=9))
    return [text for text, _ in rows], [image for _, image in rows]


@settings(deadline=None, max_examples=300)
@given(table=tables(), seed=st.integers(0, 99), tries=st.integers(1, 3), scan_rows=st.sampled_from([1, 2, 100]))
def test_partners_agree_with_their_definition(
    table: tuple[list[str], list[str]], seed: int, tries: int, scan_rows: int
) -> None:
    texts, images = table
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(texts), 6)
    replace_image = rng.random(6) < 0.5
    uniforms = rng.random((6, tries))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmpt.processing.pairs.dataset.SCAN_ROWS", scan_rows)
        found = PairDataset({"text": texts, "image_id": images}, REGIONS).partners(rows, replace_image, uniforms)
    expected = [
        next(
            (other for other in candidates(row_uniforms, len(texts)) if accepted(texts, images, row, replace, other)),
            -1,
        )
        for row, replace, row_uniforms in zip(rows, replace_image, uniforms.tolist(), strict=True)
    ]
    assert found.tolist() == expected


def test_second_caption_of_an_image_does_not_make_a_partner() -> None:
    dataset = PairDataset({"text": ["a cat", "a pet", "a pet"], "image_id": ["1", "1", "2"]}, REGIONS)
    every = np.arange(3)
    # Image 2 is not "a cat"; but image 1 is "a pet".
    assert dataset.partners(every, np.ones(3, bool), np.full((3, 1), 0.9)).tolist() == [2, -1, -1]
    assert dataset.partners(every, np.zeros(3, bool), np.full((3, 1), 0.9)).tolist() == [-1, -1, 0]


def test_partners_are_drawn_from_the_whole_table_evenly() -> None:
    count = 1000
    table = {"text": [f"caption {n}" for n in range(count)], "image_id": [str(n) for n in range(count)]}
    dataset = PairDataset(table, dict.fromkeys(table["image_id"], REGIONS["1"]))
    uniforms = np.random.default_rng(0).random((20_000, 4))
    partners = dataset.partners(np.zeros(20_000, np.int64), np.ones(20_000, bool), uniforms)
    assert partners.min() > 0
    counts = np.bincount(partners, minlength=count)[1:]
    # 20 a row expected; a uniform draw of this size stays within 6 standard deviations.
    assert np.abs(counts - 20_000 / (count - 1)).max() < 6 * np.sqrt(20)


def test_partners_are_mismatched_after_unpickling() -> None:
    dataset = PairDataset(PAIRS, REGIONS)
    again = pickle.loads(pickle.dumps(dataset))
    arguments = (
        np.array([0, 1, 2]),
        np.array([True, False, True]),
        torch.rand(3, 2, generator=torch.Generator()).numpy(),
    )
    np.testing.assert_array_equal(again.partners(*arguments), dataset.partners(*arguments))
