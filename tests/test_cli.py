"""The command line: arguments, errors, start-up."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from mmpt.cli import app
from mmpt.recipe import Recipe

RUNNER = CliRunner()
RECIPE = "data: {generated: {train_scenes: 8, eval_scenes: 4}}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(RECIPE + f"training: {{output_dir: {tmp_path / 'run'}}}\n")
    return path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Stand in for the training itself, which has tests of its own; what it was called with is in the list."""
    called: list[Recipe] = []

    def pretrain(recipe: Recipe) -> dict[str, Any]:
        called.append(recipe)
        for name in ("curves.png", "metrics.json"):
            (recipe.output_dir / name).write_text("")
        return {}

    module = ModuleType("mmpt.pretraining")
    module.pretrain = pretrain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmpt.pretraining", module)
    return called


def test_pretrain_hands_over_the_overridden_recipe_and_names_its_files_last(recipe: Path, runs: list[Recipe]) -> None:
    result = RUNNER.invoke(app, ["pretrain", str(recipe), "--max_steps", "-1", "--masking.seed=4"])
    assert result.exit_code == 0, result.output
    assert runs[0].training["max_steps"] == -1
    assert runs[0].masking.seed == 4
    folder = recipe.parent / "run"
    assert result.stdout.splitlines()[-2:] == [str(folder / "curves.png"), str(folder / "metrics.json")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.yaml"], "error: recipe 'none.yaml' is not a file"),
        (["A", "--max_step", "3"], "error: unknown key --max_step; did you mean training.max_steps?"),
        (["--stream", "dual", "A"], "error: got '--stream' first, expected the recipe: mmpt pretrain RECIPE"),
        (["A", "--output_dir", "A/run"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    recipe: Path, runs: list[Recipe], words: list[str], message: str
) -> None:
    result = RUNNER.invoke(app, ["pretrain", *(word.replace("A", str(recipe)) for word in words)])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert runs == []


def test_debug_shows_where_an_error_was_raised(recipe: Path, runs: list[Recipe]) -> None:
    result = RUNNER.invoke(app, ["pretrain", str(recipe), "--max_step", "3", "--debug"])
    assert isinstance(result.exception, ValueError)
    assert runs == []


def _raise_in_a_library(recipe: Recipe) -> None:
    int("no number")


def _raise_in_training_arguments(recipe: Recipe) -> None:
    from transformers import TrainingArguments

    TrainingArguments(warmup_steps=-1)


def _raise_in_configuration(recipe: Recipe) -> None:
    from mmpt.configuration.configuration_mmpt import MmptSingleStreamConfig

    MmptSingleStreamConfig(hidden_size=10, num_attention_heads=3)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (_raise_in_training_arguments, "error: Got warmup_steps = -1"),
        (_raise_in_configuration, "error: hidden_size 10 cannot be split into num_attention_heads 3 equal heads"),
    ],
)
def test_bad_values_found_later_are_one_line_too(
    recipe: Path, runs: list[Recipe], monkeypatch: pytest.MonkeyPatch, failure: Any, message: str
) -> None:
    monkeypatch.setattr(sys.modules["mmpt.pretraining"], "pretrain", failure)
    result = RUNNER.invoke(app, ["pretrain", str(recipe)])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_fault_of_the_program_keeps_its_traceback(
    recipe: Path, runs: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["mmpt.pretraining"], "pretrain", _raise_in_a_library)
    result = RUNNER.invoke(app, ["pretrain", str(recipe)])
    assert isinstance(result.exception, ValueError)
    assert "error:" not in result.stderr


def test_env_names_the_versions() -> None:
    import torch

    result = RUNNER.invoke(app, ["env"])
    assert result.exit_code == 0
    assert f"torch: {torch.__version__}" in result.stdout
    assert f"python: {sys.version.split()[0]}" in result.stdout


def test_module_runs_as_a_script_and_help_names_the_commands() -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mmpt", "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    assert "pretrain" in done.stdout
    assert "env" in done.stdout
