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

from mmpt.configuration.errors import MmptValueError

MEMORY = 4 * 2**30  # bytes of its own; mapped files do not count


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
    """The groups of an HDF5 file, each with the wanted data sets; links to other files are not followed."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        import h5py

        self.h5py, self.limit, self.wanted = h5py, options["limit"], options["wanted"]
        self.file = h5py.File(path, "r", locking=False)
        names = list(self.file)
        self.facts = {"total": len(names)}
        self.name = ""
        self.keys = self._keys(names)

    def _keys(self, names: list[str]) -> Iterator[bytes]:
        for self.name in names:
            yield self.name.encode("utf-8", "surrogateescape")

    def value(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return the arrays of the group that came last."""
        group = self._own(self.file, self.name)
        if not isinstance(group, self.h5py.Group):
            raise MmptValueError(f"it is a {type(group).__name__}, expected a group with the data sets of one image")
        arrays, blobs, room = [], [], self.limit
        for name in self.wanted:
            if name not in group:
                continue
            dataset = self._own(group, name)
            if not isinstance(dataset, self.h5py.Dataset) or dataset.dtype.kind not in "fiub":
                raise MmptValueError(f"{name} is no data set of numbers")
            if dataset.is_virtual or dataset.external:
                raise MmptValueError(f"{name} lies in another file, which is not read")
            chunk = dataset.dtype.itemsize
            for length in dataset.chunks or ():
                chunk *= length
            room -= max(dataset.nbytes, chunk)
            if room < 0:
                raise MmptValueError(f"{name} has shape {dataset.shape}, expected up to {self.limit} bytes an image")
            array = dataset[()]
            arrays.append([name, array.dtype.str, list(array.shape)])
            blobs.append(array.tobytes())
        return {"arrays": arrays}, blobs

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
