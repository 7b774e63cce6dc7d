"""Fuzzing of the annotation readers, of tables in any encoding, and of lists of images.

A damaged file gives rows, or bad rows with their reasons, or one error of this package that names the file: no other
error, no row of an entry that was not damaged lost, and no entry passed over without a note.
"""

import copy
import gzip
import json
import logging
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptError
from mmpt.processing.annotations.annotation_formats import read_annotations
from mmpt.processing.region_extraction.image_sources import open_images
from tests.fuzz.annotation_files import LINES, Layout, copy_of, delimited, entries_of, write_layouts
from tests.fuzz.mutations import damage_bytes
from tests.fuzz.tally import Tally

Rng = random.Random
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 2**63, 10**400, float("nan"), float("inf"), "", " ", "x", "\ud800", "a\0b", "\n"),
    *([], {}, [[]], [None], {"a": 1}, ["a"], "[", "{}", "../../x.jpg", "e\u0301", "a" * 5000),
)
PIECES = (b'"', b'""', b",", b";", b"\t", b"|", b"\r", b"\n", b"\r\n", b"\0", b"\xff", b"\xc3", b"[", b"}", b"\\", b"=")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "gbk", "gb18030")
TEXTS = {"gbk": ("一只黑猫在沙发上", "红花,绿叶"), "gb18030": ("一只黑猫在沙发上", "红花")}
OTHER_TEXTS = ("Ein Weg, grün", "l'été “dernier”", 'ein "Hund"')


def check_layout(layout: Layout, rng: Rng, folder: Path, tally: Tally, warnings: list[str]) -> None:
    """Damage a copy of a layout's file in one of three ways, and note every promise that is broken."""
    layout = copy_of(layout, folder)
    damages: list[Callable[..., Counter[str] | None]] = [_damage_any_byte]
    if layout.data is not None:
        damages += [_damage_entry] * 3
    elif (layout.path.is_file() and layout.path.suffix in LINES) or layout.format in ("nlvr", "nlvr2"):
        damages += [_damage_line] * 3
    damage = rng.choice(damages)
    rest = damage(layout, rng)
    warnings.clear()
    _check_reading(layout, rest, tally, damage is _damage_entry, warnings)


def _check_reading(
    layout: Layout, rest: Counter[str] | None, tally: Tally, in_one_entry: bool, warnings: list[str]
) -> None:
    """Read strictly and leniently.

    Args:
        rest: the rows of the entries that were not damaged, where that is known.
        in_one_entry: whether the file's structure is whole, so that it must not be refused.
        warnings: what was logged.
    """
    noted = layout.path.parent / "noted.jsonl"
    asked = layout.format
    strict, error = _read(layout, asked)
    rows, refusal = _read(layout, asked, strict=False, errors=noted)
    bad = len(noted.read_text(encoding="utf-8").splitlines()) if noted.exists() else 0
    tally.found += sum(rows.values()) if rows is not None else 0
    tally.rejected += bad
    tally.refused += rows is None
    for each in (error, refusal):
        if each is not None and not _names_a_file(layout, each):
            tally.faults.append(f"refused without naming a file: {each:.300}")
    if (strict is None) != (rows is None or bad > 0):
        tally.faults.append(f"strict gives {error or 'rows'}, lenient {refusal or f'{bad} bad rows'}"[:500])
    elif strict is not None and strict != rows:
        tally.faults.append("strict and lenient reading give other rows")
    if rest is None:
        return
    if rows is None:
        if in_one_entry and rest:
            tally.faults.append(f"refused though {sum(rest.values())} rows are whole: {refusal:.300}")
        return
    if in_one_entry and rows == rest and not bad and not warnings:
        tally.faults.append(
            f"the damaged entry gave no row and no note: {layout.path.read_text(encoding='utf-8')}"[:900]
        )
    if lost := rest - rows:
        tally.faults.append(f"rows of whole entries were lost: {list(lost)[:2]}"[:500])


def _names_a_file(layout: Layout, message: str) -> bool:
    beside = [
        *layout.path.parent.rglob("*"),
        layout.path,
        *map(Path, filter(None, [layout.options.get("annotations")])),
    ]
    return any(path.name in message for path in beside)


