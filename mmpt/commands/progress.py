"""How far a long run is: how many images a second, and how much time is left."""

import shutil
import sys
import time
from types import TracebackType
from typing import TextIO

EVERY_ON_A_TERMINAL, EVERY_IN_A_FILE = 0.5, 30.0  # seconds between two reports


class Progress:
    """A line on the error stream: rewritten on a terminal, and else a plain line now and then. A context manager.

    Args:
        total: how many there will be, where it is known.
    """

    def __init__(self, total: int | None, unit: str, stream: TextIO | None = None) -> None:
        self._total, self._unit = total, unit
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._every = EVERY_ON_A_TERMINAL if self._terminal else EVERY_IN_A_FILE
        self._start = self._shown = time.monotonic()
        self._first: int | None = None
        self._width = self._done = 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._width:
            self._rewrite(self.line(self._done, time.monotonic() - self._start))  # the last count, too
            self._stream.write("\n")
            self._stream.flush()

    def __call__(self, done: int) -> None:
        """Report that so many are done; the first report is where the run began to count."""
        now, self._done = time.monotonic(), done
        if self._first is None:
            self._first, self._start = done, now
        if now - self._shown < self._every:
            return
        self._shown = now
        line = self.line(done, now - self._start)
        if self._terminal:
            self._rewrite(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _rewrite(self, line: str) -> None:
        """Write over the line on the terminal; one that is wider than it would begin a new line each time."""
        line = line[: max(1, shutil.get_terminal_size().columns - 1)]
        self._stream.write("\r" + line.ljust(self._width))
        self._width = len(line)

    def line(self, done: int, seconds: float) -> str:
        """Return the report after so many seconds."""
        rate = (done - (self._first or 0)) / seconds if seconds > 0 else 0.0
        of = "" if self._total is None else f" of {self._total:,}"
        line = f"{done:,}{of} {self._unit}s, {rate:,.1f} {self._unit}s/s"
        if self._total is not None and rate > 0:
            line += f", {duration((self._total - done) / rate)} left"
        return line


def duration(seconds: float) -> str:
    """Return a time as a person says it: 45 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 99:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 99 else f"{minutes // 60} h {minutes % 60} min"
