"""Recipes of mmpt 0.1.0 in today's words."""

from typing import Any

from mmpt.configuration.errors import MmptValueError

TASK_NAMES = {"nlvr": "statements"}
"""Today's names of tasks by their earlier ones."""

LEFT_SOURCES = {"nlvr": "examples/nlvr"}
"""Sources of data that the package had, and where the repository has them now, as programs that write a store."""


def in_todays_words(raw: Any, source: str, saved: bool = False) -> None:
    """Rename the task of a recipe that was just read, and take out a source of data that the package has no more.

    Args:
        source: the file, for errors.
        saved: it is the recipe of a run that is done, which may have such a source.

    Raises:
        ValueError: if it asks for such a source.
    """
    task, data = (raw.get(name) if isinstance(raw, dict) else None for name in ("task", "data"))
    if isinstance(task, dict) and isinstance(task.get("name"), str):
        task["name"] = TASK_NAMES.get(task["name"], task["name"])
    if not isinstance(data, dict):
        return
    for name, place in LEFT_SOURCES.items():
        if data.pop(name, None) is not None and not saved:
            raise MmptValueError(
                f"{source}: data.{name} is a source of mmpt 0.1.0, expected data.store and data.pairs; the program in "
                f"{place} of the repository writes them"
            )
