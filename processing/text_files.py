"""Text files as people have them: any encoding, compressed or not, and CSV with any of the usual separators."""

import codecs
import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from mmpt.configuration.errors import MmptValueError

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": ","}  # the usual one of each suffix
_SEPARATORS = ",;\t|"
_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GZIP = b"\x1f\x8b"
_START_BYTES = 1000
_LOOK_BYTES = 1 << 20  # of a file whose encoding is guessed


class BadEntry(NamedTuple):
    """An entry of a file that could not be read.

    Args:
        reason: what is wrong.
        content: what stands there.
    """

    reason: str
    content: Any


def file_suffix(path: Path) -> str:
    """Return a file's suffix in lower case, without that of a compressed file: Pairs.CSV.gz -> .csv."""
    name = Path(path.name.lower())
    return (name.with_suffix("") if name.suffix == ".gz" else name).suffix


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, decompressed if it is gzip.

    Raises:
        ValueError: if it is damaged gzip.
    """
    try:
        with _open_binary(path) as file:
            return file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MmptValueError(f"{path} is damaged gzip ({error}); download or copy it again") from error


def read_text(path: Path, encoding: str | None = None) -> str:
    """Return the text of a file, decompressed if it is gzip.

    Args:
        encoding: by default that of the byte order mark, and UTF-8 without one.

    Raises:
        ValueError: if it is not text in that encoding; the error names the likely one.
    """
    data = read_bytes(path)
    chosen = _encoding_of(path, data[:_START_BYTES], encoding)
    try:
        return data.decode(chosen)
    except UnicodeError as error:
        line = f", line {data[: error.start].count(10) + 1}" if isinstance(error, UnicodeDecodeError) else ""
        likely = _likely_encoding(data[:_LOOK_BYTES])
        raise MmptValueError(
            f"{path}{line}: no text in {chosen.removesuffix('-sig').upper()} ({error}); it looks like {likely}: give "
            f"encoding={likely!r} (--encoding {likely})"
        ) from error


def read_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers, from 1; blank lines are no rows.

    Args:
        encoding: as in `read_text`.

    Raises:
        ValueError: as `read_text` does.
    """
    try:
        with _open_binary(path) as file:
            chosen = _encoding_of(path, file.peek(_START_BYTES)[:_START_BYTES], encoding)
            with io.TextIOWrapper(file, chosen, newline="\n") as text:
                for number, line in enumerate(text, start=1):
                    if line.strip():
                        yield number, line.rstrip("\r\n")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeError):
        read_text(path, encoding)  # raises an error that says where and why
        raise


def read_delimited(
    path: Path, encoding: str | None = None, known: Collection[str] = (), separator: str | None = None
) -> tuple[list[str], list[tuple[int, dict[str, str] | BadEntry]]]:
    """Return the names of the columns of a CSV or TSV file, and its rows with the line on which each ends.

    Args:
        encoding: as in `read_text`.
        known: names of columns; the separator is the one that gives most of them.
        separator: one character, or "tab"; by default what the first line tells.

    Raises:
        ValueError: as `read_text` does, if two columns have one name, or the separator is none.
    """
    separator = None if separator is None else _separator(separator)
    lines = list(io.StringIO(read_text(path, encoding), newline=""))
    start = 0
    if lines and (told := re.fullmatch(r'"?sep=(.)"?\s*', lines[0])):  # how Excel names the separator
        start, separator = 1, separator or told[1]
    while start < len(lines) - 1 and not lines[start].strip():
        start += 1
    limit = csv.field_size_limit(sys.maxsize)  # a limit of the process; put back below
    try:
        names, separator, spaced = _header(path, lines, start, separator, known)
        named = [name for name in names if name]  # Excel writes columns without a name and a value
        if len(set(named)) < len(named):
            raise MmptValueError(f"{path}, line {start + 1}: two columns have one name, got {names}")
        return names, list(_rows(lines, start, names, separator, spaced))
    finally:
        csv.field_size_limit(limit)


def _header(
    path: Path, lines: list[str], start: int, told: str | None, known: Collection[str]
) -> tuple[list[str], str, bool]:
    """Return the names of the columns, the separator, and whether spaces follow it."""
    usual = SEPARATORS.get(file_suffix(path), ",")
    best: tuple[Any, list[str], str] | None = None
    for separator in [told] if told else _SEPARATORS:
        try:
            names = next(csv.reader(lines[start:], delimiter=separator, strict=True), [])
        except csv.Error:
            continue
        found = sum(name.strip() in known for name in names)
        rank = (found, separator == usual and len(names) > 1, len(names))
        if best is None or rank > best[0]:
            best = rank, names, separator
    if best is None:
        raise MmptValueError(
            f"{path}, line {start + 1}: got {''.join(lines[start:])!r:.100}, expected names of columns"
        )
    _, names, separator = best
    return [name.strip() for name in names], separator, any(name.startswith(" ") for name in names)


