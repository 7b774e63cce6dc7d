"""Filling a store keeps what is good, says what is not, and ends in the same bytes however often it is interrupted."""

import contextlib
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.processing.store import filling as store_filling
from mmpt.processing.store import update as store_update
from mmpt.processing.store.filling import FillReport, fill_store
from mmpt.processing.store.region_store import RegionStore
from tests.factories.sources import ListSource, contents, tiny_regions

SHARD = 3000  # bytes; three images


def items(count: int = 10) -> list:
    """Images, one that could not be read and one with a number that is none."""
    found: list = [tiny_regions(number) for number in range(count)]
    found[3] = "the line has 9 fields, expected 10"
    found[7] = tiny_regions(7, features=np.full((2, 300), np.nan))
    return found


def test_bad_positions_become_rows_of_errors_and_the_rest_is_kept(tmp_path: Path) -> None:
    told: list[int] = []
    report = fill_store(tmp_path / "s", ListSource(items()), shard_bytes=SHARD, progress=told.append)
    assert report == FillReport(images=8, rejected=2)
    assert told == list(range(1, 11))
    store = RegionStore.open(tmp_path / "s")
    store.validate(deep=True)
    assert list(store) == [f"image {number}" for number in (0, 1, 2, 4, 5, 6, 8, 9)]
    errors = [json.loads(line) for line in (tmp_path / "s" / "errors.jsonl").read_text().splitlines()]
    assert errors[0] == {
        "position": 3,
        "where": "list.tsv, line 4",
        "image_id": None,
        "reason": "the line has 9 fields, expected 10",
    }
    assert (errors[1]["position"], errors[1]["image_id"]) == (7, "image 7")
    assert "features of region 0 contain nan" in errors[1]["reason"]


@settings(deadline=None, max_examples=25)
@given(stops=st.lists(st.integers(0, 9), max_size=3), group=st.integers(1, 4))
def test_interrupted_filling_ends_in_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int], group: int
) -> None:
    folder = tmp_path_factory.mktemp("fill")
    for stop in stops:
        source = ListSource(items(), group, stop_at=stop, error=KeyboardInterrupt())
        with contextlib.suppress(KeyboardInterrupt):
            fill_store(folder / "interrupted", source, shard_bytes=SHARD)
    fill_store(folder / "interrupted", ListSource(items(), group), shard_bytes=SHARD)
    fill_store(folder / "undisturbed", ListSource(items(), group), shard_bytes=SHARD)
    assert contents(folder / "interrupted") == contents(folder / "undisturbed")


