"""The command line: arguments, errors, start-up."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import ones
from transformers import LxmertConfig, LxmertForPreTraining
from typer.testing import CliRunner

from mmpt.commands.main import app
from mmpt.recipe.recipe import Recipe
from mmpt.training import process_settings
from tests.factories.paths import GOLDEN, ROOT

VISUALBERT = GOLDEN / "visualbert_original"
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

    module = ModuleType("mmpt.training.pretraining")
    module.pretrain = pretrain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmpt.training.pretraining", module)
    return called


def test_pretrain_hands_over_the_overridden_recipe_and_names_its_files_last(recipe: Path, runs: list[Recipe]) -> None:
    result = RUNNER.invoke(app, ["pretrain", str(recipe), "--max_steps", "-1", "--masking.seed=4"])
    assert result.exit_code == 0, result.output
    assert runs[0].training["max_steps"] == -1
    assert runs[0].masking.seed == 4
    folder = recipe.parent / "run"
    assert result.stdout.splitlines()[-2:] == [str(folder / "curves.png"), str(folder / "metrics.json")]


@pytest.mark.parametrize(
    ("command", "module"), [("pretrain", "mmpt.training.pretraining"), ("finetune", "mmpt.training.finetuning")]
)
def test_a_training_command_settles_its_process_first(
    command: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    stand_in = ModuleType(module)
    setattr(stand_in, command, lambda recipe: order.append("trained"))
    monkeypatch.setitem(sys.modules, module, stand_in)
    monkeypatch.setattr(process_settings, "keep_freed_memory", lambda: order.append("settled"))
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    recipe = {"pretrain": "recipes/tiny.yaml", "finetune": "recipes/tasks/vqa.yaml"}[command]
    words = [command, str(ROOT / recipe), "--output_dir", str(tmp_path / "run")]
    result = RUNNER.invoke(app, words)
    assert result.exit_code == 0, result.output
    assert order == ["settled", "trained"]
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


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
        (_raise_in_training_arguments, "warmup_steps"),
        (_raise_in_configuration, "error: hidden_size 10 cannot be split into num_attention_heads 3 equal heads"),
    ],
)
def test_bad_values_found_later_are_one_line_too(
    recipe: Path, runs: list[Recipe], monkeypatch: pytest.MonkeyPatch, failure: Any, message: str
) -> None:
    monkeypatch.setattr(sys.modules["mmpt.training.pretraining"], "pretrain", failure)
    result = RUNNER.invoke(app, ["pretrain", str(recipe)])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_fault_of_the_program_keeps_its_traceback(
    recipe: Path, runs: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["mmpt.training.pretraining"], "pretrain", _raise_in_a_library)
    result = RUNNER.invoke(app, ["pretrain", str(recipe)])
    assert isinstance(result.exception, ValueError)
    assert "error:" not in result.stderr


def test_env_names_the_versions() -> None:
    result = RUNNER.invoke(app, ["env"])
    assert result.exit_code == 0
    assert f"torch: {metadata.version('torch')}" in result.stdout  # torch.__version__ may name its build too
    assert f"python: {sys.version.split()[0]}" in result.stdout


def test_module_runs_as_a_script_and_help_names_the_commands() -> None:
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-m", "mmpt", "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    assert "pretrain" in done.stdout
    assert "env" in done.stdout


@pytest.fixture
def predecessor(tmp_path: Path) -> Path:
    """The original VisualBERT's weights and configuration in a folder."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(json.loads((VISUALBERT / "case.json").read_text())["config"]))
    (folder / "model.safetensors").write_bytes((VISUALBERT / "weights.safetensors").read_bytes())
    return folder


def test_convert_writes_a_folder_and_says_what_it_assumed(predecessor: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    result = RUNNER.invoke(app, ["convert", str(predecessor), str(out), "--set", "region_token_type_id=1"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "theirs (visual_bert): " in lines[0]
    assert " mapped, 1 tied" in lines[0]
    assert lines[1].startswith("assumed: no tokenizer was found next to the weights")
    assert lines[-1] == str(out)
    assert {"config.json", "model.safetensors", "conversion.json"} <= {file.name for file in out.iterdir()}
    assert json.loads((out / "config.json").read_text())["region_token_type_id"] == 1


def test_convert_dry_run_prints_every_key_and_writes_nothing(predecessor: Path, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["convert", str(predecessor), "--dry-run", "--from", "visual_bert"])
    assert result.exit_code == 0, result.output
    keys = {line.split()[1] for line in result.stdout.splitlines()[1:]}
    assert {"bert.embeddings.projection.weight", "cls.predictions.decoder.weight"} <= keys
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_convert_refuses_what_it_cannot_explain(predecessor: Path, tmp_path: Path) -> None:
    file = predecessor / "model.safetensors"
    weights = load_file(file)
    prefix = "bert." if all(key.startswith("bert.") for key in weights) else ""
    save_file(weights | {f"{prefix}mystery.weight": ones(1)}, file)
    words = ["convert", str(predecessor), str(tmp_path / "ours")]
    for options, message in (
        ([], "error: " + str(predecessor) + " has 1 keys that are unknown for visual_bert: mystery.weight."),
        (
            ["--allow-unknown", "mystery.*", "--set", "hidden_sise=3"],
            "no field 'hidden_sise'; did you mean 'hidden_size'?",
        ),
        (["--set", "hidden_size"], "error: got --set 'hidden_size', expected FIELD=VALUE"),
        (["--from", "vl-bert"], "error: unknown family 'vl-bert', expected auto, bert, uniter"),
        (["--to", "bart"], "error: got target 'bart', expected one of lxmert, visual_bert"),
        (["--to", "lxmert"], "error: " + str(predecessor) + " is not a model of this package"),
        (["--to", "lxmert", "--dry-run"], "error: --to takes SOURCE and OUT alone"),
    ):
        result = RUNNER.invoke(app, words + options)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert not (tmp_path / "ours").exists()
    result = RUNNER.invoke(app, ["convert", str(predecessor)])
    assert (result.exit_code, "got no OUT, expected a new folder" in result.stderr) == (2, True)
    assert RUNNER.invoke(app, [*words, "--allow-unknown", "mystery.*"]).exit_code == 0


def test_convert_writes_back_for_transformers(tmp_path: Path) -> None:
    config = LxmertConfig(
        vocab_size=60,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        l_layers=1,
        x_layers=1,
        r_layers=1,
        visual_feat_dim=8,
        num_object_labels=5,
        num_attr_labels=4,
        num_qa_labels=3,
    )
    LxmertForPreTraining(config).save_pretrained(tmp_path / "theirs")
    for words in (("theirs", "ours"), ("ours", "back", "--to", "lxmert")):
        paths = [str(tmp_path / word) if not word.startswith("--") and word != "lxmert" else word for word in words]
        result = RUNNER.invoke(app, ["convert", *paths])
        assert result.exit_code == 0, result.output
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(tensor.equal(after[key]) for key, tensor in before.items())