def _read(layout: Layout, format: str | None, **options: Any) -> tuple[Counter[str] | None, str | None]:
    """Return the rows, or why there are none."""
    try:
        return _rows(read_annotations(layout.path, format, **layout.options, **options)), None
    except MmptError as error:
        return None, str(error)


def _rows(pairs: Dataset) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True) for row in pairs)


def _rows_without(layout: Layout, write: Callable[[], Any]) -> Counter[str] | None:
    """Return the rows of the file as `write` leaves it; None where it then has none that can be read."""
    write()
    return _read(layout, layout.format)[0]


def _damage_any_byte(layout: Layout, rng: Rng) -> None:
    """Damage any byte of one of the layout's files."""
    every = (
        [layout.path] if layout.path.is_file() else sorted(path for path in layout.path.rglob("*") if path.is_file())
    )
    path = rng.choice([*every, *map(Path, filter(None, [layout.options.get("annotations")]))])
    path.write_bytes(damage_bytes(rng, path.read_bytes()))


def _damage_entry(layout: Layout, rng: Rng) -> Counter[str] | None:
    """Change one value inside one entry of a JSON file, remove it, or put an alien entry there."""
    data = copy.deepcopy(layout.data)
    entries = entries_of(data, layout.key)
    victim = rng.choice(list(entries) if isinstance(entries, dict) else range(len(entries)))
    others = copy.deepcopy(data)
    del entries_of(others, layout.key)[victim]
    rest = _rows_without(layout, lambda: layout.path.write_text(json.dumps(others), encoding="utf-8"))
    entries[victim] = _changed(rng, entries[victim])
    layout.path.write_text(json.dumps(data), encoding="utf-8")
    return rest


def _changed(rng: Rng, value: Any) -> Any:
    """Return the value with one place in it changed."""
    inside = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inside or rng.random() < 0.15:
        return copy.deepcopy(rng.choice(VALUES))
    key = rng.choice(inside)
    if rng.random() < 0.2:
        del value[key]
    elif isinstance(value, list) and rng.random() < 0.1:
        value.append(copy.deepcopy(value[key]))
    else:
        value[key] = _changed(rng, value[key])
    return value


def _damage_line(layout: Layout, rng: Rng) -> Counter[str] | None:
    """Change bytes of one line that is not the header."""
    lines = layout.path.read_bytes().splitlines(keepends=True)
    victim = rng.randrange(1 if layout.path.suffix in (".csv", ".tsv", ".txt") else 0, len(lines))
    rest = _rows_without(layout, lambda: layout.path.write_bytes(b"".join(lines[:victim] + lines[victim + 1 :])))
    line = bytearray(lines[victim].rstrip(b"\n"))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place = rng.randrange(len(line) + 1)
        if rng.random() < 0.6:
            line[place:place] = rng.choice(PIECES)
        else:
            del line[place : place + rng.choice((1, 1, 3, 30))]
    lines[victim] = bytes(line) + b"\n"
    layout.path.write_bytes(b"".join(lines))
    return rest


def check_encoding(rng: Rng, folder: Path, tally: Tally) -> None:
    """Write a table in any encoding, separator, line end and packing, and read it with and without its encoding."""
    encoding, separator = rng.choice(ENCODINGS), rng.choice(",;\t|")
    texts = [rng.choice(TEXTS.get(encoding, OTHER_TEXTS if encoding != "latin-1" else OTHER_TEXTS[::2])) for _ in "abc"]
    table = [{"image": f"ordner/{n:04d}.JPG", "caption": text} for n, text in enumerate(texts)]
    data = delimited(table, separator).replace("\n", rng.choice(("\n", "\r\n", "\r"))).encode(encoding)
    packed = rng.random() < 0.3
    name = rng.choice(("pairs.csv", "Pairs.CSV", "pairs.tsv", "pairs.txt")) + (".gz" if packed else "")
    path = folder / name
    path.write_bytes(gzip.compress(data) if packed else data)
    wanted = [(f"ordner/{n:04d}", text) for n, text in enumerate(texts)]
    for options in ({"encoding": encoding}, {}, {"separator": separator, "encoding": encoding}):
        try:
            pairs = read_annotations(path, **options)
        except MmptError as error:
            tally.refused += 1
            if options or name not in str(error):
                tally.faults.append(f"{name} in {encoding} by {separator!r} with {options}: {error}")
            continue
        tally.found += len(pairs)
        if list(zip(pairs["image_id"], pairs["text"], strict=True)) != wanted:
            tally.faults.append(f"{name} in {encoding} by {separator!r} with {options}: got {pairs[:]}"[:500])


