"""The check of a pair table before training: its join with a region store, its texts, and leakage into evaluation."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptTypeError, MmptValueError

if TYPE_CHECKING:
    from mmpt.processing.pairs.dataset import PairTable

SHOWN = 5  # ids that a report shows
PEEKED_IDS = 100  # of the store, to see what its ids look like
TRIED_IDS = 1000  # missing ids that are looked for in other forms
LONG_TEXT = 1000  # characters
IMAGE_COLUMNS = ("image_id", "second_image_id")
# What makes rows different pairs: a question about two images is not one about the first of them.
PAIR_COLUMNS = ("image_id", "second_image_id", "text", "text_pair")
NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>[0-9]+)(?P<after>[^0-9]*)", re.DOTALL)


@dataclass(frozen=True)
class TableReport:
    """What a pair table has.

    Args:
        images: different images that the table names, those of hard negatives too.
        missing: the ids of those that the store has not, each once, in the table's order.
        other_forms: missing ids that the store has in another form, with that form; looked for among the first of them.
        look: ids of the store, to be shown beside those that are missing.
        duplicate_rows: rows that say what a row before them said.
        first_duplicate: that row's number, None if there is none.
        blank_rows: numbers of the rows without text or image id.
        long_texts: texts of more than `LONG_TEXT` characters.
        longest_text: in characters.
        unusual_ids: ids that are not in Unicode's composed form (NFC).
        same_ids: pairs of ids in the table that differ in their Unicode form only.
    """

    rows: int
    images: int
    missing: list[str]
    other_forms: dict[str, str]
    look: list[str]
    duplicate_rows: int
    first_duplicate: int | None
    blank_rows: list[int]
    long_texts: int
    longest_text: int
    unusual_ids: list[str]
    same_ids: list[tuple[str, str]]

    @property
    def coverage(self) -> float:
        """Images with regions in percent, rounded down to a tenth: 100 means all."""
        return 1000 * (self.images - len(self.missing)) // max(self.images, 1) / 10

    @property
    def ok(self) -> bool:
        """Whether a `PairDataset` can be made of the table."""
        return self.rows > 0 and not self.missing and not self.blank_rows

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{_count(self.rows, 'row')}, {_count(self.images, 'image')}, coverage {self.coverage} %"
        if not self.rows:
            yield "error: no rows"
        if self.missing:
            yield f"error: {_count(len(self.missing), 'image')} not in the store: {_first(self.missing)}"
            yield from self._hints()
        if self.blank_rows:
            blank = _count(len(self.blank_rows), "row")
            yield f"error: {blank} without text or image id, the first is row {self.blank_rows[0]}"
        if self.duplicate_rows:
            duplicates = _count(self.duplicate_rows, "duplicate row")
            yield f"warning: {duplicates} of the same image and text, the first is row {self.first_duplicate}"
        if self.long_texts:
            long = _count(self.long_texts, "text")
            yield f"warning: {long} of more than {LONG_TEXT:,} characters, the longest of {self.longest_text:,}"
        if self.unusual_ids:
            unusual = _count(len(self.unusual_ids), "id")
            yield f"warning: {unusual} not in composed Unicode (NFC): {_first(self.unusual_ids, ascii)}"
        if self.same_ids:
            same = _first([f"{one!a} and {other!a}" for one, other in self.same_ids], str)
            yield f"warning: {_count(len(self.same_ids), 'pair')} of ids that differ in Unicode form only: {same}"

    def _hints(self) -> Iterator[str]:
        if self.other_forms:
            wanted, found = next(iter(self.other_forms.items()))
            advice = "read the annotations with an image_id_format that gives it, or a table with image_id_stem"
            if wanted.isascii() and found.isascii():
                forms = f"pairs like {wanted!r}, the store like {found!r}"
            else:
                forms = f"pairs like {wanted!a}, the store like {found!a}"
                if unicodedata.normalize("NFC", wanted) == unicodedata.normalize("NFC", found):
                    advice = "bring both into one Unicode form with unicodedata.normalize"
            tried = min(len(self.missing), TRIED_IDS)
            yield f"hint: {len(self.other_forms):,} of the first {tried:,} are there in another form, {forms}; {advice}"
        elif len(self.missing) == self.images and self.look:
            yield f"hint: no id is in the store, whose ids look like {_first(self.look)}; is it of the same corpus?"


@dataclass(frozen=True)
class PairReport:
    """What a pair table, and one to evaluate on, have beside a store.

    Args:
        store_images: images of the store.
        unused_images: those of them that no table names.
        shared_images: ids of images in both tables, in the order of the evaluation's.
        shared_rows: rows of the evaluation's table that are in the training's too.
        first_unused: the first ids of the unused images.
    """

    train: TableReport
    evaluation: TableReport | None
    store_images: int
    unused_images: int
    shared_images: list[str]
    shared_rows: int
    first_unused: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is missing: every image has regions, every row a text. Leakage alone is a warning."""
        return self.train.ok and (self.evaluation is None or self.evaluation.ok)

    def __str__(self) -> str:
        lines = [f"pairs: {line}" for line in str(self.train).splitlines()]
        if self.evaluation is not None:
            lines += [f"evaluation: {line}" for line in str(self.evaluation).splitlines()]
        if self.shared_images:
            lines.append(
                f"both: warning: {_count(len(self.shared_images), 'image')} in training and in evaluation: "
                f"{_first(self.shared_images)}"
            )
        if self.shared_rows:
            lines.append(f"both: warning: {_count(self.shared_rows, 'row')} of the evaluation also in training")
        unused = f": {_first(self.first_unused)}" if self.first_unused else ""
        lines.append(f"store: {_count(self.store_images, 'image')}, {self.unused_images:,} never named{unused}")
        return "\n".join(lines)


