"""Reader of TSV files with base64 columns: bottom-up attention, LXMERT and VOLTA."""

from collections.abc import Iterator
from pathlib import Path

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.field_decoding import text_of
from mmpt.processing.region_readers.file_source import FileSource, file_origin, found_or_rejected
from mmpt.processing.region_readers.item_decoding import regions_of_item
from mmpt.processing.region_source import Found, Rejected
from mmpt.processing.regions import Regions

MAX_LINE = 256 * 2**20  # bytes; a line of 100 regions with class probabilities has 2 MB

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


def open_tsv(path: Path, file_format: str) -> FileSource:
    """Open a TSV file of one of the formats in COLUMNS; its positions are its lines."""

    def read(start: int) -> Iterator[Found | Rejected]:
        for number, line in tsv_lines(path, start):
            yield tsv_position(f"{path.name}, line {number}", line, file_format)

    return FileSource(EXTRACTORS[file_format], file_origin(path, file_format), read)


def tsv_lines(path: Path, start: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number counted from 1, line) from the line after `start` on; None for a line longer than MAX_LINE."""
    number = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE + 1):
            number += 1
            too_long = len(line) > MAX_LINE
            while too_long and not line.endswith(b"\n") and line:
                line = file.readline(2**20)
            if number > start:
                yield number, None if too_long else line.rstrip(b"\r\n")


def tsv_position(where: str, line: bytes | None, file_format: str) -> Found | Rejected:
    """Return the regions of a line."""
    if line is None:
        return Rejected(where, f"the line has more than {MAX_LINE} bytes; is this a feature file?")
    fields = line.split(b"\t")
    try:
        image_id = text_of(fields[0], "the image id")
    except ValueError as error:
        return Rejected(where, str(error))
    return found_or_rejected(where, image_id, lambda: _regions(fields, image_id, file_format))


def _regions(fields: list[bytes], image_id: str, file_format: str) -> Regions:
    columns = COLUMNS[file_format]
    if len(fields) != len(columns):
        raise MmptValueError(
            f"the line has {len(fields)} columns, expected the {len(columns)} of {file_format}: {', '.join(columns)}"
        )
    return regions_of_item(dict(zip(columns, fields, strict=True)), image_id)
