"""Reading region features: the store beside the ways in which the predecessors read theirs.

Random rows of 36 x 2048 numbers, the same images in the same order for every contender, in turn, page cache warm, one
thread: LXMERT's TSV (base64), UNITER's LMDB (compressed npz), VOLTA's HDF5. Then the same rows joined with captions
and collated; the import of a TSV beside the decoding of its base64 alone; and the opening of a store of a million rows.
Medians over rounds.
"""

import argparse
import base64
import csv
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import torch

from mmpt.configuration.configuration_mmpt import MmptSingleStreamConfig
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.pretraining.collator import MmptDataCollator
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.region_readers.open_features import open_features
from mmpt.processing.regions import Regions
from mmpt.processing.store.filling import fill_store
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.store.writer import RegionStoreWriter
from mmpt.processing.word_tokenizer import build_word_tokenizer

REGIONS, FEATURES, CLASSES = 36, 2048, 1601
BATCH = 32
IMAGE_SCALE = np.asarray([640, 480, 640, 480], np.float32)  # width and height, twice
SIZES = ("img_id", "img_h", "img_w")
OBJECTS = ("objects_id", "objects_conf", "attrs_id", "attrs_conf")
TSV_FIELDS = (*SIZES, *OBJECTS, "num_boxes", "boxes", "features")


def make_regions(number: int, classes: bool) -> Regions:
    """Return an image with features as a detector gives them: not negative, a third of them zero."""
    rng = np.random.default_rng(number)
    corners = np.sort(rng.random((REGIONS, 2, 2), dtype=np.float32), axis=1).reshape(REGIONS, 4)
    features = np.maximum(rng.normal(0.4, 1.0, (REGIONS, FEATURES)).astype(np.float32), 0)
    return Regions.from_pixels(
        features,
        corners * IMAGE_SCALE,
        width=640,
        height=480,
        labels=rng.integers(0, CLASSES - 1, REGIONS),
        scores=rng.random(REGIONS, dtype=np.float32),
        class_probs=rng.dirichlet(np.full(CLASSES, 0.01), REGIONS).astype(np.float32) if classes else None,
        image_id=f"image-{number:07d}",
    )


class LxmertTsv(Mapping[str, Regions]):
    """Everything in memory, decoded once, as LXMERT does; `seconds` is what that took."""

    def __init__(self, path: Path) -> None:
        csv.field_size_limit(sys.maxsize)
        start = time.perf_counter()
        self._images: dict[str, Regions] = {}
        with path.open(newline="") as file:
            for row in csv.DictReader(file, TSV_FIELDS, delimiter="\t"):
                boxes = np.frombuffer(base64.b64decode(row["boxes"]), np.float32).reshape(REGIONS, 4)
                features = np.frombuffer(base64.b64decode(row["features"]), np.float32).reshape(REGIONS, -1)
                width, height = int(row["img_w"]), int(row["img_h"])
                scale = np.asarray([width, height, width, height], np.float32)
                self._images[row["img_id"]] = Regions(features, boxes / scale, image_id=row["img_id"])
        self.seconds = time.perf_counter() - start

    def __getitem__(self, image_id: str) -> Regions:
        return self._images[image_id]

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)


class UniterLmdb(Mapping[str, Regions]):
    """A compressed npz an image, read and decompressed each time, as UNITER does."""

    def __init__(self, path: Path) -> None:
        self._transaction: Any = lmdb.open(str(path), readonly=True, lock=False).begin(buffers=True)
        self._keys = json.loads(bytes(self._transaction.get(b"__keys__")))

    def __getitem__(self, image_id: str) -> Regions:
        with io.BytesIO(self._transaction.get(f"{image_id}.npz".encode())) as reader:
            arrays = dict(np.load(reader))
        return Regions(arrays["features"], arrays["norm_bb"][:, :4], image_id=image_id)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return (key.removesuffix(".npz") for key in self._keys)


class VoltaHdf5(Mapping[str, Regions]):
    """A group of datasets an image, as VOLTA's H5 files have it."""

    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path, "r")

    def __getitem__(self, image_id: str) -> Regions:
        group: Any = self._file[image_id]
        width, height = int(group["img_w"][()]), int(group["img_h"][()])
        boxes = group["boxes"][:] / np.asarray([width, height, width, height], np.float32)
        return Regions(group["features"][:], boxes, image_id=image_id)

    def __len__(self) -> int:
        return len(self._file)

    def __iter__(self) -> Iterator[str]:
        return map(str, self._file)