def check_pairs(pairs: "PairTable", store_ids: Collection[str], eval_pairs: "PairTable | None" = None) -> PairReport:
    """Check a pair table against a store, before anything is trained.

    Of the store only a few ids are read, up to the first that no table names; for the rest it is asked whether it has
    an id.

    Args:
        pairs: columns `text` and `image_id`, and what else a pair table has.
        store_ids: a `RegionStore`, or the ids of one.
        eval_pairs: the table to evaluate on.

    Raises:
        ValueError: if a table lacks a column, or one that should has no strings.
    """
    in_order = store_ids
    if isinstance(store_ids, (list, tuple)):
        store_ids = set(store_ids)
    look = list(islice(store_ids, PEEKED_IDS))
    train = _Columns.of(pairs)
    images = train.images()
    report = _check_table(train, images, store_ids, look)
    named = {image for image in images if image in store_ids}
    if eval_pairs is None:
        unused = _unnamed(in_order, named)
        return PairReport(report, None, len(store_ids), len(store_ids) - len(named), [], 0, unused)
    evaluation = _Columns.of(eval_pairs)
    eval_images = evaluation.images()
    own, others = (set(columns.images(negatives=False)) for columns in (train, evaluation))
    named |= {image for image in eval_images if image in store_ids}
    return PairReport(
        train=report,
        evaluation=_check_table(evaluation, eval_images, store_ids, look),
        store_images=len(store_ids),
        unused_images=len(store_ids) - len(named),
        shared_images=[image for image in eval_images if image in own and image in others],
        shared_rows=_shared_rows(train, evaluation, own & others),
        first_unused=_unnamed(in_order, named),
    )


def _unnamed(store_ids: Collection[str], named: Collection[str]) -> list[str]:
    """Return the first ids of a store that no table names, one more than a report shows."""
    return list(islice((image_id for image_id in store_ids if image_id not in named), SHOWN + 1))


