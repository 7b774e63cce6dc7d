"""Recipes: reading, overriding, checking, writing."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.processing.pretraining.collator import MmptDataCollator
from mmpt.recipe.recipe import Recipe, build_config, check_output_dir, load_recipe
from mmpt.recipe.sections import PRESETS, MaskingSection, ModelSection
from tests.factories.paths import ROOT

RECIPES = [
    path
    for folder in ("recipes", "examples")
    for path in sorted((ROOT / folder).rglob("*.yaml"))
    if "\nmasking:" in path.read_text(encoding="utf-8")
]
GENERATED = "data: {generated: {train_scenes: 8, eval_scenes: 4}}\n"
BOTH_STREAMS = (
    GENERATED
    + """
model:
  hidden_size: 32
  num_hidden_layers: 2
  num_attention_heads: 2
  objective_weights: {mlm: 1.0, itm: 0.5}
  dual: {region_num_hidden_layers: 1, text_co_attention_layers: [1], region_co_attention_layers: [0]}
"""
)


def load(folder: Path, text: str, *overrides: str) -> Recipe:
    path = folder / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides)


def refuse(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the message
        load(folder, text, *overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("stream", ["single", "dual"])
def test_shipped_recipe_describes_a_model_of_either_stream(path: Path, stream: str) -> None:
    recipe = load_recipe(path, ["--stream", stream])
    config = build_config(recipe.model, {"vocab_size": 60, "region_feature_dim": 8, "num_region_classes": 24})
    assert config.model_type == f"mmpt_{stream}_stream"
    assert config.vocab_size == 60
    assert path.read_text().startswith(f"# mmpt pretrain {path.relative_to(ROOT)}")


def test_there_are_shipped_recipes() -> None:
    assert {"tiny", "captions", "pretrain"} <= {path.stem for path in RECIPES}


def test_defaults_fill_what_a_recipe_leaves_out(tmp_path: Path) -> None:
    recipe = load(tmp_path, GENERATED)
    assert recipe.model == ModelSection(stream="single", config={})
    assert recipe.masking == MaskingSection()
    assert recipe.data.generated is not None
    assert (recipe.data.generated.train_scenes, recipe.data.generated.seed) == (8, 0)
    assert recipe.training == {"output_dir": "runs/a"}
    assert recipe.output_dir == Path("runs/a")


def test_masking_section_agrees_with_the_collator() -> None:
    collator = {
        item.name: item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        for item in dataclasses.fields(MmptDataCollator)
    }
    for name, value in dataclasses.asdict(MaskingSection()).items():
        assert collator[name] == value, name


def test_overrides_come_dotted_undotted_and_with_an_equals_sign(tmp_path: Path) -> None:
    words = ["--max_steps", "7", "--training.seed=3", "--masking.probability", "0.3", "--learning_rate=1e-4"]
    recipe = load(tmp_path, BOTH_STREAMS, *words, "--mlm", "0", "--train_scenes", "9", "--run_name", "007")
    assert recipe.training["max_steps"] == 7
    assert recipe.training["seed"] == 3
    assert recipe.training["learning_rate"] == 1e-4
    assert recipe.training["run_name"] == "007"
    assert recipe.masking.probability == 0.3
    assert recipe.model.config["objective_weights"] == {"mlm": 0, "itm": 0.5}
    assert recipe.data.generated is not None
    assert recipe.data.generated.train_scenes == 9


def test_last_of_two_overrides_holds(tmp_path: Path) -> None:
    assert load(tmp_path, GENERATED, "--max_steps", "1", "--max_steps", "2").training["max_steps"] == 2


def test_negative_number_is_a_value_not_a_key(tmp_path: Path) -> None:
    assert load(tmp_path, GENERATED, "--max_steps", "-1").training["max_steps"] == -1


def test_override_of_one_share_keeps_the_others(tmp_path: Path) -> None:
    assert load(tmp_path, GENERATED, "--shares.itm", "0").masking.shares == {"text": 1.0, "regions": 1.0, "itm": 0}


def test_override_of_a_whole_mapping_replaces_it(tmp_path: Path) -> None:
    recipe = load(tmp_path, BOTH_STREAMS, "--objective_weights", "{mrfr: 2.0}")
    assert recipe.model.config["objective_weights"] == {"mrfr": 2.0}


def test_override_means_the_source_of_data_that_the_recipe_has(tmp_path: Path) -> None:
    generated = load(tmp_path, GENERATED, "--statements", "1").data.generated
    assert generated is not None
    assert generated.statements == 1.0


def test_override_switches_the_source_of_data(tmp_path: Path) -> None:
    recipe = load(tmp_path, GENERATED, "--generated", "null", "--store", "s", "--pairs", "p.csv")
    assert recipe.data.generated is None
    assert (recipe.data.store, recipe.data.pairs) == ("s", "p.csv")


def test_generated_scenes_take_their_regions_from_a_store(tmp_path: Path) -> None:
    recipe = load(tmp_path, GENERATED, "--region_store", "s")
    assert recipe.data.generated is not None
    assert (recipe.data.generated.region_store, recipe.data.store) == ("s", None)


def test_stream_takes_its_own_keys_and_leaves_the_others(tmp_path: Path) -> None:
    single, dual = load(tmp_path, BOTH_STREAMS), load(tmp_path, BOTH_STREAMS, "--stream", "dual")
    assert isinstance(build_config(single.model, {}), MmptSingleStreamConfig)
    assert "region_num_hidden_layers" not in single.model.config
    config = build_config(dual.model, {})
    assert isinstance(config, MmptDualStreamConfig)
    assert config.region_num_hidden_layers == 1
    assert load(
        tmp_path, BOTH_STREAMS, "--stream", "dual", "--region_num_hidden_layers", "3"
    ).model.config["region_num_hidden_layers"] == 3  # fmt: skip


def test_recipe_goes_before_facts_and_facts_before_the_preset() -> None:
    section = ModelSection(preset="uniter", config={"num_hidden_layers": 1, "region_box_dim": 4})
    config = build_config(section, {"vocab_size": 11, "region_box_dim": 5})
    assert (config.vocab_size, config.region_box_dim, config.tie_region_feature_decoder) == (11, 4, True)


@pytest.mark.parametrize(("stream", "preset"), [(s, p) for s, presets in PRESETS.items() for p in presets])
def test_every_preset_builds_a_configuration_of_its_stream(stream: Any, preset: str) -> None:
    assert build_config(ModelSection(stream, preset), {}).model_type == f"mmpt_{stream}_stream"


def test_whole_number_stands_for_a_float_field_of_the_strict_configuration(tmp_path: Path) -> None:
    recipe = load(tmp_path, GENERATED + "model: {layer_norm_eps: 1}")
    assert build_config(recipe.model, {}).layer_norm_eps == 1.0


def test_the_usual_short_names_are_aliases_on_the_command_line(tmp_path: Path) -> None:
    words = ("--lr", "1e-3", "--batch-size=4", "--epochs", "2", "--seed", "7", "--learning-rate", "2e-3")
    recipe = load(tmp_path, GENERATED + "training: {max_steps: 9}\nmasking: {seed: 3}", *words)
    chosen = {"learning_rate": 2e-3, "per_device_train_batch_size": 4, "num_train_epochs": 2, "seed": 7}
    assert {name: value for name, value in recipe.training.items() if name != "output_dir"} == chosen
    assert recipe.masking.seed == 3


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("", (), "data has no source, expected either generated or store"),
        (GENERATED + "trainig: {seed: 1}", (), "a.yaml: unknown section 'trainig'; did you mean training?"),
        (
            GENERATED + "training: {max_step: 1}",
            (),
            "unknown key 'training.max_step'; did you mean training.max_steps?",
        ),
        (GENERATED + "model: {max_steps: 1}", (), "'model.max_steps'; did you mean training.max_steps?"),
        (GENERATED + "model: {region_hidden_size: 8}", (), "it belongs to the dual stream: choose that with --stream"),
        (
            GENERATED + "model: {dual: {hidden_sise: 8}}",
            (),
            "unknown key 'model.hidden_sise'; did you mean model.hidden_size?",
        ),
        (GENERATED + "model: {hidden_size: 8, single: {hidden_size: 4}}", (), "stands as model.hidden_size as well"),
        (GENERATED + "model: {id2label: {}}", (), "unknown key 'model.id2label'"),
        (GENERATED + "model: {hidden_size: big}", (), "a.yaml: model.hidden_size is 'big', expected a whole number"),
        (GENERATED + "model: {stream: triple}", (), "a.yaml: model.stream is 'triple', expected 'single' or 'dual'"),
        (GENERATED + "model: 3", (), "a.yaml: model is 3, expected a mapping"),
        (GENERATED + "1: 2", (), "unknown section '1'"),
        ("- 1", (), "is [1], expected a mapping with the sections"),
        ("data: {generated: 3}", (), "data.generated is 3, expected a mapping with keys like train_scenes"),
        ("data: {generated: {}, store: s, pairs: p}", (), "data has generated and store, expected either"),
        ("data: {nlvr: {folder: x}}", (), "data.nlvr is a source of mmpt 0.1.0, expected data.store and data.pairs"),
        ("data: {store: s}", (), "data.store is given without data.pairs"),
        ("data: {generated: {}, eval_pairs: p}", (), "data.pairs is given without data.store"),
        ("data: {generated: {train_scenes: 0}}", (), "data.generated.train_scenes is 0, expected 1 or more"),
        (GENERATED + "masking: {probability: 1.5}", (), "masking.probability is 1.5, expected 0 to 1"),
        (GENERATED + "masking: {policy: both}", (), "expected 'conditional' or 'joint' or 'one_objective'"),
        (GENERATED + "masking: {shares: {text: 0}}", (), "masking.shares is {'text': 0}, expected 0 or more"),
        (GENERATED + "model: {preset: lxmert}", (), "it is a dual-stream model: set --stream dual"),
        (GENERATED + "model: {preset: bert}", (), "model.preset is 'bert', expected one of uniter, visual_bert"),
        (GENERATED + "model: {preset: uniter, from_pretrained: x}", (), "leave preset out"),
        (GENERATED + "training: {hub_token: abc}", (), "log in with `hf auth login`"),
        (GENERATED, ("--epochs", "1", "--max_steps", "3"), "got --epochs (num_train_epochs) and --max_steps"),
        (GENERATED, ("--wd", "1"), "unknown key --wd; did you mean training.weight_decay?"),
        (GENERATED, ("--num_layers", "1"), "did you mean model.num_hidden_layers?"),
        (GENERATED, ("--layers", "1"), "did you mean model.num_hidden_layers?"),
        (GENERATED, ("--dropout", "1"), "did you mean model.hidden_dropout_prob?"),
        (GENERATED, ("--max_seq_length", "1"), "did you mean data.max_text_length?"),
        (GENERATED, ("--warmup", "1"), "did you mean training.warmup_steps?"),
        (GENERATED, ("--grad_acum", "1"), "did you mean training.gradient_accumulation_steps?"),
        (GENERATED + "training: {lr: 1e-3}", (), "unknown key 'training.lr'; did you mean training.learning_rate?"),
        (GENERATED, ("--max_step", "1"), "unknown key --max_step; did you mean training.max_steps?"),
        (GENERATED, ("--trainng.seed", "1"), "did you mean training.seed?"),
        (GENERATED, ("--qqq", "1"), "the sections are model, data, masking, training"),
        (GENERATED, ("--model.dual.region_hidden_size", "1"), "is written without it: --region_hidden_size"),
        (GENERATED, ("--max_steps", "many"), "--max_steps: training.max_steps is 'many', expected a whole number"),
        (GENERATED, ("--eval_strategy", "step"), "expected one of 'no', 'steps', 'epoch'"),
        (GENERATED, ("--stream", "three"), "--stream is 'three', expected 'single' or 'dual'"),
        (GENERATED, ("--bf16",), "--bf16 has no value; write --bf16 VALUE, or --bf16 true for a switch"),
        (GENERATED, ("--bf16", "--fp16", "true"), "--bf16 has no value"),
        (GENERATED, ("100",), "got '100' on the command line, expected --key value"),
        (GENERATED, ("--max_steps", "[1"), "--max_steps, line 1, column 3: not valid YAML"),
        (GENERATED, ("--mlm", "1"), "--objective_weights '{mlm: 1, ...}'"),
        (BOTH_STREAMS, ("--objective_weights", "{mlmm: 1}"), "did you mean model.objective_weights.mlm?"),
    ],
)
def test_bad_recipe_is_refused_with_a_reason(
    tmp_path: Path, text: str, overrides: tuple[str, ...], message: str
) -> None:
    assert message in refuse(tmp_path, text, *overrides)


def test_missing_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.yaml' is not a file; give the path of a YAML file"):
        load_recipe(tmp_path / "none.yaml")


def test_binary_file_is_not_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("stream", ["single", "dual"])
def test_written_recipe_is_read_back_equal(path: Path, stream: str, tmp_path: Path) -> None:
    recipe = load_recipe(path, ["--stream", stream, "--run_name", "no", "--warmup_steps", "1e1"])
    recipe.write(tmp_path / "resolved.yaml")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(), rate=st.floats(0, 1), weights=st.dictionaries(st.sampled_from(["mlm", "itm"]), st.floats(0, 9)))
def test_any_values_survive_writing_and_reading(
    tmp_path: Path, name: str, rate: float, weights: dict[str, float]
) -> None:
    recipe = load(tmp_path, GENERATED)
    recipe.training["run_name"] = name
    recipe.masking.hard_negative_rate = rate
    recipe.model.config["objective_weights"] = weights
    recipe.write(tmp_path / "resolved.yaml")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


def test_written_recipe_opens_with_the_command(tmp_path: Path) -> None:
    recipe = load(tmp_path, GENERATED, "--run_name", "two\nlines", "--max_steps", "3")
    recipe.write(tmp_path / "resolved.yaml")
    first = (tmp_path / "resolved.yaml").read_text().splitlines()[0]
    assert re.fullmatch(r"# mmpt pretrain \S*a\.yaml --run_name 'two lines' --max_steps 3", first)
    assert load_recipe(tmp_path / "resolved.yaml").training["run_name"] == "two\nlines"


def test_what_a_command_line_put_out_of_effect_is_not_in_the_written_recipe(tmp_path: Path) -> None:
    text = GENERATED + "training: {eval_strategy: steps, eval_steps: 5, save_steps: 7, save_total_limit: 2}"
    recipe = load(tmp_path, text, "--eval_strategy", "no", "--save_strategy", "epoch")
    assert {"eval_steps", "save_steps"}.isdisjoint(recipe.training)
    assert recipe.training["save_total_limit"] == 2
    recipe.write(tmp_path / "resolved.yaml")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


def test_output_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_output_dir(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_output_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"cannot be written \(.+\); choose another with --output_dir"):
        check_output_dir(tmp_path / "file" / "run")
