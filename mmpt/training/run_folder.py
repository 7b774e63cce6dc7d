"""The output folder of a run: one run at a time, none overwritten unasked, none lost before another has replaced it."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mmpt.configuration.errors import MmptFileExistsError, MmptRuntimeError, MmptValueError
from mmpt.recipe.changes import changes_of, listed_changes
from mmpt.recipe.earlier import in_todays_words
from mmpt.recipe.recipe import Recipe, check_output_dir
from mmpt.recipe.values import read_yaml
from mmpt.training.checkpoints import checkpoints_of, last_complete_checkpoint, processes_of, step_of, why_incomplete
from mmpt.training.run_files import clear_write_errors, replacing

logger = logging.getLogger(__name__)

LOCK, EARLIER, STAGING = "_run.lock", "_earlier_run", "_staging"
"""What is there only while a run is; names that begin with _ are never pushed."""

RECIPE, FACTS = "recipe.yaml", "run.json"
_RESULTS = (
    *("metrics.json", "curves.png", "README.md", "sample.json", "predictions.jsonl", "gallery.html"),
    *("config.json", "generation_config.json", "training_args.bin", "model.safetensors.index.json"),
    *("processor_config.json", "preprocessor_config.json", "chat_template.jinja", "trainer_state.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"),
    *("vocab.json", "merges.txt", "adapter_config.json", "adapter_model.safetensors"),
)
_ROOMS = ("configuration", "modeling_mmpt", "processing")


@dataclass
class RunFolder:
    """A locked output folder, as the first process of a run sees it.

    Args:
        checkpoint: what training resumes from; None is from the beginning.
        earlier: what is moved aside when training begins: all of an earlier run, or the checkpoints behind the one
            that is resumed.
    """

    path: Path
    checkpoint: Path | None = None
    earlier: list[Path] = field(default_factory=list)

    def begin(self, recipe: Recipe, facts: Mapping[str, Any]) -> None:
        """Move an earlier run aside, and write recipe and facts: all checks are done, training begins."""
        if self.earlier:
            aside = _free_name(self.path / EARLIER)
            with clear_write_errors(aside):
                aside.mkdir()
                for path in self.earlier:
                    path.rename(aside / path.name)
            logger.warning("what an earlier run left in %s is in %s until this run is done", self.path, aside)
        with replacing(self.path / RECIPE) as path:
            recipe.write(path)
        with replacing(self.path / FACTS) as path:
            path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def write_results(self, write: Callable[[Path], None]) -> None:
        """Let a function write the results into a folder beside the old ones, then put each into its place.

        Raises:
            MmptOSError: if the file system refuses; nothing half-written is left.
        """
        staging = self.path / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        try:
            with clear_write_errors(self.path):
                folder = staging / self.path.resolve().name  # the card's title is its folder's name
                folder.mkdir(parents=True)
                write(folder)
                for file in sorted(folder.rglob("*")):
                    if file.is_file():
                        place = self.path / file.relative_to(folder)
                        place.parent.mkdir(parents=True, exist_ok=True)
                        file.replace(place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def end(self) -> None:
        """Delete what the run that has just ended has replaced."""
        for aside in self.path.glob(f"{EARLIER}*"):
            shutil.rmtree(aside)


class LockedFolder:
    """The lock of an output folder, held by the first process of a run as long as the run takes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / LOCK)

    def __enter__(self) -> "LockedFolder":
        check_output_dir(self.path)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise MmptRuntimeError(
                f"{self.path} is being written by another run, expected one run a folder; wait for it, or choose "
                "another folder with --output_dir"
            ) from None
        except (OSError, NotImplementedError) as error:
            logger.warning("%s cannot be locked (%s): take care that no other run writes to it", self.path, error)
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock.is_locked:
            if os.name == "posix":
                (self.path / LOCK).unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
            self._lock.release()


