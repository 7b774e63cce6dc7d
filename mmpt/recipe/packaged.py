"""The recipes that come with the package, by name: `tiny` is recipes/tiny.yaml."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmpt.configuration.errors import MmptFileNotFoundError

SUFFIX = ".yaml"
_NO_RECIPES = ("accelerate",)
"""Folders beside the recipes whose files are configurations of other tools."""


class PackagedRecipe(NamedTuple):
    """A recipe of the package.

    Args:
        command: pretrain or finetune.
        about: its first sentence.
    """

    name: str
    path: Path
    command: str
    about: str


def recipe_folder() -> Path:
    """Return the folder of the recipes, in the checkout or in the installed package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def packaged_recipes() -> Iterator[PackagedRecipe]:
    """Yield every recipe of the package, in the order of the names."""
    folder = recipe_folder()
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        place = path.relative_to(folder)
        if place.parts[0] not in _NO_RECIPES:
            text = path.read_text(encoding="utf-8")
            command = "finetune" if "\ntask:" in text else "pretrain"
            yield PackagedRecipe(place.with_suffix("").as_posix(), path, command, _about(text))


def find_recipe(name: str | Path) -> Path:
    """Return the file of a recipe: the one at this path, with or without .yaml, else the package's of this name.

    Raises:
        MmptFileNotFoundError: if there is neither.
    """
    given = Path(name)
    if given.is_file():
        return given
    if given.name and (file := given.with_name(f"{given.name}{SUFFIX}")).is_file():
        return file
    known = {recipe.name: recipe.path for recipe in packaged_recipes()}
    asked = given.as_posix().removeprefix("recipes/").removesuffix(SUFFIX)
    if asked in known:
        return known[asked]
    near = [each for each in known if each.endswith(f"/{asked}")] or difflib.get_close_matches(asked, known, n=1)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    raise MmptFileNotFoundError(
        f"recipe {str(name)!r} is not a file; give the path of a YAML file, or a name that `mmpt recipes` lists{meant}"
    )


def _about(text: str) -> str:
    """Return the first sentence of the comment at the top, behind the command lines that it begins with."""
    lines: list[str] = []
    for line in text.splitlines():
        words = line.removeprefix("#").strip()
        if not line.startswith("#") or (lines and not words):
            break
        if words and not words.startswith(("mmpt ", "python ", "--")):
            lines.append(words)
    comment = " ".join(lines)
    return re.split(r"(?<!et al)\. ", comment, maxsplit=1)[0].rstrip(".")