def write_all(folder: Path, images: int) -> None:
    """Write the same images as each contender has them."""
    (folder / "lmdb").mkdir()
    environment = lmdb.open(str(folder / "lmdb"), map_size=1 << 40)
    with (
        (folder / "features.tsv").open("w", newline="") as tsv,
        h5py.File(folder / "features.h5", "w") as h5,
        environment.begin(write=True) as transaction,
        RegionStoreWriter(folder / "store", extractor={}) as store,
    ):
        writer: Any = csv.DictWriter(tsv, TSV_FIELDS, delimiter="\t")
        keys = []
        for number in range(images):
            regions = make_regions(number, classes=False)
            name, features = str(regions.image_id), regions.features
            store.add(regions)
            boxes = regions.boxes * IMAGE_SCALE
            row = {"img_id": name, "img_h": 480, "img_w": 640, "num_boxes": REGIONS}
            arrays = {
                "objects_id": regions.labels,
                "objects_conf": regions.scores,
                "boxes": boxes,
                "features": features,
            }
            arrays |= {"attrs_id": np.zeros(REGIONS, np.int64), "attrs_conf": regions.scores}
            writer.writerow(row | {key: base64.b64encode(value).decode() for key, value in arrays.items()})
            group = h5.create_group(name)
            for key, value in {"features": features, "boxes": boxes, "img_w": 640, "img_h": 480}.items():
                group[key] = value
            content = io.BytesIO()
            half: Any = {"features": features.astype(np.float16), "conf": np.asarray(regions.scores, np.float16)}
            sides = np.concatenate([regions.boxes, regions.boxes[:, 2:] - regions.boxes[:, :2]], axis=1)
            np.savez_compressed(content, norm_bb=sides.astype(np.float16), **half)
            transaction.put(f"{name}.npz".encode(), content.getvalue())
            keys.append(f"{name}.npz")
        transaction.put(b"__keys__", json.dumps(keys).encode())


def read_all(regions: Mapping[str, Regions], order: list[str]) -> float:
    """Return the seconds that reading and copying these images take: what a batch needs of them."""
    target = np.empty((REGIONS, FEATURES), np.float32)
    half = np.empty((REGIONS, FEATURES), np.float16)
    start = time.perf_counter()
    for image_id in order:
        features = regions[image_id].features
        np.copyto(half if features.dtype == np.float16 else target, features)
    return time.perf_counter() - start


def look_up_all(regions: Mapping[str, Regions], order: list[str]) -> float:
    """Return the seconds that getting these images takes."""
    start = time.perf_counter()
    for image_id in order:
        regions[image_id]
    return time.perf_counter() - start


def collate_all(regions: Mapping[str, Regions], order: list[str]) -> float:
    """Return the seconds that joining these images with captions, masking and padding takes."""
    words = ["red", "dog", "near", "a", "small", "ball", "on", "the", "grass"]
    tokenizer = build_word_tokenizer([" ".join(words)])
    pairs = {"text": [" ".join(words[n % 7 :]) + f" {n}" for n in range(len(order))], "image_id": order}
    dataset = PairDataset(pairs, regions)
    config = MmptSingleStreamConfig(
        vocab_size=len(tokenizer), region_feature_dim=FEATURES, objective_weights={"mlm": 1.0, "mrfr": 1.0, "itm": 1.0}
    )
    collator = MmptDataCollator(MmptProcessor(MmptImageProcessor(), tokenizer), config)
    collator([dataset[row] for row in range(BATCH)])
    start = time.perf_counter()
    for first in range(0, len(order) - BATCH + 1, BATCH):
        collator([dataset[row] for row in range(first, first + BATCH)])
    return time.perf_counter() - start


