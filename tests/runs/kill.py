"""Imports and extractions that are killed at random moments, and what is left of their stores.

python -m tests.runs.kill --kills 100
"""

import argparse
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mmpt.processing.generated_scenes.scenes import TRAIN_COMPOSITIONS, render, sample_scene
from mmpt.processing.region_extraction.image_regions import ImageRegions
from mmpt.processing.region_extraction.image_sources import open_images
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from mmpt.processing.region_readers.open_features import open_features
from mmpt.processing.store.filling import fill_store
from mmpt.processing.store.format import MANIFEST
from mmpt.processing.store.region_store import RegionStore
from tests.factories.detectors import save_detector
from tests.factories.sources import contents
from tests.fuzz.feature_files import make_images, write_features

Fill = Callable[[Path], object]


def make_import(folder: Path, rows: int = 60) -> Fill:
    """Return what fills a store from a TSV of LXMERT, whose fifth row is damaged."""
    path = write_features(folder, "lxmert_tsv", make_images(rows, dim=256))
    lines = path.read_bytes().split(b"\n")
    lines[4] = lines[4][:200]
    path.write_bytes(b"\n".join(lines))
    return lambda out: fill_store(out, open_features(path), shard_bytes=6000)


def make_extraction(folder: Path, images: int = 24) -> Fill:
    """Return what fills a store with the regions of rendered scenes, the third of which is no image."""
    (folder / "images").mkdir()
    for number in range(images):
        scene = sample_scene(np.random.default_rng(number), TRAIN_COMPOSITIONS)
        render(scene).save(folder / "images" / f"{number:03d}.png")
    (folder / "images" / "002.png").write_bytes(b"no image")
    detector = save_detector("yolos", folder / "detector")
    extractor = RegionExtractor.from_pretrained(detector, device="cpu", batch_size=4, max_regions=5)
    source = ImageRegions(open_images(folder / "images"), extractor)
    return lambda out: fill_store(out, source, shard_bytes=1500)


def kill_once(fill: Fill, out: Path, seconds: float) -> bool:
    """Fill a store in another process, kill it after so many seconds, and return whether that was in time."""
    child = os.fork()
    if child == 0:
        fill(out)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kill_often(fill: Fill, folder: Path, kills: int, seed: int = 0) -> tuple[int, int]:
    """Kill so many fillings, each at a random moment, and check what is left each time.

    Returns:
        How many had a complete shard when they were killed, and how many ended in the same bytes when run again.

    Raises:
        AssertionError: if a killed store has other images than the first ones of an undisturbed one, or a store that
            was run again differs from it.
    """
    rng = random.Random(seed)
    undisturbed = folder / "undisturbed"
    start = time.perf_counter()
    fill(undisturbed)
    seconds = time.perf_counter() - start
    whole = RegionStore.open(undisturbed)
    ids = list(whole)
    done = opened = equal = 0
    while done < kills:
        out = folder / f"killed-{done}"
        while not kill_once(fill, out, rng.uniform(0, 1.1 * seconds)):  # it was done before: again, from the start
            remove(out)
        done += 1
        while rng.random() < 0.3:
            kill_once(fill, out, rng.uniform(0, seconds))
        if (out / MANIFEST).exists():
            opened += 1
            check_beginning(RegionStore.open(out), whole, ids)
        fill(out)
        same = contents(out)
        same.pop("writer.lock", None)
        equal += same == contents(undisturbed)
        check_beginning(RegionStore.open(out), whole, ids)
        assert len(RegionStore.open(out)) == len(ids)
        remove(out)
    return opened, equal


def check_beginning(store: RegionStore, whole: RegionStore, ids: list[str]) -> None:
    """Check that a store is sound, and has the first images of an undisturbed one."""
    store.validate(deep=True)
    assert list(store) == ids[: len(store)]
    for image_id in store:
        np.testing.assert_allclose(store[image_id].features, whole[image_id].features, atol=1e-5)
        np.testing.assert_allclose(store[image_id].boxes, whole[image_id].boxes, atol=1e-5)


def remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def main() -> None:
    """Kill, check, and print what was left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # each killed store says that it is not complete
    failed = False
    for name, make in (("import", make_import), ("extract", make_extraction)):
        with tempfile.TemporaryDirectory() as folder:
            fill = make(Path(folder))
            opened, equal = kill_often(fill, Path(folder), arguments.kills, arguments.seed)
        print(f"{name}: {arguments.kills} killed, {opened} with complete shards, {equal} byte-equal when run again")
        failed |= name == "import" and equal < arguments.kills
    sys.exit(failed)


if __name__ == "__main__":
    main()
