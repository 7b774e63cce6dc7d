"""Rows of an annotation file that cannot be read: an error in the end, or lines of errors.jsonl."""

import json
import logging
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptFileExistsError, MmptValueError
from mmpt.processing.store.format import ERRORS, publish

logger = logging.getLogger(__name__)

ROW_ERRORS = (LookupError, TypeError, ValueError, AttributeError, OverflowError)  # what a bad row may raise
SHOWN_ROWS = 5  # of which an error tells


class BadRows:
    """The bad rows of one file.

    Args:
        source: what is read, for errors.
        errors: the file that they are written to; by default a bad row is an error.
    """

    def __init__(self, source: str | Path, errors: str | Path | None = None) -> None:
        self._source = source
        self._errors = None if errors is None else Path(errors)
        self._rows: list[dict[str, str]] = []
        if self._errors is not None:
            _refuse_foreign(self._errors)

    @property
    def strict(self) -> bool:
        """Whether a bad row is an error."""
        return self._errors is None

    def add(self, where: str, reason: str | Exception, entry: Any) -> None:
        """Note a row.

        Args:
            where: its place in the file.
            reason: what is wrong with it.
            entry: what stands there.
        """
        if isinstance(reason, KeyError):
            reason = f"{reason.args[0]!r} is missing"
        self._rows.append({"file": str(self._source), "where": where, "reason": str(reason), "row": _shown(entry)})

    def finish(self) -> None:
        """Raise an error, or write the rows to the file.

        Raises:
            ValueError: if there are bad rows and no file for them. It counts them and tells the place of the first.
        """
        if self._errors is None:
            if self._rows:
                raise MmptValueError(
                    f"{self._source} has {_count(len(self._rows))}, correct or remove:\n{self.summary()}\n"
                    "  or leave them out with strict=False (--skip-bad)"
                )
            return
        if not self._rows:
            self._errors.unlink(missing_ok=True)  # of a run before
            return
        self._errors.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._errors.with_name(f"{self._errors.name}.tmp")
        # In ASCII: a row may hold what UTF-8 cannot.
        temporary.write_text("".join(json.dumps(row) + "\n" for row in self._rows), encoding="utf-8", newline="\n")
        publish(temporary, self._errors)
        logger.warning("%s: left out %s; the reasons are in %s", self._source, _count(len(self._rows)), self._errors)

    def summary(self) -> str:
        """Return the first bad rows, one a line."""
        shown = [f"  {row['where']}: {row['reason']}; got {row['row']}" for row in self._rows[:SHOWN_ROWS]]
        more = len(self._rows) - SHOWN_ROWS
        return "\n".join([*shown, *([f"  and {more} more"] if more > 0 else [])])


def errors_beside(path: str | Path) -> Path:
    """Return the errors.jsonl that lies in the same folder."""
    return Path(path).resolve().parent / ERRORS


def _refuse_foreign(path: Path) -> None:
    """Refuse to write over a file that is none of ours."""
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with path.open(encoding="utf-8") as file:
            row = json.loads(file.readline())
    except ValueError:
        row = None
    if not isinstance(row, dict) or not {"file", "where", "reason"} <= row.keys():
        raise MmptFileExistsError(
            f"{path} is there and was not written by this command, so it is left as it is; bad rows are written to a "
            "file of this name: move it, or write to another folder"
        )


def _shown(entry: Any) -> str:
    try:
        return f"{entry!r:.120}"
    except (ValueError, RecursionError):  # a number of more than 4,300 digits, lists in lists without end
        return f"a {type(entry).__name__} that cannot be shown"


def _count(rows: int) -> str:
    return f"{rows:,} bad row{'' if rows == 1 else 's'}"
