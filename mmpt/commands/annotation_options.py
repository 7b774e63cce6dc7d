"""How a table or annotation file is read: the options that commands share, and what they and recipes mean."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from mmpt.configuration.errors import MmptValueError

READING: Mapping[str, tuple[Any, Any]] = {
    "columns": (
        Annotated[str | None, typer.Option(help="Columns of a table by our names: headline=text,photo=image_id.")],
        None,
    ),
    "label_names": (
        Annotated[str | None, typer.Option(help="Words of a table's labels in order: no,yes.")],
        None,
    ),
    "image_id_stem": (
        Annotated[bool, typer.Option("--image-id-stem", help="Take folders and ending off the ids of a table.")],
        False,
    ),
    "image_id_format": (
        Annotated[str | None, typer.Option(help="How the store's ids look: 'COCO_train2014_{:012d}', say.")],
        None,
    ),
    "annotations": (
        Annotated[str | None, typer.Option(help="File of the answers to the questions of VQA v2.")],
        None,
    ),
    "instances": (
        Annotated[str | None, typer.Option(help="File of the boxes of RefCOCO; instances.json beside it by default.")],
        None,
    ),
    "split": (
        Annotated[str | None, typer.Option(help="Only this split, of a file or folder that has several.")],
        None,
    ),
    "rationales": (
        Annotated[bool, typer.Option("--rationales", help="VCR: choose the reason for the right answer.")],
        False,
    ),
    "allow_pickle": (
        Annotated[bool, typer.Option("--allow-pickle", help="Read a pickled file, of which only plain values.")],
        False,
    ),
    "encoding": (
        Annotated[str | None, typer.Option(help="Of a text file: latin-1, gbk, utf-16, ...; UTF-8 by default.")],
        None,
    ),
    "separator": (
        Annotated[str | None, typer.Option(help="Of the columns of a CSV: ';', '|', tab, ...; the header tells.")],
        None,
    ),
    "skip_bad": (
        Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out, and note them in errors.jsonl beside.")],
        False,
    ),
}
"""Option -> its type and default. Each is a parameter of a format's function, or `strict` of `read_annotations`."""


def with_reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `READING`; its parameter `reading` takes their values, by name.

    An option that the command has itself is not added; one of the same name reaches both.
    """
    own = [each for each in inspect.signature(command).parameters.values() if each.name != "reading"]
    has = {each.name for each in own}
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in READING.items()
        if name not in has
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        reading = {name: values[name] for name in READING if name in values}
        command(reading=reading, **{name: value for name, value in values.items() if name in has})

    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *shared)}
    return run


def reader_options(reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `read_annotations` that are asked for.

    Args:
        reading: values of `READING` by name; columns and label_names may be a mapping and a list, as in a recipe.

    Raises:
        MmptValueError: if columns is neither a mapping nor a list of NAME=OURS.
    """
    options = {name: value for name, value in reading.items() if value is not None and value is not False}
    if isinstance(columns := options.get("columns"), str):
        options["columns"] = _renamed(columns)
    if isinstance(names := options.get("label_names"), str):
        options["label_names"] = [name.strip() for name in names.split(",")]
    if options.pop("skip_bad", False):
        options["strict"] = False
    return options


def _renamed(text: str) -> dict[str, str]:
    columns: dict[str, str] = {}
    for part in text.split(","):
        name, equals, ours = part.rpartition("=")
        if not equals or not name.strip() or not ours.strip():
            raise MmptValueError(
                f"got columns {text!r}, expected the file's names with ours: photo=image_id,title=text"
            )
        columns[name.strip()] = ours.strip()
    return columns
