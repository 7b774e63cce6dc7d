"""Studies: many runs of recipes, each with other keys, and what they reached in one JSON that grows as they end."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from datasets import disable_progress_bars

from mmpt.recipe.keys import split_overrides
from mmpt.recipe.recipe import Recipe, load_recipe
from mmpt.training.data_sources import evaluation_table
from mmpt.training.finetuning import finetune


class Study:
    """Runs that are done once: a study that was stopped goes on where it was.

    Args:
        out: the JSON, `{"runs": {name: {"keys": ..., "measures": ...}}}`. Beside it stands `runs/`, where the runs
            write; what they leave is deleted when it was read.
        overrides: words of a command line, `--max_steps 2`, that change a key of every recipe.
    """

    def __init__(self, out: Path, overrides: Sequence[str] = ()) -> None:
        self.out, self.folder = out, out.parent / "runs"
        self._overrides = dict(split_overrides(overrides))
        self.runs: dict[str, Any] = json.loads(out.read_text())["runs"] if out.is_file() else {}
        self._gold: dict[str, list[str]] = {}
        transformers.logging.set_verbosity_error()
        disable_progress_bars()

    def finetune(
        self, name: str, recipe: str | Path, keys: Mapping[str, Any], keep: Path | None = None
    ) -> dict[str, Any]:
        """Return the measures of a run: those of the evaluation, the seconds, and the share right of each decision.

        Args:
            keep: folder for the model, if it is needed later.
        """
        keys = {**keys, **self._overrides}
        known = self.runs.get(name)
        if known is not None and known["keys"] == keys and (keep is None or keep.is_dir()):
            return known["measures"]
        folder = self.folder / name.replace(" ", "-") if keep is None else keep
        words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
        words += ["--output_dir", str(folder), "--disable_tqdm", "true", "--overwrite"]
        loaded = load_recipe(recipe, words, command="finetune")
        metrics = finetune(loaded)
        measures = dict(metrics["evaluation"]) | self._decisions(loaded)
        measures["train_seconds"] = metrics["train"]["train_runtime"]
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
        self.runs[name] = {"keys": keys, "measures": measures}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps({"runs": self.runs}, indent=2) + "\n")
        shown = {
            key: round(value, 3) for key, value in measures.items() if key.endswith(("accuracy", "at_1", "seconds"))
        }
        print(name, shown, flush=True)
        return measures

    def _decisions(self, recipe: Recipe) -> dict[str, float]:
        """Return the accuracy and the mean weight of what each modality says, where there is late fusion."""
        lines = (recipe.output_dir / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        said = [json.loads(line).get("decisions") for line in lines]
        if said[0] is None:
            return {}
        assert recipe.task is not None
        name = recipe.task.name
        if name not in self._gold:
            table: Any = evaluation_table(recipe.data, name).dataset.table
            classes = "label_name" in table.column_names
            self._gold[name] = list(table["label_name"]) if classes else [one for one, *_ in table["answers"]]
        measures = {}
        for who in said[0]:
            hits = [row[who]["prediction"] == gold for row, gold in zip(said, self._gold[name], strict=True)]
            measures[f"{who}_accuracy"] = sum(hits) / len(hits)
            measures[f"{who}_weight"] = sum(row[who]["weight"] for row in said) / len(said)
        return measures


def spread(values: list[float]) -> tuple[float, float]:
    """Return the mean of some runs and their standard deviation (of the sample; 0 of one)."""
    mean = sum(values) / len(values)
    return mean, (sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)) ** 0.5
