# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Saved folders that include their code, so that a model or processor loads where mmpt is not installed.

Next to weights and configuration, without subfolders, are the module of the saved class and every mmpt module that it
imports. `auto_map` maps each Auto class of transformers to its class. A model that was loaded from such a folder is
saved with the same files.
"""

import os
import re
import sys
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptImportError

LICENCE = "# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.\n"
HOMES = ("mmpt", "transformers_modules")
"""Packages whose code is saved along: this one, and the one into which transformers loads code of saved folders."""

_IMPORT = re.compile(r"^( *)from (mmpt(?:\.\w+)*)?\.(\w+) import ", re.MULTILINE)


class SelfContained:
    """Make `save_pretrained` and `push_to_hub` write a self-contained folder; must be the first base class.

    A subclass defined outside this package is saved as transformers does, without code.
    """

    def hub_classes(self) -> dict[str, type]:
        """Return Auto class name -> the class that it loads from the folder."""
        raise NotImplementedError

    def set_auto_map(self, auto_map: dict[str, str]) -> None:
        """Store `auto_map` so that it is saved."""
        self.auto_map = auto_map

    def forget_auto_map(self) -> None:
        """Remove after saving what a freshly loaded object does not have."""

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Save as transformers does, and add the code of the class."""
        if travels(saved_class(self)):
            self.set_auto_map({name: _reference(cls) for name, cls in self.hub_classes().items()})
        saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        self.forget_auto_map()
        if kwargs.get("is_main_process", True):
            self._write_code(save_directory)
            open_to_umask(Path(save_directory))
        return saved

    def _upload_modified_files(self, working_dir: Any, repo_id: str, files_timestamps: Any, **kwargs: Any) -> Any:
        # transformers' save_pretrained(..., push_to_hub=True) uploads before it returns, so the code is written here.
        self._write_code(working_dir)
        # It would also upload links, hidden files and every folder changed meanwhile; none of these is part of a save.
        for name in os.listdir(working_dir):
            path = Path(working_dir, name)
            if name.startswith(".") or path.is_symlink() or (path.is_dir() and name in files_timestamps):
                files_timestamps = files_timestamps | {name: float("inf")}
        return super()._upload_modified_files(working_dir, repo_id, files_timestamps, **kwargs)  # type: ignore[misc]

    def _write_code(self, folder: Any) -> None:
        if travels(saved_class(self)):
            write_code(list(self.hub_classes().values()), Path(folder))


def saved_class(instance: Any) -> type:
    """Return the class that is saved, without the subclass that FSDP inserts in training."""
    return next(cls for cls in type(instance).__mro__ if not cls.__name__.startswith("FSDP"))


def open_to_umask(folder: Path) -> None:
    """Set the mode of weight files to what the umask gives; safetensors makes them readable for their owner only."""
    probe = folder / f".mode-{os.getpid()}"
    for file in folder.glob("*.safetensors"):
        if not file.is_symlink() and file.stat().st_mode & 0o777 == 0o600:
            probe.touch()
            file.chmod(probe.stat().st_mode & 0o777)
    probe.unlink(missing_ok=True)


def write_code(classes: list[type], folder: Path) -> None:
    """Write the modules of classes, and the mmpt modules that they import, into an existing folder.

    Imports among them become relative because the folder has no subfolders. A header gives licence and version.
    """
    waiting, done = [cls.__module__ for cls in classes], set()
    while waiting:
        module = waiting.pop()
        if module in done:
            continue
        done.add(module)
        package, _, name = module.rpartition(".")
        source = _source_of(module)
        for match in _IMPORT.finditer(source):
            waiting.append(f"{match[2]}.{match[3]}" if match[2] else resolve_name(f".{match[3]}", package))
        if module.startswith("mmpt."):
            source = _header() + _IMPORT.sub(r"\1from .\3 import ", source.removeprefix(LICENCE))
        (folder / f"{name}.py").write_text(source, encoding="utf-8", newline="\n")


def travels(cls: type) -> bool:
    """Return whether the code of a class is saved with it."""
    return cls.__module__.split(".")[0] in HOMES


def _reference(cls: type) -> str:
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def _source_of(module: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise MmptImportError(f"the source of {module} does not exist, expected it next to the class that is saved")
    return Path(spec.origin).read_text(encoding="utf-8")


def _header() -> str:
    return f"{LICENCE}# From mmpt {sys.modules['mmpt'].__version__}; written by save_pretrained.\n"