def test_shards_end_between_groups_and_resuming_asks_for_the_next_one(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill_store(tmp_path, ListSource(items(), 4, stop_at=8, error=KeyboardInterrupt()), shard_bytes=SHARD)
    assert len(RegionStore.open(tmp_path)) == 6
    report = fill_store(tmp_path, ListSource(items(), 4), shard_bytes=SHARD)
    assert report == FillReport(images=8, rejected=2, resumed_at=8)


def test_complete_store_is_left_as_it_is(tmp_path: Path) -> None:
    first = fill_store(tmp_path, ListSource(items()))
    before = contents(tmp_path)
    again = fill_store(tmp_path, ListSource(items()))
    assert (again.images, again.rejected, again.resumed_at) == (first.images, first.rejected, 10)
    assert contents(tmp_path) == before
    with pytest.raises(FileExistsError, match=r"made by model 'a detector', asked for model 'another'"):
        fill_store(tmp_path, ListSource(items(), model="another"))


def test_repaired_and_added_positions_are_taken_in_by_the_same_call(tmp_path: Path) -> None:
    fill_store(tmp_path / "s", ListSource(items()), shard_bytes=SHARD)
    repaired: list = [*items(), tiny_regions(10), tiny_regions(0), "torn"]
    repaired[3] = tiny_regions(3)
    report = fill_store(tmp_path / "s", ListSource(repaired), shard_bytes=SHARD)
    assert (report.images, report.rejected, report.added) == (10, 3, 2)
    store = RegionStore.open(tmp_path / "s")
    store.validate(deep=True)
    assert list(store) == [f"image {number}" for number in (0, 1, 2, 4, 5, 6, 8, 9, 3, 10)]
    np.testing.assert_array_equal(store["image 3"].boxes, tiny_regions(3).boxes.astype(np.float32))
    rows = [json.loads(line) for line in (tmp_path / "s" / "errors.jsonl").read_text().splitlines()]
    assert [row["position"] for row in rows] == [7, 11, 12]
    assert "was added before" in rows[1]["reason"]
    before = contents(tmp_path / "s")
    again = fill_store(tmp_path / "s", ListSource(repaired), shard_bytes=SHARD)
    assert (again.images, again.rejected, again.added) == (10, 3, 0)
    assert contents(tmp_path / "s") == before


def test_every_error_repaired_leaves_no_row(tmp_path: Path) -> None:
    fill_store(tmp_path / "s", ListSource(items()), shard_bytes=SHARD)
    report = fill_store(tmp_path / "s", ListSource([tiny_regions(number) for number in range(10)]), shard_bytes=SHARD)
    assert (report.images, report.rejected, report.added) == (10, 0, 2)
    assert not (tmp_path / "s" / "errors.jsonl").exists()
    RegionStore.open(tmp_path / "s").validate(deep=True)


@pytest.mark.parametrize("stage", ["begin_join", "copy_shard", "write_errors", "rmtree", "read"])
def test_interrupted_taking_in_ends_in_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    more: list = [tiny_regions(number) for number in range(14)]
    for name in ("interrupted", "undisturbed"):
        fill_store(tmp_path / name, ListSource(items()), shard_bytes=SHARD)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    source = ListSource(more, stop_at=12, error=KeyboardInterrupt()) if stage == "read" else ListSource(more)
    place = {"begin_join": store_filling, "rmtree": store_update.shutil}.get(stage, store_update)
    with monkeypatch.context() as patch:
        if stage != "read":
            patch.setattr(place, stage, interrupt)
        with pytest.raises(KeyboardInterrupt):
            fill_store(tmp_path / "interrupted", source, shard_bytes=SHARD)
    for name in ("interrupted", "undisturbed"):
        report = fill_store(tmp_path / name, ListSource(more), shard_bytes=SHARD)
        assert (report.images, report.rejected) == (14, 0)
    assert contents(tmp_path / "interrupted") == contents(tmp_path / "undisturbed")


def test_images_added_before_an_interrupted_run_is_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill_store(tmp_path / "s", ListSource(items(), 1, stop_at=6, error=KeyboardInterrupt()), shard_bytes=SHARD)
    more: list = [tiny_regions(20), *items()]
    report = fill_store(tmp_path / "s", ListSource(more), shard_bytes=SHARD)
    assert (report.images, report.rejected) == (9, 2)
    RegionStore.open(tmp_path / "s").validate(deep=True)


def test_a_store_of_other_images_is_refused(tmp_path: Path) -> None:
    fill_store(tmp_path / "s", ListSource(items()))
    other = ListSource(items())
    other.origin = {"file": "other.tsv", "rows": 10}
    with pytest.raises(FileExistsError, match=r"store of file 'list.tsv'.*would be one of file 'other.tsv'"):
        fill_store(tmp_path / "s", other)


def test_strict_filling_stops_at_the_first_bad_position(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"list.tsv, line 4: the line has 9 fields"):
        fill_store(tmp_path, ListSource(items()), strict=True)


def test_source_without_any_regions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of the 2 positions .* list.tsv, line 1: broken"):
        fill_store(tmp_path / "a", ListSource(["broken", "too"]))
    with pytest.raises(ValueError, match=r"none of the 0 positions .* it is empty"):
        fill_store(tmp_path / "b", ListSource([]))


def test_duplicate_is_rejected_by_name(tmp_path: Path) -> None:
    report = fill_store(tmp_path, ListSource([tiny_regions(0), tiny_regions(1), tiny_regions(0)]), shard_bytes=1)
    assert (report.images, report.rejected) == (2, 1)
    assert "image 'image 0' was added before" in (tmp_path / "errors.jsonl").read_text()


def test_full_disk_says_what_is_free_and_what_is_safe(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match=r"the disk of .* is full: \d+ MB are free, .* first 3 positions are saved"):
        fill_store(tmp_path, ListSource(items(), stop_at=5, error=full), shard_bytes=SHARD)
    assert len(RegionStore.open(tmp_path)) == 3
    assert fill_store(tmp_path, ListSource(items()), shard_bytes=SHARD).images == 8


def test_changed_byte_in_errors_is_noticed(tmp_path: Path) -> None:
    fill_store(tmp_path, ListSource(items()))
    file = tmp_path / "errors.jsonl"
    file.write_bytes(file.read_bytes().replace(b"line 4", b"line 5"))
    with pytest.raises(ValueError, match=r"errors\.jsonl: sha256 is"):
        RegionStore.open(tmp_path).validate(deep=True)
