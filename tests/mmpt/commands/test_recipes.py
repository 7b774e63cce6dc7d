"""Recipes by name, and the list of their keys."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmpt import __version__
from mmpt.commands.main import app
from mmpt.recipe.packaged import find_recipe, packaged_recipes
from mmpt.recipe.recipe import load_recipe

RUNNER = CliRunner()


def test_every_recipe_is_listed_with_its_command_and_runs_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = RUNNER.invoke(app, ["recipes"]).stdout.splitlines()
    found = list(packaged_recipes())
    assert [tuple(line.split()[1:3]) for line in lines] == [(each.command, each.name) for each in found]
    assert {("pretrain", "tiny"), ("finetune", "tasks/vqa")} < {(each.command, each.name) for each in found}
    for each in found:
        by_name = load_recipe(each.name, command=each.command)
        assert by_name == load_recipe(f"recipes/{each.name}.yaml", command=each.command)
        assert by_name.command.startswith(f"mmpt {each.command} {each.name}")
        assert len(each.about) > 20


def test_a_file_of_the_name_in_the_working_directory_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("tiny").is_absolute()
    (tmp_path / "tiny.yaml").write_text("data: {generated: {seed: 5}}")
    assert load_recipe("tiny").data.generated.seed == 5  # type: ignore[union-attr]
    (tmp_path / "tiny").mkdir()  # a folder is no recipe
    assert find_recipe("tiny") == Path("tiny.yaml")


@pytest.mark.parametrize(("asked", "meant"), [("tinny", "tiny"), ("vqa", "tasks/vqa")])
def test_an_unknown_name_says_what_may_be_meant(asked: str, meant: str) -> None:
    result = RUNNER.invoke(app, ["finetune", asked])
    assert result.exit_code == 2
    assert f"recipe '{asked}' is not a file; " in result.stderr
    assert result.stderr.rstrip().endswith(f"did you mean {meant}?")


def test_keys_are_listed_with_type_default_and_the_value_of_the_recipe() -> None:
    every = RUNNER.invoke(app, ["keys"]).stdout.splitlines()
    assert {line.split(".")[0] for line in every[:-1]} == {"model", "data", "masking", "task", "training"}
    assert "training.learning_rate: a number; default 5e-05" in every
    assert any(line.startswith("model.region_hidden_size: a whole number") for line in every)
    tiny = RUNNER.invoke(app, ["keys", "tiny"]).stdout.splitlines()
    assert "training.learning_rate: a number; default 5e-05; here 0.0026" in tiny
    assert not [line for line in tiny if line.startswith(("task.", "model.region_hidden_size"))]
    assert "--lr is --training.learning_rate" in tiny[-1]


def test_version() -> None:
    result = RUNNER.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"mmpt {__version__}\n")
