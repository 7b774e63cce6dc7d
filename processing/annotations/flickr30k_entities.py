"""Flickr30k Entities (Plummer et al. 2015): captions whose phrases are bound to boxes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from datasets import Dataset

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.processing.annotations.bad_rows import BadRows
from mmpt.processing.annotations.caption_annotations import flickr_image_id
from mmpt.processing.annotations.pair_columns import Row, build_pairs
from mmpt.processing.text_files import read_lines

PHRASE = re.compile(r"\[/EN#(?P<entity>\d+)(?P<types>(?:/[^\s/\]]+)+) (?P<words>[^\[\]]+)\]")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_flickr30k_entities(
    folder: str | Path,
    *,
    split: str | None = None,
    image_id_format: str | None = None,
    errors: str | Path | None = None,
) -> Dataset:
    """Read the folder with `Sentences/*.txt` and `Annotations/*.xml`.

    Each of `phrases` has its `text`, where it `start`s and `end`s in the caption (characters, end excluded), its
    `entity_id`, which phrases of one entity share, its `types`, and the `boxes` of the entity, none if it has none.

    Args:
        split: read the images that `<split>.txt` of the folder lists; all images by default.
        image_id_format: makes the image's id of its number; by default the number.
        errors: the file that bad images are written to, which are then left out; by default one is an error.

    Returns:
        text (without markup), image_id, example_id (as in the token file of Flickr30k), phrases, and split if given.

    Raises:
        FileNotFoundError: if the folder has not these files.
    """
    folder = Path(folder)
    bad = BadRows(folder, errors)
    names = _images_of(folder, split, bad)
    columns = ("text", "image_id", "example_id", "phrases", *(["split"] if split else []))

    def to_rows(name: str) -> Iterator[Row]:
        boxes = _read_boxes(folder / "Annotations" / f"{name}.xml")
        for place, (_, line) in enumerate(read_lines(folder / "Sentences" / f"{name}.txt")):
            text, phrases = _read_sentence(line)
            yield {
                "text": text,
                "image_id": flickr_image_id(name, image_id_format),
                "example_id": f"{name}.jpg#{place}",
                "phrases": [phrase | {"boxes": boxes.get(phrase["entity_id"], [])} for phrase in phrases],
                **({"split": split} if split else {}),
            }

    return build_pairs(folder, "image", ((name, name) for name in names), to_rows, columns, bad)


def _images_of(folder: Path, split: str | None, bad: BadRows) -> list[str]:
    for kind in ("Sentences", "Annotations"):
        if not (folder / kind).is_dir():
            raise MmptFileNotFoundError(f"{str(folder)!r} has no folder {kind!r}, expected Sentences and Annotations")
    names = sorted(path.stem for path in (folder / "Sentences").glob("*.txt"))
    if split is not None:
        if not (folder / f"{split}.txt").is_file():
            raise MmptFileNotFoundError(
                f"{str(folder)!r} has no {split}.txt, expected the list of the images of the split"
            )
        names = [line.strip() for _, line in read_lines(folder / f"{split}.txt")]
    complete = []
    for name in names:
        files = (folder / "Sentences" / f"{name}.txt", folder / "Annotations" / f"{name}.xml")
        missing = next((file for file in files if not file.is_file()), None)
        if missing is None:
            complete.append(name)
        elif bad.strict:
            raise MmptFileNotFoundError(f"image {name} has no {str(missing)!r}; was the archive unpacked whole?")
        else:
            bad.add(f"image {name}", f"has no {str(missing)!r}", name)
    return complete


def _read_sentence(line: str) -> tuple[str, list[dict[str, Any]]]:
    """Return a caption without markup, and its phrases."""
    text, end = "", 0
    phrases = []
    for found in PHRASE.finditer(line):
        text += line[end : found.start()]
        start = len(text)
        text += found["words"]
        end = found.end()
        types = found["types"].strip("/").split("/")
        place = {"text": found["words"], "start": start, "end": len(text)}
        phrases.append(place | {"entity_id": found["entity"], "types": types})
    text += line[end:]
    if "[/EN#" in text:
        raise MmptValueError(f"caption {line!r:.80} has a phrase that is not [/EN#number/type words]")
    return text, phrases


def _read_boxes(path: Path) -> dict[str, list[list[float]]]:
    """Return the boxes of each entity, in pixels from 0."""
    # Nothing declared in the file may be expanded, so a file that declares anything is refused. A text that is
    # decoded already is parsed as UTF-8, whatever encoding it claims.
    source = path.read_text(encoding="utf-8")
    if "<!DOCTYPE" in source or "<!ENTITY" in source:
        raise MmptValueError(f"{path.name} declares a document type or entities, expected plain XML")
    try:
        root = ElementTree.fromstring(source)
    except ElementTree.ParseError as error:
        raise MmptValueError(f"{path.name} is no XML ({error})") from error
    boxes: dict[str, list[list[float]]] = {}
    for item in root.findall("object"):
        corners = item.find("bndbox")
        if corners is None:
            continue  # the whole scene, or not in the image
        box = [float(corners.findtext(corner, "")) - 1 for corner in CORNERS]  # the file counts pixels from 1
        for name in item.findall("name"):  # a box may belong to several entities
            boxes.setdefault(name.text or "", []).append(box)
    return boxes