def check_images(rng: Rng, folder: Path, tally: Tally) -> None:
    """Damage a list of images; each row of it is an image, a repetition that is counted, or rejected."""
    (folder / "a.jpg").write_bytes(b"no image")
    rows = [{"image": f"{n}.jpg", "image_id": f"{n}", "boxes": [[1, 2, 3, 4]]} for n in range(4)]
    name = rng.choice(("list.csv", "list.jsonl", "list.tsv", "LIST.CSV.gz"))
    if "jsonl" in name:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        data = delimited(rows, "\t" if "tsv" in name else rng.choice(",;")).encode()
    lines = data.splitlines(keepends=True)
    victim = rng.randrange(len(lines))
    if rng.random() < 0.3:
        data = damage_bytes(rng, data)
        rest = None
    else:
        place = rng.randrange(len(lines[victim]))
        lines[victim] = lines[victim][:place] + rng.choice(PIECES) + lines[victim][place + rng.choice((0, 1, 5)) :]
        lines[victim] = lines[victim].rstrip(b"\n") + b"\n"
        data = b"".join(lines)
        begun = 0 if "jsonl" in name else 1
        rest = {str(n) for n in range(4) if n != victim - begun} if victim >= begun else None
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    try:
        images = open_images(path)
    except MmptError as error:
        tally.refused += 1
        if name not in str(error):
            tally.faults.append(f"refused without naming {name}: {error}")
        return
    for position in range(len(images)):
        entry = images[position]
        tally.found += entry.image_id is not None
        try:
            entry.load()
        except MmptError as error:
            tally.rejected += 1
            if not str(error) or name.lower() not in entry.where.lower():
                tally.faults.append(f"{entry.where}: rejected without a reason")
    if rest is not None and (lost := rest - {images[position].image_id for position in range(len(images))}):
        tally.faults.append(f"rows of {lost} were lost")


class Readers:
    """A file of every layout, and what is checked of each kind."""

    def __init__(self, folder: Path) -> None:
        (folder / "layouts").mkdir()
        self._base = folder
        self.layouts = write_layouts(folder / "layouts")

    @property
    def names(self) -> list[str]:
        """Names of what can be fuzzed."""
        return [*self.layouts, "encodings", "image_lists"]

    def check(self, name: str, rng: Rng, tally: Tally) -> None:
        """Read one damaged file, and note every promise that is broken, other errors among them."""
        folder = self._base / "input"
        folder.mkdir()
        tally.inputs += 1
        try:
            with _noted_warnings() as warnings:
                if name == "encodings":
                    check_encoding(rng, folder, tally)
                elif name == "image_lists":
                    check_images(rng, folder, tally)
                else:
                    check_layout(self.layouts[name], rng, folder, tally, warnings)
        except Exception as error:
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            where = "" if frame is None else f" ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})"
            tally.faults.append(f"{type(error).__name__}: {error}{where}"[:400])
        finally:
            shutil.rmtree(folder)


@contextmanager
def _noted_warnings() -> Iterator[list[str]]:
    """Keep what is logged off the screen, and in a list."""
    messages: list[str] = []
    handler, logger = logging.Handler(), logging.getLogger("mmpt")
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def fuzz_annotations(inputs: int, seed: int = 0, only: str | None = None) -> Iterator[tuple[str, Tally]]:
    """Read so many damaged files of each layout, of tables in any encoding, and of lists of images."""
    with tempfile.TemporaryDirectory() as base:
        readers = Readers(Path(base))
        for name in readers.names if only is None else [only]:
            tally, start = Tally(), time.perf_counter()
            for number in range(inputs):
                before = len(tally.faults)
                readers.check(name, random.Random(f"{seed} {name} {number}"), tally)
                tally.faults[before:] = [f"{name} input {number}: {fault}" for fault in tally.faults[before:]]
            tally.seconds = time.perf_counter() - start
            yield name, tally
