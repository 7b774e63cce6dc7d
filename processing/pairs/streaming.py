"""Pairs whose regions are streamed from Parquet, on the disk or on the Hub: for corpora larger than the disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub import HfFileSystem
from torch.utils.data import IterableDataset, get_worker_info

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.processing.pairs.dataset import read_pair_columns
from mmpt.processing.regions import Regions
from mmpt.processing.store.format import MANIFEST
from mmpt.processing.store.index import IdIndex
from mmpt.processing.store.parquet import check_parquet_manifest, read_row_groups
from mmpt.processing.store.rows import decode_regions

if TYPE_CHECKING:
    from mmpt.processing.pairs.dataset import PairTable

REMOTE = "datasets/"  # what the names of the Hub's file system begin with
GROUPS_A_FILE = 1 << 16  # row groups are asked for until there are no more


class StreamedPairDataset(IterableDataset[dict[str, Any]]):
    """The pairs of a table in the order in which the regions of their images come, shuffled within a buffer.

    The table is held in memory, the regions are not. Images that no pair names are passed over; pairs whose image is
    nowhere in the stream do not come, and `missing` counts them after a whole pass. A mismatched pair takes its partner
    from the batch, and hard negatives are texts alone, because no other image is at hand.

    Args:
        pairs: a `datasets.Dataset`, or columns by name, as for `PairDataset`.
        source: folder of Parquet files, or the name of a dataset repository on the Hub ("me/regions").
        buffer: pairs that are held for shuffling; 1 keeps the order of the files.
        seed: what the order depends on, with the epoch.
        revision: branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: if there is no store at the source.
        ValueError: if the table or the store is not as expected.
    """

    def __init__(
        self, pairs: "PairTable", source: str | Path, *, buffer: int = 1000, seed: int = 0, revision: str | None = None
    ) -> None:
        if buffer < 1:
            raise MmptValueError(f"buffer is {buffer}, expected at least 1 pair")
        local = Path(source).is_dir() or len(Path(source).parts) != 2
        self._root = str(source) if local else f"{REMOTE}{source}" + (f"@{revision}" if revision else "")
        self._buffer, self._seed = buffer, seed
        # Workers that outlive an epoch see a new epoch only in shared memory.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._columns = read_pair_columns(pairs)
        images = self._columns["image_id"].combine_chunks().dictionary_encode()
        codes = images.indices.to_numpy()
        self._images = IdIndex.build([images.dictionary])
        self._order = np.argsort(codes, kind="stable")
        self._starts = np.searchsorted(codes[self._order], np.arange(len(self._images) + 1))
        try:
            with _open(f"{self._root}/{MANIFEST}") as file:
                content = file.read()
        except FileNotFoundError:
            raise MmptFileNotFoundError(
                f"{source} has no {MANIFEST}, expected a folder or a repository of a region store as Parquet"
            ) from None
        self.manifest = check_parquet_manifest(json.loads(content), f"{self._root}/{MANIFEST}")
        self.feature_dim: int = self.manifest["feature_dim"]
        self.num_classes: int | None = self.manifest["num_classes"]
        self.missing: int | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng((self._seed, int(self._epoch)))
        held: list[tuple[int, Regions]] = []
        given = 0
        for row, regions in self._in_order(rng):
            given += 1
            if len(held) < self._buffer:
                held.append((row, regions))
                continue
            place = int(rng.integers(self._buffer))
            yield self._item(*held[place])
            held[place] = (row, regions)
        if get_worker_info() is None:
            self.missing = len(self._order) - given
        if self._buffer > 1:
            held = [held[place] for place in rng.permutation(len(held))]
        for row, regions in held:
            yield self._item(row, regions)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the order and everything random of an example depend on."""
        self._epoch.fill_(epoch)

    def _in_order(self, rng: np.random.Generator) -> Iterator[tuple[int, Regions]]:
        """Yield row of the table and regions, file by file; of several workers each reads its own row groups."""
        files = self.manifest["files"]
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for place in rng.permutation(len(files)) if self._buffer > 1 else range(len(files)):
            name = f"{self._root}/data/{files[place]['file']}"
            with _open(name) as file:
                for batch in read_row_groups(file, name, range(number, GROUPS_A_FILE, workers)):
                    for row, image_id in enumerate(batch.ids.to_pylist()):
                        image = self._images.row(image_id)
                        if image is None:
                            continue
                        regions = decode_regions(batch, row, image_id, self.feature_dim, self.num_classes, name)
                        for pair in self._order[self._starts[image] : self._starts[image + 1]].tolist():
                            yield pair, regions

    def _item(self, pair: int, regions: Regions) -> dict[str, Any]:
        row = {
            name: column[pair].as_py() for name, column in self._columns.items() if name != "hard_negative_image_ids"
        }
        item = {name: value for name, value in row.items() if value is not None}
        return item | {"example_id": pair, "epoch": int(self._epoch), "regions": regions}


def _open(name: str) -> Any:
    return HfFileSystem().open(name, "rb") if name.startswith(REMOTE) else open(name, "rb")
