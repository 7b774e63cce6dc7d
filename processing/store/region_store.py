"""The region store: a folder of Arrow shards with one row an image, read by image id without copying."""

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

    Features come as float16, class_probs as float32 that sum to 1. Pickling keeps the path alone, so that a worker
    opens the store again. Made by `RegionStore.open`.
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
                raise MmptValueError(f"{path} has {len(again)} ids twice, {again[0]!r} is the first: it is damaged")
        else:
            self._index = IdIndex.read(checked_size(path, manifest["index"]), rows)
        if not self.complete:
            logger.warning("%s: its writing was interrupted, it has the first %d images only", path, rows)

    @classmethod
    def open(cls, path: str | Path) -> "RegionStore":
        """Open a store, checking that every shard is there and has the size it was written with.

        A store whose writing was interrupted opens with its complete shards, and says so in the log.

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
                "says where"
            )
        return decode_regions(batch, row, image_id, self.feature_dim, self.num_classes, str(self.path))

    def raw_row(self, image_id: str) -> dict[str, Any]:
        """Return the row of an image as it is stored, arrays as bytes.

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
        """Whether the writing of the store came to its end."""
        return self.manifest["complete"]

    @property
    def arrays(self) -> tuple[str, ...]:
        """The optional arrays that the images with regions have; class_probs and scores, say."""
        for batch in self.batches():
            for row in range(len(batch)):
                if batch.numbers(row)[2]:
                    return tuple(name for name in OPTIONAL if batch.payload(name, row) is not None)
        return ()

    def batches(self) -> Iterator[ShardBatch]:
        """Yield the record batches of all shards, in the order of the rows."""
        for number in range(len(self._starts)):
            yield from self._shard(number)[1]

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, revision: str | None = None
    ) -> str:
        """Upload the store as Parquet to a dataset repository, its manifest last, and return the address.

        See `processing.store.parquet.push_store`.
        """
        from mmpt.processing.store.parquet import push_store

        return push_store(self.path, repo_id, private=private, token=token, revision=revision)

    @classmethod
    def from_hub(
        cls, repo_id: str, path: str | Path, *, token: str | None = None, revision: str | None = None
    ) -> "RegionStore":
        """Download a store that was pushed, into a folder, and open it; an interrupted one goes on.

        See `processing.store.parquet.load_store`.
        """
        from mmpt.processing.store.parquet import load_store

        load_store(repo_id, path, token=token, revision=revision)
        return cls.open(path)

    def validate(self, *, deep: bool = False) -> None:
        """Check every file's size and, if `deep`, every byte against the checksums.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: naming each damaged file and its first damaged images.
        """
        manifest = read_manifest(self.path)
        for entry in manifest["shards"]:
            checked_size(self.path, entry)
        faults = find_faults(self.path, deep=deep)
        if faults:
            listed = ". ".join(map(str, faults))
            raise MmptValueError(f"{self.path} is damaged. {listed}. Copy or write the named files again, or mend them")

    def _locate(self, row: int) -> tuple[ShardBatch, int]:
        """Return the batch of a row, and the row in it."""
        number = bisect_right(self._starts, row) - 1
        starts, batches = self._shard(number)
        row -= self._starts[number]
        place = bisect_right(starts, row) - 1
        return batches[place], row - starts[place]

    def _shard(self, number: int) -> tuple[list[int], list[ShardBatch]]:
        """Return first rows and batches of a shard, which is opened when it is first needed."""
        if number not in self._shards:
            batches = open_shard(self.path, self.manifest["shards"][number])
            starts = [sum(map(len, batches[:place])) for place in range(len(batches))]
            self._shards[number] = (starts, batches)
        return self._shards[number]
