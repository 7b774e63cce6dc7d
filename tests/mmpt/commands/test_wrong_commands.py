"""Wrong command lines: each is one line that names what is wrong, and no training begins."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Trainer
from typer.testing import CliRunner, Result

from mmpt.commands.main import app
from mmpt.configuration.errors import MmptError
from mmpt.recipe.recipe import load_recipe
from mmpt.recipe.values import read_yaml, write_yaml
from tests.factories.wrong_command_lines import FINETUNE, PRETRAIN, cases, fill_in, make_files

RUNNER = CliRunner()


class TrainingBegan(BaseException):
    """Training was reached; no error handler of the command line stops this."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_files(tmp_path_factory.mktemp("wrong"))


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*args: Any, **kwargs: Any) -> None:
        raise TrainingBegan

    monkeypatch.setattr(Trainer, "train", train)


def run(words: list[str]) -> Result:
    result = RUNNER.invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def is_one_error(result: Result) -> bool:
    """Whether the command printed one line, or what typer prints of an option that it does not know."""
    lines = result.stderr.strip().splitlines()
    if result.exit_code != 2:
        return False
    return (
        "Usage:" in result.stderr
        or "─ Error ─" in result.stderr
        or (len(lines) == 1 and lines[0].startswith("error: "))
    )


@pytest.mark.parametrize(("words", "named"), cases(), ids=lambda part: " ".join(part) if isinstance(part, list) else "")
def test_a_wrong_command_line_is_one_error_that_names_it(words: list[str], named: str, files: dict[str, str]) -> None:
    result = run(fill_in(words, files))
    assert is_one_error(result), result.output
    assert named.lower() in result.stderr.lower()


def test_the_recipes_that_the_catalogue_changes_reach_training(files: dict[str, str], tmp_path: Path) -> None:
    for command in ("pretrain", "finetune"):
        with pytest.raises(TrainingBegan):
            run([command, files[command], "--output_dir", str(tmp_path / command)])


KEYS = st.sampled_from(
    [
        *("model", "data", "masking", "training", "task", "generated", "scene_task", "nlvr", "shares", "text"),
        *("objective_weights", "mlm", "single", "dual", "hidden_size", "hidden_dropout_prob", "stream", "seed"),
        *("max_steps", "learning_rate", "eval_steps", "logging_steps", "per_device_train_batch_size", "probability"),
        *("dataloader_num_workers", "lr_scheduler_kwargs", "report_to", "optim_args", "name", "freeze", "folder"),
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "single", "dual", "no", "steps", "x=y", "vqa", "\x85", "{", "10"]),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def changed(recipe: dict[str, Any], changes: list[tuple[list[str], Any]]) -> dict[str, Any]:
    """Return a recipe with values put at paths of keys, over what is there."""
    for path, value in changes:
        target = recipe
        for key in path[:-1]:
            inner = target.get(key)
            if not isinstance(inner, dict):
                inner = target[key] = {}
            target = inner
        target[path[-1]] = value
    return recipe


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    finetunes=st.booleans(),
    changes=st.lists(st.tuples(st.lists(KEYS, min_size=1, max_size=3), VALUES), min_size=1, max_size=3),
)
def test_a_random_recipe_loads_as_it_says_or_is_one_error(
    files: dict[str, str], finetunes: bool, changes: list[tuple[list[str], Any]]
) -> None:
    raw = changed(read_yaml(FINETUNE if finetunes else PRETRAIN, "base"), changes)
    path = Path(files["folder"]).parent / "random.yaml"
    path.write_text(write_yaml(raw), encoding="utf-8")
    command = "finetune" if finetunes else "pretrain"
    try:
        recipe = load_recipe(path, command=command)  # type: ignore[arg-type]
    except MmptError as error:
        message = str(error)
    else:
        message = None
    if message is not None:
        assert message.strip()
        return
    resolved = recipe.resolved()
    for section, values in read_yaml(path.read_text(encoding="utf-8"), "again").items():
        for key, value in (values or {}).items():
            if key not in ("single", "dual", "output_dir") and not isinstance(value, dict | type(None)):
                assert resolved[section][key] == value, (section, key)


WORDS = st.one_of(
    st.sampled_from(
        ["--seed", "--max_steps", "--learning_rate=-1", "--stream", "dual", "3", "--task.name", "--", "-x"]
    ),
    st.sampled_from(
        ["--batch-size", "--out", "--pairs", "--store", "--debug=1", "--help=no", "--model", "null", ".nan"]
    ),
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), max_size=6),
)


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    command=st.sampled_from(
        ["pretrain", "finetune", "evaluate", "predict", "convert", "import", "info", "show", "pairs"]
    ),
    words=st.lists(WORDS, max_size=4),
)
def test_random_words_train_as_asked_or_are_one_error(files: dict[str, str], command: str, words: list[str]) -> None:
    first = [files[command]] if command in ("pretrain", "finetune") else [files["missing"]]
    try:
        result = run([command, *first, *words])
    except TrainingBegan:
        asked = [word for word in words if word != "--"]
        assert len(asked) % 2 == 0 or any("=" in word for word in asked)
        return
    assert is_one_error(result), (result.output, words)