def measure_reading(folder: Path, images: int, rounds: int) -> dict[str, Any]:
    """Return microseconds a row, and pairs a second through the collator, of each contender."""
    tsv = LxmertTsv(folder / "features.tsv")
    contenders: dict[str, Mapping[str, Regions]] = {
        "store": RegionStore.open(folder / "store"),
        "uniter_lmdb_npz": UniterLmdb(folder / "lmdb"),
        "volta_h5": VoltaHdf5(folder / "features.h5"),
        "lxmert_in_memory": tsv,
    }
    names = list(contenders["store"])
    times: dict[str, dict[str, list[float]]] = {}
    tasks: dict[str, Callable[..., float]] = {"get": look_up_all, "read": read_all, "collate": collate_all}
    for number in range(rounds + 1):  # the first warms up
        order = [names[place] for place in np.random.default_rng(number).permutation(len(names))]
        for task, run in tasks.items():
            for name in sorted(contenders, key=lambda name: (hash(name) + number) % 7):
                seconds = run(contenders[name], order)
                if number:
                    times.setdefault(name, {}).setdefault(task, []).append(seconds)
    rows = {
        name: {
            "get_us": 1e6 * statistics.median(found["get"]) / images,
            "read_us": 1e6 * statistics.median(found["read"]) / images,
            "collated_pairs_per_s": BATCH * (images // BATCH) / statistics.median(found["collate"]),
        }
        for name, found in times.items()
    }
    rows["lxmert_in_memory"]["decoding_us"] = 1e6 * tsv.seconds / images
    return rows


def measure_import(folder: Path, rounds: int) -> dict[str, float]:
    """Return MB of the file a second, of an import and of decoding its base64 alone."""
    path = folder / "features.tsv"
    size = path.stat().st_size / 1e6
    found: dict[str, list[float]] = {"import": [], "base64": []}
    for number in range(rounds):
        start = time.perf_counter()
        fill_store(folder / f"import-{number}", open_features(path))
        found["import"].append(size / (time.perf_counter() - start))
        start = time.perf_counter()
        with path.open("rb") as file:
            for line in file:
                for field in line.rstrip(b"\r\n").split(b"\t"):
                    if len(field) > 100:
                        base64.b64decode(field, validate=True)
        found["base64"].append(size / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratio = statistics.median(a / b for a, b in zip(found["import"], found["base64"], strict=True))
    return {"import_mb_per_s": medians["import"], "base64_mb_per_s": medians["base64"], "of_base64": ratio}


OPEN = """
import json, resource, sys, time
from mmpt.processing.store.region_store import RegionStore
import psutil
process = psutil.Process()
before = process.memory_full_info()
start = time.perf_counter()
store = RegionStore.open(sys.argv[1])
seconds = time.perf_counter() - start
after = process.memory_full_info()
names = [f"image-{number:07d}" for number in range(0, len(store), 997)]
start = time.perf_counter()
for name in names:
    store[name]
row = (time.perf_counter() - start) / len(names)
read = process.memory_full_info()
print(json.dumps({
    "rows": len(store),
    "open_seconds": seconds,
    "open_rss_mb": (after.rss - before.rss) / 1e6,
    "open_own_mb": (after.uss - before.uss) / 1e6,
    "get_us": 1e6 * row,
    "rss_after_reading_mb": (read.rss - before.rss) / 1e6,
}))
"""


def measure_opening(folder: Path, rows: int) -> dict[str, float]:
    """Return what opening a store of many images with small features costs, in a process of its own."""
    boxes = np.asarray([[0, 0, 0.5, 0.5], [0.2, 0.2, 1, 1]], np.float32)
    features = np.random.default_rng(0).random((2, 16), dtype=np.float32)
    start = time.perf_counter()
    with RegionStoreWriter(folder / "many", extractor={}) as writer:
        for number in range(rows):
            writer.add(Regions(features, boxes, image_id=f"image-{number:07d}"))
    seconds = time.perf_counter() - start
    command = [sys.executable, "-c", OPEN, str(folder / "many")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "writing_seconds": seconds}


def main() -> None:
    """Measure, print tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/store.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_all(folder, arguments.images)
        reading = measure_reading(folder, arguments.images, arguments.rounds)
        importing = measure_import(folder, 3)
        opening = measure_opening(folder, arguments.rows)
    print(f"{'random rows, 36 x 2048':24}{'get us':>9}{'read us':>9}{'collated pairs/s':>18}{'of the store':>14}")
    for contender, row in reading.items():
        ratio = row["collated_pairs_per_s"] / reading["store"]["collated_pairs_per_s"]
        print(
            f"{contender:24}{row['get_us']:9.1f}{row['read_us']:9.1f}{row['collated_pairs_per_s']:18.0f}{ratio:14.2f}"
        )
    print(f"LXMERT's decoding, once: {reading['lxmert_in_memory']['decoding_us']:.0f} us a row")
    print(" ".join(f"{name} {value:.2f}" for name, value in importing.items()))
    print(" ".join(f"{name} {value:.2f}" for name, value in opening.items()))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {"images": arguments.images, "rounds": arguments.rounds, "torch": torch.__version__}
    found = {"settings": settings, "reading": reading, "import": importing, "opening": opening}
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(arguments.out)


if __name__ == "__main__":
    main()