@dataclass(frozen=True)
class Leakage:
    """What a table to evaluate on has in common with the one that is trained on.

    Args:
        images: ids that both have, in the order of the evaluation's.
        texts: different texts that both have.
        rows: rows of the evaluation's table that are in the training's too.
        eval_images: different images of the evaluation.
        eval_texts: different texts of the evaluation.
    """

    images: list[str]
    texts: int
    rows: int
    eval_images: int
    eval_texts: int

    def __str__(self) -> str:
        told = "warning: " if self.images else ""
        some = f" ({_first(self.images)})" if self.images else ""
        return (
            f"leakage: {told}{len(self.images):,} of {_count(self.eval_images, 'image')}{some} and {self.texts:,} of "
            f"{_count(self.eval_texts, 'text')} of the evaluation are in training too, {_count(self.rows, 'row')} whole"
        )


def find_leakage(pairs: "PairTable", eval_pairs: "PairTable") -> Leakage:
    """Return what the evaluation's table has in common with the training's.

    Args:
        pairs: columns `text` and `image_id`, and what else a pair table has.

    Raises:
        ValueError: if a table lacks a column, or one that should has no strings.
    """
    train, evaluation = _Columns.of(pairs), _Columns.of(eval_pairs)
    own, others = (columns.images(negatives=False) for columns in (train, evaluation))
    known = set(own)
    own_texts, other_texts = (set(columns.columns["text"].unique().to_pylist()) for columns in (train, evaluation))
    shared = [image for image in others if image in known]
    return Leakage(
        images=shared,
        texts=len(own_texts & other_texts),
        rows=_shared_rows(train, evaluation, set(shared)),
        eval_images=len(others),
        eval_texts=len(other_texts),
    )


class _Columns:
    """The columns of a table in Arrow's types, by name; text and image_id are among them."""

    def __init__(self, columns: Mapping[str, pa.ChunkedArray]) -> None:
        self.columns = columns

    @classmethod
    def of(cls, pairs: "PairTable") -> "_Columns":
        names = list(pairs) if isinstance(pairs, Mapping) else list(pairs.column_names)
        for name in ("text", "image_id"):
            if name not in names:
                listed = ", ".join(map(repr, names)) or "none"
                raise MmptValueError(f"the pair table has no column {name!r}, got {listed}; rename a column")
        kinds: dict[str, pa.DataType] = {name: pa.large_string() for name in PAIR_COLUMNS}
        kinds["hard_negative_image_ids"] = pa.large_list(pa.large_string())
        columns = {}
        for name, kind in kinds.items():
            if name not in names:
                continue
            try:
                if isinstance(pairs, Mapping):
                    columns[name] = pa.chunked_array([list(pairs[name])], kind)
                else:
                    table: Any = pairs.select_columns([name]).with_format("arrow")[:]
                    if pa.types.is_integer(table.column(name).type):
                        raise MmptTypeError("its values are whole numbers")  # Arrow would cast them
                    columns[name] = table.column(name).cast(kind)
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise MmptValueError(f"column {name!r} does not hold {kind} ({error}); turn it into that") from error
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise MmptValueError(f"the columns of the pair table have different lengths, {lengths}")
        return cls(columns)

    def __len__(self) -> int:
        return len(self.columns["text"])

    def images(self, negatives: bool = True) -> list[str]:
        """Return the different ids of images, without blank ones."""
        found = [self.columns[name].unique() for name in IMAGE_COLUMNS if name in self.columns]
        if negatives and "hard_negative_image_ids" in self.columns:
            found.append(self.columns["hard_negative_image_ids"].combine_chunks().flatten().unique())
        return [image for image in dict.fromkeys(each for ids in found for each in ids.to_pylist()) if image]

    def rows(self, chosen: NDArray[np.int64]) -> Iterator[tuple[str | None, ...]]:
        """Yield what makes each of the chosen rows a pair of its own."""
        taken = [
            self.columns[name].take(pa.array(chosen)).to_pylist() if name in self.columns else [None] * len(chosen)
            for name in PAIR_COLUMNS
        ]
        return zip(*taken, strict=True)

    def rows_of(self, images: set[str]) -> NDArray[np.int64]:
        """Return the numbers of the rows whose first image is one of these."""
        known = pc.SetLookupOptions(pa.array(sorted(images), pa.large_string()))
        return np.flatnonzero(pc.call_function("is_in", [self.columns["image_id"]], known).to_numpy())

    def duplicates(self) -> NDArray[np.int64]:
        """Return the numbers of the rows that say what a row before them says."""
        codes = np.zeros(len(self), dtype=np.int64)
        for name in PAIR_COLUMNS:
            if name in self.columns:
                column = self.columns[name].combine_chunks().dictionary_encode("encode")
                values = column.indices.to_numpy()
                # Renumbered after each column, so that the product stays below rows².
                codes = np.unique(codes * (len(column.dictionary) + 1) + values, return_inverse=True)[1]
        first = np.unique(codes, return_index=True)[1]
        return np.setdiff1d(np.arange(len(self)), first)


