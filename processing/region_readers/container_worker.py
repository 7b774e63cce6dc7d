"""Subprocess that reads LMDB and HDF5, whose C libraries can crash or hang on a damaged file.

It runs as a script and needs only the two libraries. A frame is the length of a JSON header (4 bytes, big endian), the
header, and the blobs whose sizes the header lists. The answer to a request is one frame; the answer to `next` is one
frame with the key and one with the value.
"""

import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from mmpt.configuration.errors import MmptValueError

MEMORY = 4 * 2**30  # limit in bytes, not counting memory-mapped files
SHOWN = 20  # names in the file that are reported


class LmdbReader:
    """The entries of an LMDB file in the order of their keys."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        import lmdb

        self.limit, self.ignored = options["limit"], [key.encode() for key in options["ignored"]]
        self.environment = lmdb.open(
            path, readonly=True, lock=False, subdir=os.path.isdir(path), create=False, readahead=False
        )
        self.transaction = self.environment.begin(buffers=True)
        special = [key for key in self.ignored if self.transaction.get(key) is not None]
        self.facts = {"total": self.environment.stat()["entries"] - len(special)}
        self.cursor = self.transaction.cursor()
        self.keys = self._keys()

    def _keys(self) -> Iterator[bytes]:
        before = None
        while self.cursor.next():
            key = bytes(self.cursor.key())
            if before is not None and key <= before:
                raise MmptValueError("the keys are not in order: the file is damaged")
            before = key
            if key not in self.ignored:
                yield key

    def value(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return the value of the current key."""
        value = self.cursor.value()
        if len(value) > self.limit:
            raise MmptValueError(f"the value has {len(value)} bytes, expected up to {self.limit}")
        return {}, [bytes(value)]

    def close(self) -> None:
        """Close the file."""
        del self.cursor, self.keys
        self.transaction.abort()
        self.environment.close()


