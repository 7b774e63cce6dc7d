"""The process that reads LMDB and HDF5, whose C libraries a damaged file can crash or hang.

It is run as a script and needs only the two libraries. A frame is the length of a JSON header (4 bytes, big endian),
the header, and the blobs whose sizes the header lists. Each request gets one frame; `next` gets one with the key,
then one with the value.
"""

import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from mmpt.configuration.errors import MmptValueError

MEMORY = 4 * 2**30  # bytes of its own; mapped files do not count
SHOWN = 20  # names of a file that are told


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
        """Return the value of the key that came last."""
        value = self.cursor.value()
        if len(value) > self.limit:
            raise MmptValueError(f"the value has {len(value)} bytes, expected up to {self.limit}")
        return {}, [bytes(value)]

    def close(self) -> None:
        """Let the file go."""
        del self.cursor, self.keys
        self.transaction.abort()
        self.environment.close()


class Hdf5Reader:
    """The images of an HDF5 file, each with the wanted data sets; links to other files are not followed.

    `layout` says how they lie: "groups" (one group an image), "names" (`<image>_<data set>` at the root) or "rows"
    (one row of every data set an image, or the rows from `bounds[image][0]` to `bounds[image][1]`). Without a layout,
    only the `facts` are read.
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
            self._tell(len(images), set(names) - known)
            self.keys = self._keys(images)
        elif self.layout == "rows":
            ids = None if options.get("ids") is None else self._ids(options["ids"])
            if self.bounds is not None:
                self.bounds_rows = self._read(self.file, self.bounds, self.limit)
            counted = self.bounds_rows if self.bounds_rows is not None else self._own(self.file, options["first"])
            total = len(counted if ids is None else ids)
            self._tell(total, set(names) - {*self.wanted, options.get("ids"), self.bounds})
            self.keys = self._rows(range(total), ids)
        else:
            self.keys = self._keys(names)

    def _tell(self, total: int, others: set[str]) -> None:
        """Note how many images there are, and the first of the data sets that are not read."""
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
            raise MmptValueError(f"{name} has type {dataset.dtype}, expected whole numbers or text")
        if dataset.ndim != 1 or dataset.nbytes > self.limit:
            raise MmptValueError(f"{name} has shape {dataset.shape}, expected one id an image")
        return [value if isinstance(value, bytes) else str(value).encode() for value in dataset[()].tolist()]

    def value(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return the arrays of the image that came last."""
        if self.layout == "names":
            places = {name: (self.file, f"{self.name}_{name}", None) for name in self.wanted}
        elif self.layout == "rows":
            rows: Any = self.name
            if self.bounds is not None:
                first, last = (int(row) for row in self.bounds_rows[self.name])
                if not 0 <= first <= last:
                    raise MmptValueError(
                        f"{self.bounds} gives the rows {first} to {last}, expected the first before the last"
                    )
                rows = slice(first, last)
            places = {name: (self.file, name, rows) for name in self.wanted}
        else:
            group = self._own(self.file, self.name)
            if not isinstance(group, self.h5py.Group):
                raise MmptValueError(
                    f"it is a {type(group).__name__}, expected a group with the data sets of one image"
                )
            places = {name: (group, name, None) for name in self.wanted}
        arrays, blobs, room = [], [], self.limit
        for name, (group, place, rows) in places.items():
            if place not in group:
                continue
            array = self._read(group, place, room, rows)
            room -= array.nbytes
            arrays.append([name, array.dtype.str, list(array.shape)])
            blobs.append(array.tobytes())
        return {"arrays": arrays}, blobs

    def _read(self, group: Any, name: str, room: int, rows: Any = None) -> Any:
        """Return a data set or some of its rows, once its declared size is known to fit."""
        dataset = self._own(group, name)
        if not isinstance(dataset, self.h5py.Dataset) or dataset.dtype.kind not in "fiub":
            raise MmptValueError(f"{name} is no data set of numbers")
        if dataset.is_virtual or dataset.external:
            raise MmptValueError(f"{name} lies in another file, which is not read")
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
        if max(size, chunk) > room:
            raise MmptValueError(f"{name} has shape {dataset.shape}, expected up to {self.limit} bytes an image")
        return dataset[()] if rows is None else np.asarray(dataset[rows])

    def _own(self, group: Any, name: str) -> Any:
        link = group.get(name, getlink=True)
        if not isinstance(link, self.h5py.HardLink):
            raise MmptValueError(f"{name} is a {type(link).__name__}, which is not followed")
        return group[name]

    def close(self) -> None:
        """Let the file go."""
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
    """Serve requests, one JSON object a line, until standard input ends."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not fall between the frames
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
        except Exception as error:  # whatever a library raises is told; the process that asked decides
            send(output, {"error": f"{type(error).__name__}: {error}"[:1000]}, [])


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on this system
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


if __name__ == "__main__":
    sys.path.pop(0)  # this folder; its modules are not for this process
    main()
