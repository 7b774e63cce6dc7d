"""Reading of LMDB and HDF5 in a process of its own: a file that crashes or hangs the library is told as an error."""

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
SECONDS = 60.0  # for one request; a damaged file can send a library round in circles
MAX_CRASHES = 3  # in a row; then the rest of the file is given up

_LIBRARIES = {"lmdb": ("lmdb", "lmdb"), "hdf5": ("h5py", "hdf5")}
_WORKER = Path(__file__).with_name("container_worker.py")


class ContainerError(MmptValueError):
    """A request that the library refused; the process goes on."""


class ContainerCrash(MmptValueError):
    """A request that ended the process: by a signal, or because it took too long."""


@dataclass(frozen=True)
class Container:
    """A file to be read by the other process.

    Args:
        kind: "lmdb" or "hdf5".
        options: lmdb: `ignored`, keys that are no images. hdf5: `wanted`, names of data sets; `layout`, `first`,
            `ids` and `bounds`, how the images lie in the file (see `Hdf5Reader`).
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
        """Yield the entries from `start` on; where the process crashes, the entries after that one go on."""
        position, crashes, going_on = start, 0, True
        while going_on and crashes < MAX_CRASHES:
            with _worker() as worker:
                going_on = False
                try:
                    self._open(worker)
                    worker.send({"do": "skip", "count": position})
                    going_on = worker.receive()[0]["skipped"] == position
                except ValueError as error:
                    yield Entry(None, {}, [], f"the rest of the file cannot be reached: {error}")
                while going_on:
                    entry, going_on, crashed = _next_entry(worker)
                    if entry is not None:
                        position += 1
                        yield entry
                    if crashed:
                        crashes += 1
                        break
                    crashes = 0
        if going_on:
            yield Entry(
                None, {}, [], f"given up after {MAX_CRASHES} crashes in a row; the rest of the file was not read"
            )


@dataclass(frozen=True)
class Entry:
    """One entry of a container: its key, and its value or the reason why there is none."""

    key: bytes | None
    header: Mapping[str, Any]
    blobs: Sequence[bytes]
    error: str | None = None


def _next_entry(worker: "_Worker") -> tuple[Entry | None, bool, bool]:
    """Return (entry, whether there may be more, whether the process crashed)."""
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
        # Without a key, the library has lost its way in the file.
        reason = str(error) if key is not None else f"the rest of the file cannot be read: {error}"
        return Entry(key, {}, [], reason), key is not None, False
    except ContainerCrash as error:
        return Entry(key, {}, [], str(error)), True, True


class _Worker:
    """The other process, and the frames that go to it and come from it."""

    def __init__(self) -> None:
        environment = {**os.environ, "HDF5_PLUGIN_PRELOAD": "::"}  # a file must not choose code to load
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def send(self, request: Mapping[str, Any]) -> None:
        """Ask for something; a process that has died is noticed at the answer."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def receive(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return the next frame.

        Raises:
            ContainerError: if it tells an error.
            ContainerCrash: if the process dies, or is too slow and is killed.
        """
        slow: list[bool] = []
        timer = Timer(SECONDS, lambda: (slow.append(True), self.process.kill()))
        timer.daemon = True
        timer.start()
        try:
            size = int.from_bytes(self._read(4), "big")
            header = json.loads(self._read(min(size, MAX_HEADER)))
            if sum(header["sizes"]) > 2 * MAX_VALUE:
                raise MmptValueError("nonsense")
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
        """Whether it can be asked, by this process and not by one forked from it."""
        return self.owner == os.getpid() and self.process.poll() is None

    def stop(self) -> None:
        """End the process and collect it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


_idle: list[_Worker] = []
"""At most one process that waits for the next file: it starts in a tenth of a second, a file opens in a thousandth."""


@contextmanager
def _worker() -> Iterator[_Worker]:
    """Lend a process, the waiting one if there is one."""
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
