"""Reader of TSV files with base64 columns: bottom-up attention, LXMERT and VOLTA."""

import base64
from collections.abc import Iterator
from pathlib import Path

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.field_decoding import RESNET_WIDTH, float16_evidence, float64_is_plausible, text_of
from mmpt.processing.region_readers.file_source import FileSource, file_origin, found_or_rejected
from mmpt.processing.region_readers.item_decoding import regions_of_item
from mmpt.processing.regions import Regions
from mmpt.processing.store.source import Found, Rejected

MAX_LINE = 256 * 2**20  # bytes; a line of 100 regions with class probabilities has 2 MB

SAMPLED_LINES = 10  # lines inspected to recognise the dtype; more than one, because some may be damaged

_LXMERT = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
COLUMNS = {
    "bottom_up_tsv": ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features"),  # width before height
    "lxmert_tsv": _LXMERT,  # height before width
    "volta_tsv": (*_LXMERT, "cls_prob", "attrs", "classes"),
}
"""Format -> columns; the files have no header."""

EXTRACTORS = {
    "bottom_up_tsv": {"format": "bottom_up_tsv"},
    "lxmert_tsv": {"format": "lxmert_tsv", "label_space": "no_background"},
    "volta_tsv": {"format": "volta_tsv", "label_space": "background_first"},
}


def open_tsv(path: Path, file_format: str, dtype: str | None = None) -> FileSource:
    """Open a TSV file of one of the formats in COLUMNS; its positions are its lines.

    Args:
        dtype: dtype of the features; None recognises it by the first lines.

    Raises:
        ValueError: if the features are plausible in two dtypes.
    """
    note = "given by the caller"
    if dtype is None:
        dtype, note = _feature_dtype(path, file_format)

    def read(start: int) -> Iterator[Found | Rejected]:
        for number, line in tsv_lines(path, start):
            yield tsv_position(f"{path.name}, line {number}", line, file_format, dtype)

    extractor, origin = dict(EXTRACTORS[file_format]), file_origin(path, file_format)
    notes = (f"{len(COLUMNS[file_format])} columns",)
    if dtype is not None:
        origin["dtype"] = dtype  # absent in stores that were imported before dtypes were recognised
        notes = (*notes, f"{dtype} features ({note})")
    return FileSource(extractor, origin, read, notes=notes)


def _feature_dtype(path: Path, file_format: str) -> tuple[str | None, str]:
    """Return (dtype by the first lines of a file, reason); None means the default, float32."""
    columns = COLUMNS[file_format]
    samples: list[tuple[bytes, int]] = []
    for (_, line), _ in zip(tsv_lines(path, 0), range(SAMPLED_LINES), strict=False):
        fields = dict(zip(columns, (line or b"").split(b"\t"), strict=False))
        try:
            rows = int(fields["num_boxes"])
            data = base64.b64decode(fields["features"], validate=True)
            boxes = base64.b64decode(fields["boxes"], validate=True)
        except (KeyError, ValueError):
            continue
        if rows < 1 or len(boxes) != 16 * rows:  # `base64_features` handles float64 boxes
            continue
        samples.append((data, rows))
    # The first unambiguous line decides. float32 has priority, because the predecessors wrote float32.
    evidence = [float16_evidence(*sample) for sample in samples]
    for clear in ((True, False), (False, True)):
        if clear in evidence:
            return recognise_dtype(path.name, *samples[evidence.index(clear)])
    return recognise_dtype(path.name, *samples[0]) if samples else (None, "")


def recognise_dtype(name: str, data: bytes, rows: int) -> tuple[str | None, str]:
    """Return (dtype of raw features, reason); None means the default, float32.

    Raises:
        ValueError: if they are plausible in two dtypes.
    """
    single, half = float16_evidence(data, rows)
    widths = len(data) // (4 * rows), len(data) // (2 * rows)
    if half and single and RESNET_WIDTH not in widths:
        raise MmptValueError(
            f"{name}: its features can be read as float32 of dimension {widths[0]} or as float16 of dimension "
            f"{widths[1]}; give the right one as dtype (--dtype float32 or float16)"
        )
    if (half and not single) or (half and widths[1] == RESNET_WIDTH):
        return "float16", f"width {widths[1]}; as float32 their values are implausible"
    if not single and float64_is_plausible(data, rows):
        return "float64", f"width {widths[0] // 2}; as float32 their values are implausible"
    return None, ""


def tsv_lines(path: Path, start: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield (line number from 1, line) after skipping `start` lines; a line longer than MAX_LINE is None."""
    number = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE + 1):
            number += 1
            too_long = len(line) > MAX_LINE
            while too_long and not line.endswith(b"\n") and line:
                line = file.readline(2**20)
            if number > start:
                yield number, None if too_long else line.rstrip(b"\r\n")


def tsv_position(where: str, line: bytes | None, file_format: str, dtype: str | None = None) -> Found | Rejected:
    """Return the regions of a line, or the reason for rejecting it."""
    if line is None:
        return Rejected(where, f"the line has more than {MAX_LINE} bytes; is this a feature file?")
    fields = line.split(b"\t")
    try:
        image_id = text_of(fields[0], "the image id")
    except ValueError as error:
        return Rejected(where, str(error))
    return found_or_rejected(where, image_id, lambda: _regions(fields, image_id, file_format, dtype))


def _regions(fields: list[bytes], image_id: str, file_format: str, dtype: str | None) -> Regions:
    columns = COLUMNS[file_format]
    if len(fields) != len(columns):
        raise MmptValueError(
            f"the line has {len(fields)} columns, expected the {len(columns)} of {file_format}: {', '.join(columns)}"
        )
    return regions_of_item(dict(zip(columns, fields, strict=True)), image_id, dtype)