def open_folder(recipe: Recipe) -> RunFolder:
    """Decide what a locked folder's run begins with; nothing is changed.

    Raises:
        MmptFileExistsError: if the folder holds a run, or files that this one would overwrite.
        MmptValueError: if the checkpoint to resume from is damaged, or flags contradict each other or have no effect.
    """
    path, resume = recipe.output_dir, recipe.training.get("resume_from_checkpoint")
    resume = "last" if resume in ("true", "True", True) else resume
    if resume and recipe.overwrite:
        raise MmptValueError("--overwrite and --resume_from_checkpoint are both given; a run is replaced, or resumed")
    if recipe.allow_changes and not resume:
        raise MmptValueError("--allow_changes has no effect without --resume_from_checkpoint; leave it out")
    found = run_files(path)
    results = [each for each in found if each.name in ("metrics.json", "config.json")]
    if resume and resume != "last":
        return _resume(recipe, found, Path(resume))
    if resume:
        last = last_complete_checkpoint(path)
        if last is not None:
            return _resume(recipe, found, last)
        if results:
            raise MmptFileExistsError(
                f"{path} holds {results[0].name} of a run that saved no checkpoint to resume from; {_ways()}"
            )
        logger.warning("there is no complete checkpoint in %s yet: starting from step 0", path)
        return RunFolder(path, earlier=found)
    if not found:
        return RunFolder(path)
    is_run = any(each.name in (RECIPE, FACTS, "log.jsonl") or step_of(each) is not None for each in found)
    if not is_run:
        raise MmptFileExistsError(
            f"{path} holds {found[0].name}, which no run wrote and this one would overwrite; choose another folder "
            "with --output_dir"
        )
    if recipe.overwrite:
        _check_not_read(recipe)
        return RunFolder(path, earlier=found)
    state = "a finished run" if results else "a run that did not finish"
    raise MmptFileExistsError(f"{path} holds {state}; {_ways()}")


def run_files(folder: Path) -> list[Path]:
    """Return what a run writes of what lies in a folder; everything else there is someone else's."""
    package = Path(__file__).resolve().parents[1]
    rooms = [root / room for room in _ROOMS for root in (package, package.parent) if (root / room).is_dir()]
    code = {path.name for room in rooms for path in room.glob("*.py")} - {"__init__.py"}
    names = {RECIPE, FACTS, "log.jsonl", *_RESULTS, *code}
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name in names or (step_of(path) is not None and path.is_dir()) or path.match("model*.safetensors")
    ]


def check_changes(recipe: Recipe, checkpoint: Path, facts: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other settings than it began with, unless the recipe allows changes.

    Args:
        facts: of the new run, what `run.json` says of the old one.

    Raises:
        MmptValueError: listing what differs, old and new.
    """
    folder = checkpoint.parent
    before = _read(folder / RECIPE, read_yaml)
    in_todays_words(before, str(folder / RECIPE), saved=True)
    changes = changes_of(before, recipe)
    old = _read(folder / FACTS, lambda text, source: json.loads(text)) or {"processes": processes_of(checkpoint)}
    for name in ("processes", "training_rows", "evaluation_rows"):
        if name in old and old[name] != facts.get(name):
            changes[name] = (old[name], facts.get(name))
    if not changes:
        return
    if not recipe.allow_changes:
        raise MmptValueError(
            f"cannot resume {checkpoint} with other settings than it was trained with: {listed_changes(changes)}; "
            "take the old ones, train in another folder with --output_dir, or resume all the same with --allow_changes"
        )
    logger.warning("resuming %s with other settings: %s", checkpoint, listed_changes(changes))


def _resume(recipe: Recipe, found: list[Path], checkpoint: Path) -> RunFolder:
    reason = why_incomplete(checkpoint)
    if reason is not None:
        raise MmptValueError(f"cannot resume: {reason}; resume from an older checkpoint")
    step = step_of(checkpoint)
    if checkpoint.resolve().parent != recipe.output_dir.resolve():
        if found:
            raise MmptFileExistsError(
                f"{checkpoint} is of another folder, and {recipe.output_dir} holds a run; {_ways()}"
            )
        return RunFolder(recipe.output_dir, checkpoint)
    later = [path for path in checkpoints_of(recipe.output_dir) if step is not None and (step_of(path) or 0) > step]
    return RunFolder(recipe.output_dir, checkpoint, later)


def _check_not_read(recipe: Recipe) -> None:
    """Refuse to overwrite a folder that the run reads from."""
    folder, data = recipe.output_dir.resolve(), recipe.data
    read = {
        "model.from_pretrained": recipe.model.from_pretrained,
        "data.tokenizer": data.tokenizer,
        "data.store": data.store,
        "data.pairs": data.pairs,
        "data.eval_pairs": data.eval_pairs,
    }
    for name, value in read.items():
        if (
            value is not None
            and Path(value).exists()
            and folder in (Path(value).resolve(), *Path(value).resolve().parents)
        ):
            raise MmptValueError(
                f"--overwrite would replace {recipe.output_dir}, which {name} reads; choose another folder with "
                "--output_dir"
            )


def _ways() -> str:
    return (
        "resume it with --resume_from_checkpoint last, choose another folder with --output_dir, or replace it with "
        "--overwrite"
    )


def _free_name(path: Path) -> Path:
    number = 1
    while (candidate := path.with_name(f"{path.name}{'' if number == 1 else f'_{number}'}")).exists():
        number += 1
    return candidate


def _read(path: Path, parse: Callable[[str, str], Any]) -> Any:
    """Return what a file of the folder says; None where it is not there or not readable, with a warning."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read (%s): it is not compared with this run", path, error)
        return None