def _check_table(columns: _Columns, images: list[str], store_ids: Collection[str], look: list[str]) -> TableReport:
    missing = [image for image in images if image not in store_ids]
    blank = np.zeros(len(columns), dtype=bool)
    for name in ("text", "image_id"):
        trimmed = pc.call_function("utf8_trim_whitespace", [columns.columns[name].fill_null("")])
        blank |= pc.call_function("equal", [trimmed, ""]).to_numpy()
    lengths = pc.call_function("utf8_length", [columns.columns["text"].fill_null("")]).to_numpy()
    duplicates = columns.duplicates()
    composed: dict[str, str] = {}
    same = []
    unusual = []
    for image in images:
        if image.isascii():
            continue
        form = unicodedata.normalize("NFC", image)
        if form != image:
            unusual.append(image)
        if composed.setdefault(form, image) != image:
            same.append((composed[form], image))
    return TableReport(
        rows=len(columns),
        images=len(images),
        missing=missing,
        other_forms=_other_forms(missing[:TRIED_IDS], store_ids, look),
        look=look[:SHOWN],
        duplicate_rows=len(duplicates),
        first_duplicate=int(duplicates[0]) if len(duplicates) else None,
        blank_rows=np.flatnonzero(blank).tolist(),
        long_texts=int((lengths > LONG_TEXT).sum()),
        longest_text=int(lengths.max(initial=0)),
        unusual_ids=unusual,
        same_ids=same,
    )


def _other_forms(missing: list[str], store_ids: Collection[str], look: list[str]) -> dict[str, str]:
    """Return the ids that the store has in another form, with that form."""
    shapes: Counter[tuple[str, int, str]] = Counter()
    for known in look:
        found = NUMBERED.fullmatch(known)
        if found:
            width = len(found["number"]) if found["number"].startswith("0") else 0
            shapes[found["before"], width, found["after"]] += 1
    # What stands around the number in few ids names the image, too: train-5-0 is not train-1-0 in another form.
    common = [shape for shape, count in shapes.items() if 4 * count >= len(look)]
    others = {}
    for image in missing:
        for form in _forms(image, common):
            if form in store_ids:
                others[image] = form
                break
    return others if len(set(others.values())) == len(others) else {}


def _forms(image: str, shapes: Collection[tuple[str, int, str]]) -> Iterator[str]:
    """Yield what a store could call an image: composed otherwise, without folders or ending, numbered otherwise."""
    yield from (unicodedata.normalize(form, image) for form in ("NFC", "NFD"))
    yield image.strip()
    name = image.rpartition("/")[2]
    stem = name.rpartition(".")[0] or name
    yield from (name, stem)
    found = NUMBERED.fullmatch(stem)
    if found:
        number = found["number"].lstrip("0") or "0"
        yield from (found["number"], number)
        for before, width, after in shapes:
            yield f"{before}{number.zfill(width)}{after}"


def _shared_rows(train: _Columns, evaluation: _Columns, images: set[str]) -> int:
    """Return how many rows of the evaluation's table are in the training's; only rows of shared images can be."""
    rows = set(train.rows(train.rows_of(images)))
    return sum(row in rows for row in evaluation.rows(evaluation.rows_of(images)))


def _first(values: Sequence[str], show: Any = repr) -> str:
    return ", ".join(map(show, values[:SHOWN])) + (", ..." if len(values) > SHOWN else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
