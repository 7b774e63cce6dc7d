"""Stores come back from Parquet, and from the Hub, in the same bytes; damage on the way is noticed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt.processing.store.filling import fill_store
from mmpt.processing.store.parquet import read_parquet, write_parquet
from mmpt.processing.store.region_store import RegionStore
from tests.factories.loopback_hub import LoopbackHub
from tests.factories.paths import ROOT
from tests.factories.sources import ListSource, contents, tiny_regions


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RegionStore:
    path = tmp_path_factory.mktemp("store") / "s"
    fill_store(path, ListSource([tiny_regions(number) for number in range(8)]), shard_bytes=3000)
    return RegionStore.open(path)


@pytest.fixture(scope="module")
def parquet(store: RegionStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet") / "regions"
    write_parquet(store.path, folder)
    return folder


def test_store_comes_back_in_the_same_bytes(store: RegionStore, parquet: Path, tmp_path: Path) -> None:
    read_parquet(parquet, tmp_path / "again")
    again = RegionStore.open(tmp_path / "again")
    again.validate(deep=True)
    assert contents(again.path) == contents(store.path)


def test_interrupted_reading_resumes(store: RegionStore, parquet: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(parquet, tmp_path / "broken")
    (broken / "data" / "regions-00002.parquet").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"regions-00002\.parquet is damaged: its size or sha256"):
        read_parquet(broken, tmp_path / "again")
    assert len(RegionStore.open(tmp_path / "again")) == 6
    read_parquet(parquet, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(store.path)


def test_datasets_reads_the_files(store: RegionStore, parquet: Path) -> None:
    files = str(parquet / "data" / "*.parquet")
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(parquet.parent / "cache"))
    assert isinstance(rows, Dataset)
    assert rows["image_id"] == list(store)
    assert rows[5]["features"] == store["image 5"].features.tobytes()


def test_folder_without_a_manifest_was_not_pushed_whole(parquet: Path, tmp_path: Path) -> None:
    part = shutil.copytree(parquet, tmp_path / "part")
    (part / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json, expected a region store as Parquet"):
        read_parquet(part, tmp_path / "s")


def test_files_of_another_store_are_not_overwritten(store: RegionStore, parquet: Path) -> None:
    with pytest.raises(FileExistsError, match="is not empty, expected a new folder"):
        write_parquet(store.path, parquet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parquet_version": 2}, "reads up to 1; pip install --upgrade mmpt"),
        ({"files": [{"file": "../x"}]}, "a wrong list"),
    ],
)
def test_manifest_that_cannot_be_followed_is_refused(
    parquet: Path, tmp_path: Path, changes: dict, message: str
) -> None:
    copy = shutil.copytree(parquet, tmp_path / "copy")
    manifest = copy / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))
    with pytest.raises(ValueError, match=message):
        read_parquet(copy, tmp_path / "s")


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), by=st.integers(1, 255))
def test_changed_byte_of_a_file_is_noticed(
    parquet: Path, tmp_path_factory: pytest.TempPathFactory, place: float, by: int
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    copy = Path(shutil.copytree(parquet, folder / "copy"))
    file = copy / "data" / "regions-00001.parquet"
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= by
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"regions-00001\.parquet is damaged"):
        read_parquet(copy, folder / "s")


def test_store_goes_to_the_hub_and_comes_back(store: RegionStore, tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "runs" / "hub.py"), str(store.path), str(tmp_path / "loaded")],
            env=os.environ
            | {
                "HF_ENDPOINT": hub.url,
                "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1",
                "HF_TOKEN": "hf_token",  # the repository is private, and streaming has no argument for it
                "HF_HOME": str(tmp_path / "home"),
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        files = hub.files("datasets/tester/regions")
        assert hub.repos["datasets/tester/regions"]["private"]
    assert sorted(files) == ["README.md", *(f"data/regions-0000{n}.parquet" for n in range(3)), "manifest.json"]
    assert contents(tmp_path / "loaded") == contents(store.path)
    seen = json.loads((tmp_path / "loaded.json").read_text())
    assert seen["items"] == [[name, float(store[name].features.sum())] for name in store]
