"""Read LMDB and HDF5 in a subprocess, so that a crash or hang of the library becomes an error."""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.file_source import require_module

MAX_VALUE = 256 * 2**20  # bytes of one image
MAX_HEADER = 2**20
SECONDS = 60.0  # timeout of one request; a damaged file can make a library loop forever
MAX_CRASHES = 3  # consecutive crashes after which the rest of the file is not read

_LIBRARIES = {"lmdb": ("lmdb", "lmdb"), "hdf5": ("h5py", "hdf5")}
_WORKER = Path(__file__).with_name("container_worker.py")


class ContainerError(MmptValueError):
    """The library raised an error; the subprocess is still running."""


class ContainerCrash(MmptValueError):
    """The subprocess died of a signal, or was killed after the timeout."""


@dataclass(frozen=True)
class Container:
    """A file to be read by the subprocess.

    Args:
        kind: "lmdb" or "hdf5".
        options: for lmdb `ignored`, the keys that are not images. For hdf5 `wanted`, the names of datasets, and
            `layout`, `first`, `ids` and `bounds`, which describe the layout of the file (see `Hdf5Reader`).
    """

    kind: str
    path: Path
    options: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """Open the file and return its `total`.

        Raises:
            ValueError: if it cannot be opened.
            ModuleNotFoundError: if the library is not installed.
        """
        module, extra = _LIBRARIES[self.kind]
        require_module(module, extra)
        with _worker() as worker:
            return self._open(worker)

    def _open(self, worker: "_Worker") -> dict[str, Any]:
        options = {**self.options, "limit": MAX_VALUE}
        try:
            worker.send({"do": "open", "kind": self.kind, "path": str(self.path.absolute()), "options": options})
            return worker.receive()[0]
        except (ContainerError, ContainerCrash) as error:
            raise MmptValueError(f"{self.path.name} cannot be opened as {self.kind}: {error}") from None

    def entries(self, start: int) -> Iterator["Entry"]:
        """Yield the entries from `start` on; after a crash, continue with the next entry."""
        position, crashes, unfinished = start, 0, True
        while unfinished and crashes < MAX_CRASHES:
            with _worker() as worker:
                unfinished = False
                try:
                    self._open(worker)
                    worker.send({"do": "skip", "count": position})
                    unfinished = worker.receive()[0]["skipped"] == position
                except ValueError as error:
                    yield Entry(None, {}, [], f"the rest of the file cannot be reached: {error}")
                while unfinished:
                    entry, unfinished, crashed = _next_entry(worker)
                    if entry is not None:
                        position += 1
                        yield entry
                    if crashed:
                        crashes += 1
                        break
                    crashes = 0
        if unfinished:
            yield Entry(
                None, {}, [], f"stopped after {MAX_CRASHES} consecutive crashes; the rest of the file was not read"
            )


@dataclass(frozen=True)
class Entry:
    """One entry of a container: its key, and its value or the reason why it could not be read."""

    key: bytes | None
    header: Mapping[str, Any]
    blobs: Sequence[bytes]
    error: str | None = None


def _next_entry(worker: "_Worker") -> tuple[Entry | None, bool, bool]:
    """Return (entry, whether more may follow, whether the subprocess crashed)."""
    key = None
    try:
        worker.send({"do": "next"})
        header, blobs = worker.receive()
        if header["end"]:
            return None, False, False
        key = blobs[0]
        header, blobs = worker.receive()
        return Entry(key, header, blobs), True, False
    except ContainerError as error:
        # An error before the key means that the library cannot continue in this file.
        reason = str(error) if key is not None else f"the rest of the file cannot be read: {error}"
        return Entry(key, {}, [], reason), key is not None, False
    except ContainerCrash as error:
        return Entry(key, {}, [], str(error)), True, True


class _Worker:
    """The subprocess, and the frames that are exchanged with it."""

    def __init__(self) -> None:
        environment = {**os.environ, "HDF5_PLUGIN_PRELOAD": "::"}  # no plugins: a file must not choose code to load
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request; a dead subprocess is only noticed by `receive`."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def receive(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return (header, blobs) of the next frame.

        Raises:
            ContainerError: if the frame reports an error.
            ContainerCrash: if the subprocess dies, or is killed after the timeout.
        """
        slow: list[bool] = []
        timer = Timer(SECONDS, lambda: (slow.append(True), self.process.kill()))
        timer.daemon = True
        timer.start()
        try:
            size = int.from_bytes(self._read(4), "big")
            header = json.loads(self._read(min(size, MAX_HEADER)))
            if sum(header["sizes"]) > 2 * MAX_VALUE:
                raise MmptValueError("invalid frame")
            blobs = [self._read(size) for size in header["sizes"]]
        except (EOFError, ValueError, KeyError, TypeError):
            self.stop()
            raise ContainerCrash(_death(self.process.returncode, bool(slow))) from None
        finally:
            timer.cancel()
        if "error" in header:
            raise ContainerError(header["error"])
        return header, blobs

    def _read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        data = self.process.stdout.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def is_alive(self) -> bool:
        """Return whether the subprocess runs and belongs to this process, not to the one this was forked from."""
        return self.owner == os.getpid() and self.process.poll() is None

    def stop(self) -> None:
        """Kill the subprocess and wait for it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


_idle: list[_Worker] = []
"""At most one idle subprocess, kept for the next file: starting it takes 0.1 s, opening a file 1 ms."""


@contextmanager
def _worker() -> Iterator[_Worker]:
    """Provide a subprocess, the idle one if it is alive."""
    worker = _idle.pop() if _idle else _Worker()
    if not worker.is_alive():
        worker = _Worker()
    try:
        yield worker
    finally:
        kept = False
        if worker.is_alive():
            with suppress(ContainerError, ContainerCrash):
                worker.send({"do": "close"})
                worker.receive()
                kept = not _idle
        if kept:
            _idle.append(worker)
        else:
            worker.stop()


@atexit.register
def _stop_idle() -> None:
    while _idle:
        worker = _idle.pop()
        if worker.owner == os.getpid():
            worker.stop()


def _death(code: int, slow: bool) -> str:
    if slow:
        return f"the library took more than {SECONDS:g} seconds; the file is damaged"
    return f"the library crashed (exit status {code}); the file is damaged"