def _rows(
    lines: list[str], start: int, names: list[str], separator: str, spaced: bool
) -> Iterator[tuple[int, dict[str, str] | BadEntry]]:
    """Yield the rows below the header, by the line on which each ends.

    A quote that is never closed would take the rest of the file into one field: after such a fault reading starts again
    on the next line.
    """
    first = start
    is_header = True
    while first < len(lines):
        reader = csv.reader(
            (lines[place] for place in range(first, len(lines))),
            delimiter=separator,
            skipinitialspace=spaced,
            strict=True,
        )
        begun = first
        try:
            for fields in reader:
                begun, end = first + reader.line_num, first + reader.line_num
                if is_header:
                    is_header = False
                elif fields and (len(fields) < len(names) or any(fields[len(names) :])):
                    reason = f"got {len(fields)} fields, expected {len(names)}, one for each of {names}"
                    yield end, BadEntry(reason, fields)
                elif fields:
                    # Separators at the end of a line give empty fields.
                    yield end, dict(zip(names, fields, strict=False))
            return
        except csv.Error as error:
            yield begun + 1, BadEntry(f"{error}; is a quote not closed?", lines[begun].rstrip("\r\n"))
            first = begun + 1


def _separator(name: str) -> str:
    found = "\t" if name in ("tab", "\\t") else name
    if len(found) != 1 or found in '\r\n"' or found.isalnum():
        raise MmptValueError(f"separator is {name!r}, expected one character: , or ; or | or tab")
    return found


def _open_binary(path: Path) -> io.BufferedReader:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    # A GzipFile is buffered, too, and has the same methods.
    return cast(io.BufferedReader, gzip.open(path, "rb")) if packed else path.open("rb")


def _encoding_of(path: Path, start: bytes, encoding: str | None) -> str:
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    if encoding is None:
        if _is_utf16(start):
            likely = _likely_encoding(start)
            raise MmptValueError(f"{path} looks like {likely}: give encoding={likely!r} (--encoding {likely})")
        return "utf-8"
    try:
        b"a".decode(encoding, "replace")  # a codec that is known and gives text
    except LookupError as error:
        raise MmptValueError(
            f"encoding is {encoding!r}, which Python does not know; expected utf-8, utf-16, latin-1, gbk, ..."
        ) from error
    return encoding


def _is_utf16(start: bytes) -> bool:
    """Return whether bytes without a byte order mark are UTF-16 with Latin letters, every other byte of which is 0."""
    even, odd = (start[parity::2].count(0) / max(1, len(start) // 2) for parity in (0, 1))
    return max(even, odd) > 0.4 and min(even, odd) < 0.05


def _likely_encoding(data: bytes) -> str:
    """Return the encoding that bytes without a byte order mark, which are not UTF-8, are likely in."""
    if b"\0" in data:
        return "utf-16-le" if data[1::2].count(0) >= data[::2].count(0) else "utf-16-be"
    # Chinese letters are pairs of high bytes, and stand in runs; accented letters of Europe stand alone.
    runs = re.findall(rb"[\x80-\xff]+", data)
    high = sum(map(len, runs))
    paired = sum(len(run) for run in runs if re.fullmatch(rb"(?:[\xa1-\xf7][\xa1-\xfe])+", run))
    if _is_japanese(data):
        return "shift_jis"
    odd = sum(len(run) for run in runs if len(run) > 2 and len(run) % 2)
    if 3 * odd > high:  # words of letters that are one byte each
        return "cp1251"
    if 2 * paired > high:
        return "gbk"
    if re.search(rb"[\x80-\x9f]", data):
        return "cp1252" if not re.search(rb"[\x81\x8d\x8f\x90\x9d]", data) else "gb18030"
    return "latin-1"


def _is_japanese(data: bytes) -> bool:
    """Return whether bytes are Shift JIS with as many kana as a Japanese sentence has."""
    text = data.decode("cp932", "ignore")
    foreign = sum(letter > "\x7f" for letter in text)
    return foreign > 0 and 4 * len(re.findall("[\u3041-\u30fa]", text)) > foreign
