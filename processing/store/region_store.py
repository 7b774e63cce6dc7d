"""The region store: a folder of Arrow shards with one row per image, read by image id without copying."""

import logging
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptKeyError, MmptValueError
from mmpt.processing.regions import Regions
from mmpt.processing.store.format import (
    OPTIONAL,
    ShardBatch,
    checked_size,
    open_shard,
    read_manifest,
)
from mmpt.processing.store.index import IdIndex
from mmpt.processing.store.rows import decode_regions
from mmpt.processing.store.validation import find_faults

logger = logging.getLogger(__name__)


class RegionStore(Mapping[str, Regions]):
    """A memory-mapped region store: `store[image_id]` gives `Regions` whose arrays are read-only views of the file.

    Features are float16; class_probs are float32 and sum to 1. Pickling keeps only the path, so each worker opens the
    store again. Use `RegionStore.open` to create one.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.feature_dim: int = manifest["feature_dim"]
        self.num_classes: int | None = manifest["num_classes"]
        self.class_names: list[str] | None = manifest["class_names"]
        self.extractor: dict[str, Any] = manifest["extractor"]
        self.fingerprint: str = manifest["fingerprint"]
        self._shards: dict[int, tuple[list[int], list[ShardBatch]]] = {}
        self._starts: list[int] = []
        rows = 0
        for entry in manifest["shards"]:
            checked_size(path, entry)
            self._starts.append(rows)
            rows += entry["rows"]
        if manifest["index"] is None:
            shards = range(len(self._starts))
            self._index = IdIndex.build(batch.ids for number in shards for batch in self._shard(number)[1])
            if again := self._index.duplicates():
                raise MmptValueError(f"{path} has {len(again)} duplicate ids, {again[0]!r} first: it is damaged")
        else:
            self._index = IdIndex.read(checked_size(path, manifest["index"]), rows)
        if not self.complete:
            logger.warning("%s: writing was interrupted, only the first %d images are available", path, rows)

    @classmethod
    def open(cls, path: str | Path) -> "RegionStore":
        """Open a store after checking that every shard exists and has its original size.

        An interrupted store opens with its complete shards and logs a warning.

        Raises:
            FileNotFoundError: if the folder, its manifest or a shard is missing.
            ValueError: if the store was written by a newer mmpt, or is damaged.
        """
        return cls(Path(path), read_manifest(Path(path)))

    def __reduce__(self) -> tuple[Any, ...]:
        return RegionStore.open, (self.path.resolve(),)

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __contains__(self, image_id: object) -> bool:
        return self._index.row(image_id) is not None

    def __getitem__(self, image_id: str) -> Regions:
        row = self._index.row(image_id)
        if row is None:
            raise MmptKeyError(
                f"image {image_id!r} is not in {self.path} ({len(self)} images, {next(iter(self), None)!r} is the "
                "first). Was the store built from the same split?"
            )
        batch, row = self._locate(row)
        if batch.ids[row].as_py() != image_id:
            raise MmptValueError(
                f"image {image_id!r} in {self.path}: its row holds another image; it is damaged, validate(deep=True) "
                "shows where"
            )
        return decode_regions(batch, row, image_id, self.feature_dim, self.num_classes, str(self.path))

    def raw_row(self, image_id: str) -> dict[str, Any]:
        """Return the row of an image as stored, with arrays as bytes.

        Raises:
            KeyError: if the store does not have the image.
        """
        row = self._index.row(image_id)
        if row is None:
            raise MmptKeyError(f"image {image_id!r} is not in {self.path}")
        batch, row = self._locate(row)
        return batch.row(row)

    @property
    def complete(self) -> bool:
        """Whether the store was written completely."""
        return self.manifest["complete"]

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the optional arrays that images with regions have, such as class_probs and scores."""
        for batch in self.batches():
            for row in range(len(batch)):
                if batch.numbers(row)[2]:
                    return tuple(name for name in OPTIONAL if batch.payload(name, row) is not None)
        return ()

    def batches(self) -> Iterator[ShardBatch]:
        """Yield the record batches of all shards in row order."""
        for number in range(len(self._starts)):
            yield from self._shard(number)[1]

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, revision: str | None = None
    ) -> str:
        """Upload the store as Parquet to a dataset repository and return the address.

        See `processing.store.parquet.push_store`.
        """
        from mmpt.processing.store.parquet import push_store

        return push_store(self.path, repo_id, private=private, token=token, revision=revision)

    @classmethod
    def from_hub(
        cls, repo_id: str, path: str | Path, *, token: str | None = None, revision: str | None = None
    ) -> "RegionStore":
        """Download a pushed store into a folder and open it; resumes an interrupted download.

        See `processing.store.parquet.load_store`.
        """
        from mmpt.processing.store.parquet import load_store

        load_store(repo_id, path, token=token, revision=revision)
        return cls.open(path)

    def validate(self, *, deep: bool = False) -> None:
        """Check the size of every file and, if `deep`, every byte against the checksums.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is damaged; the message names each one and its first damaged images.
        """
        manifest = read_manifest(self.path)
        for entry in manifest["shards"]:
            checked_size(self.path, entry)
        faults = find_faults(self.path, deep=deep)
        if faults:
            listed = ". ".join(map(str, faults))
            raise MmptValueError(f"{self.path} is damaged. {listed}. Copy or write these files again, or repair them")

    def _locate(self, row: int) -> tuple[ShardBatch, int]:
        """Return the batch that holds a row, and the row number within it."""
        number = bisect_right(self._starts, row) - 1
        starts, batches = self._shard(number)
        row -= self._starts[number]
        position = bisect_right(starts, row) - 1
        return batches[position], row - starts[position]

    def _shard(self, number: int) -> tuple[list[int], list[ShardBatch]]:
        """Return (first row of each batch, batches) of a shard, opening it when first needed."""
        if number not in self._shards:
            batches = open_shard(self.path, self.manifest["shards"][number])
            starts = [sum(map(len, batches[:position])) for position in range(len(batches))]
            self._shards[number] = (starts, batches)
        return self._shards[number]
