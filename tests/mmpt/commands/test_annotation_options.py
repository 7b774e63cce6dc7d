"""Everything that the library's functions take has an option of their command, or a key of a recipe."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import typer

from mmpt.commands.annotation_options import READING, reader_options
from mmpt.commands.main import app
from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.annotation_formats import ANNOTATION_FORMATS
from mmpt.processing.pairs.checks import check_pairs
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from mmpt.processing.region_readers.open_features import open_features
from mmpt.processing.store.repair import repair_store
from mmpt.recipe.recipe import recipe_schema
from mmpt.recipe.sections import DataSection

COMMANDS: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def options_of(command: str) -> set[str]:
    """The names of a command's options and arguments, as they are written."""
    found = set()
    for each in COMMANDS[command].params:
        found |= {each.name, *(word.lstrip("-").replace("-", "_") for word in each.opts)}
    return found


def parameters_of(*functions: Callable) -> set[str]:
    """The names of the optional parameters of functions."""
    return {
        name
        for function in functions
        for name, each in inspect.signature(function).parameters.items()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    }


# Where bad rows are written follows from the command: beside the table. The names of classes come from a file.
OF_READERS = parameters_of(*ANNOTATION_FORMATS.values()) - {"errors"}


@pytest.mark.parametrize("command", ["pairs", "validate", "evaluate", "predict"])
def test_a_command_that_reads_annotations_takes_every_option_of_their_readers(command: str) -> None:
    assert {*OF_READERS, "skip_bad", "format"} <= options_of(command)


def test_the_shared_options_are_those_of_the_readers() -> None:
    assert set(READING) - {"skip_bad"} == OF_READERS


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_recipe_has_a_key_for_every_option_of_the_readers(command: str) -> None:
    keys = recipe_schema("single", command)["data"]
    assert {*READING, "format", "eval_annotations", "eval_split"} <= set(keys)


@pytest.mark.parametrize(
    ("command", "functions", "renamed"),
    [
        ("import", (open_features,), {"image_sizes_path": "image_sizes"}),
        ("extract", (RegionExtractor.from_pretrained,), {}),
    ],
)
def test_a_command_takes_what_its_function_takes(
    command: str, functions: tuple[Callable, ...], renamed: dict[str, str]
) -> None:
    wanted = {renamed.get(name, name) for name in parameters_of(*functions)}
    assert wanted - options_of(command) == set()


def test_validate_takes_what_its_checks_take() -> None:
    checked = {*inspect.signature(check_pairs).parameters, *inspect.signature(repair_store).parameters}
    assert checked - {"store_ids", "path"} <= options_of("validate")


def test_options_are_read_from_words_and_from_values() -> None:
    words = {"columns": "图片 = image_id, a=b=text", "label_names": "no, yes", "skip_bad": True, "split": None}
    expected = {"columns": {"图片": "image_id", "a=b": "text"}, "label_names": ["no", "yes"], "strict": False}
    assert reader_options(words) == expected
    values = {"columns": {"图片": "image_id"}, "label_names": ["a,b", "c"], "image_id_stem": False}
    assert reader_options(values) == {"columns": {"图片": "image_id"}, "label_names": ["a,b", "c"]}
    with pytest.raises(MmptValueError, match="got columns 'image_id', expected the file's names with ours"):
        reader_options({"columns": "image_id"})


def test_the_section_passes_on_what_is_asked_for() -> None:
    data = DataSection(columns="a=text", annotations="a.json", eval_annotations="b.json", split="train")
    assert data.reading() == {"format": None, "columns": {"a": "text"}, "annotations": "a.json", "split": "train"}
    assert data.reading(evaluation=True) == {"format": None, "columns": {"a": "text"}, "annotations": "b.json"}