class Hdf5Reader:
    """The images of an HDF5 file, each with the wanted datasets; links to other files are not followed.

    The `layout` is "groups" (one group per image), "names" (`<image>_<dataset>` at the root) or "rows" (one row of
    every dataset per image, or the rows from `bounds[image][0]` to `bounds[image][1]`); the default is "groups".
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        import h5py

        self.h5py, self.limit, self.wanted = h5py, options["limit"], options["wanted"]
        self.layout, self.bounds = options.get("layout", "groups"), options.get("bounds")
        self.file = h5py.File(path, "r", locking=False)
        names = list(self.file)
        shown = [name.encode("utf-8", "replace").decode() for name in names[:SHOWN]]
        parts = [name for name in self.wanted if name in self.file]
        self.facts = {"total": len(names), "names": shown, "datasets": parts}
        self.name: Any = ""
        self.bounds_rows: Any = None
        if self.layout == "names":
            ending = f"_{options['first']}"
            images = [name.removesuffix(ending) for name in names if name.endswith(ending)]
            known = {f"{image}_{part}" for image in images for part in self.wanted}
            self._record(len(images), set(names) - known)
            self.keys = self._keys(images)
        elif self.layout == "rows":
            ids = None if options.get("ids") is None else self._ids(options["ids"])
            if self.bounds is not None:
                self.bounds_rows = self._read(self.file, self.bounds, self.limit)
            counted = self.bounds_rows if self.bounds_rows is not None else self._own(self.file, options["first"])
            total = len(counted if ids is None else ids)
            self._record(total, set(names) - {*self.wanted, options.get("ids"), self.bounds})
            self.keys = self._rows(range(total), ids)
        else:
            self.keys = self._keys(names)

    def _record(self, total: int, others: set[str]) -> None:
        """Record the number of images, and the first of the datasets that are not read."""
        first = [name.encode("utf-8", "replace").decode() for name in sorted(others)[:SHOWN]]
        self.facts |= {"total": total, "others": first, "others_total": len(others)}

    def _keys(self, names: list[str]) -> Iterator[bytes]:
        for self.name in names:
            yield self.name.encode("utf-8", "surrogateescape")

    def _rows(self, rows: range, ids: list[bytes] | None) -> Iterator[bytes]:
        for self.name in rows:
            yield str(self.name).encode() if ids is None else ids[self.name]

    def _ids(self, name: str) -> list[bytes]:
        dataset = self._own(self.file, name)
        if self.h5py.check_string_dtype(dataset.dtype) is None and dataset.dtype.kind not in "iu":
            raise MmptValueError(f"{name} has type {dataset.dtype}, expected integers or strings")
        if dataset.ndim != 1 or dataset.nbytes > self.limit:
            raise MmptValueError(f"{name} has shape {dataset.shape}, expected one id per image")
        return [value if isinstance(value, bytes) else str(value).encode() for value in dataset[()].tolist()]

    def value(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return the arrays of the current image."""
        if self.layout == "names":
            sources = {name: (self.file, f"{self.name}_{name}", None) for name in self.wanted}
        elif self.layout == "rows":
            rows: Any = self.name
            if self.bounds is not None:
                first, last = (int(row) for row in self.bounds_rows[self.name])
                if not 0 <= first <= last:
                    raise MmptValueError(
                        f"{self.bounds} gives the rows {first} to {last}, expected the first before the last"
                    )
                rows = slice(first, last)
            sources = {name: (self.file, name, rows) for name in self.wanted}
        else:
            group = self._own(self.file, self.name)
            if not isinstance(group, self.h5py.Group):
                raise MmptValueError(f"it is a {type(group).__name__}, expected a group with the datasets of one image")
            sources = {name: (group, name, None) for name in self.wanted}
        arrays, blobs, bytes_left = [], [], self.limit
        for name, (group, dataset, rows) in sources.items():
            if dataset not in group:
                continue
            array = self._read(group, dataset, bytes_left, rows)
            bytes_left -= array.nbytes
            arrays.append([name, array.dtype.str, list(array.shape)])
            blobs.append(array.tobytes())
        return {"arrays": arrays}, blobs

    def _read(self, group: Any, name: str, most_bytes: int, rows: Any = None) -> Any:
        """Return a dataset, or some of its rows, after checking that its declared size fits into `most_bytes`."""
        dataset = self._own(group, name)
        if not isinstance(dataset, self.h5py.Dataset) or dataset.dtype.kind not in "fiub":
            raise MmptValueError(f"{name} is not a dataset of numbers")
        if dataset.is_virtual or dataset.external:
            raise MmptValueError(f"{name} is stored in another file, which is not read")
        chunk = dataset.dtype.itemsize
        for length in dataset.chunks or ():
            chunk *= length
        size = dataset.nbytes
        if rows is not None:
            if dataset.ndim == 0:
                raise MmptValueError(f"{name} has no axis, expected rows of the images")
            first, last = (rows.start, rows.stop) if isinstance(rows, slice) else (rows, rows + 1)
            if last > len(dataset):
                raise MmptValueError(f"{name} has {len(dataset)} rows, expected {last} or more")
            size = size // max(1, len(dataset)) * (last - first)
        if max(size, chunk) > most_bytes:
            raise MmptValueError(f"{name} has shape {dataset.shape}, expected up to {self.limit} bytes per image")
        return dataset[()] if rows is None else np.asarray(dataset[rows])

    def _own(self, group: Any, name: str) -> Any:
        link = group.get(name, getlink=True)
        if not isinstance(link, self.h5py.HardLink):
            raise MmptValueError(f"{name} is a {type(link).__name__}, which is not followed")
        return group[name]

    def close(self) -> None:
        """Close the file."""
        self.file.close()


READERS = {"lmdb": LmdbReader, "hdf5": Hdf5Reader}


def send(output: BinaryIO, header: dict[str, Any], blobs: list[bytes]) -> None:
    """Write one frame."""
    head = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    output.write(struct.pack(">I", len(head)) + head)
    for blob in blobs:
        output.write(blob)
    output.flush()


def main() -> None:
    """Serve requests, one JSON object per line, until the end of standard input."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output printed by a library must not mix with the frames
    _limit_memory()
    reader: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "open":
                reader = READERS[request["kind"]](request["path"], request["options"])
                send(output, reader.facts, [])
            elif request["do"] == "skip":
                skipped = sum(1 for _ in zip(range(request["count"]), reader.keys, strict=False))
                send(output, {"skipped": skipped}, [])
            elif request["do"] == "next":
                key = next(reader.keys, None)
                send(output, {"end": key is None}, [key or b""])
                if key is not None:
                    send(output, *reader.value())
            elif request["do"] == "close":
                reader.close()
                send(output, {}, [])
        except Exception as error:  # every error is reported, and the parent process decides
            send(output, {"error": f"{type(error).__name__}: {error}"[:1000]}, [])


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not available on this system
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose modules must not be imported here
    main()
