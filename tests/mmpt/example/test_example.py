"""The packaged models answer without a network, are small, and are what packing makes of a run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline
from typer.testing import CliRunner

from mmpt import load_example
from mmpt.commands.main import app
from mmpt.example.loading import FOLDER, STREAMS, example_model, load_scenes, read_regions, write_regions
from mmpt.example.packing import pack_model, pack_scenes, packaged_card
from tests.factories.examples import random_regions


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_models_know_the_words_of_the_scenes_and_what_matches(stream: str) -> None:
    model, scenes = load_example(stream)
    words = [model.fill_mask(scene.text, scene.regions, top_k=1)[0][0]["token_str"] for scene in scenes]
    assert sum(word == scene.word for word, scene in zip(words, scenes, strict=True)) >= 2
    texts = [scene.text.replace("[MASK]", scene.word) for scene in scenes]
    best = [ranked[0]["index"] for ranked in model.rank_images(texts, [scene.regions for scene in scenes])]
    assert best == [0, 1, 2]


def test_pipelines_of_transformers_need_no_model() -> None:
    scene = load_scenes()[0]
    fill, match = pipeline("mmpt-fill-mask"), pipeline("mmpt-matching")
    best = fill({"text": scene.text, "regions": str(scene.path.with_suffix(".npz"))})[0][0]
    assert (best["token_str"], fill.model.dtype) == (scene.word, torch.float32)
    true = match({"text": scene.text.replace("[MASK]", scene.word), "regions": scene.regions})["score"]
    false = match({"text": scene.text.replace("[MASK]", "green"), "regions": scene.regions})["score"]
    assert true > 0.5 > false


def test_weights_are_half_precision_and_all_is_small(stream: str) -> None:
    weights = load_file(example_model(stream) / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 2_000_000
    metrics = json.loads((example_model(stream) / "metrics.json").read_text())
    first = metrics["headline"]["attribute_word_accuracy"]
    assert first["value"] > 0.85 > 0.3 > first["chance"]
    assert f"| `attribute_word_accuracy` | {first['value']:.4g} |" in (example_model(stream) / "README.md").read_text()


def test_an_unknown_stream_and_a_file_without_regions_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stream is 'triple', expected one of single, dual"):
        load_example("triple")
    for content in (b"", b"no archive"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as regions"):
            read_regions(tmp_path / "bad.npz")
    np.savez(tmp_path / "boxes.npz", boxes=np.zeros((1, 4)))
    with pytest.raises(ValueError, match="cannot be read as regions"):
        read_regions(tmp_path / "boxes.npz")


def test_regions_survive_their_file(tmp_path: Path) -> None:
    regions = random_regions(3, image_id="one", width=10, height=20)
    write_regions(tmp_path / "one.npz", regions)
    again = read_regions(tmp_path / "one.npz")
    np.testing.assert_allclose(again.features, regions.features, atol=1e-3)
    assert np.array_equal(again.boxes, regions.boxes)
    assert (again.image_id, again.width, again.height) == ("one", 10, 20)


def test_packing_takes_what_a_run_leaves(tmp_path: Path, stream: str) -> None:
    run = example_model(stream)  # a packaged model is a run's folder again
    pack_model(run, tmp_path / run.name)
    names = {file.name for file in run.iterdir()}
    assert {file.name for file in (tmp_path / run.name).iterdir()} == names
    one, two = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / run.name))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    config = json.loads((tmp_path / run.name / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert not {"auto_map", "custom_pipelines"} & set(config)
    with pytest.raises(FileNotFoundError, match="expected the folder of a finished run"):
        pack_model(tmp_path, tmp_path / "out")
    assert "# The packaged model, dual stream\n" in packaged_card("# runs\n\n## Use\nold\n## Training\n", "dual-stream")


def test_the_scenes_are_made_again(tmp_path: Path) -> None:
    pack_scenes(tmp_path / "scenes")
    for name in ("scenes.json", "scene-0.png"):
        assert (tmp_path / "scenes" / name).read_bytes() == (FOLDER / "scenes" / name).read_bytes()


def test_the_command_explains_the_packaged_model(tmp_path: Path) -> None:
    out = tmp_path / "why"
    text = load_scenes()[0].text
    done = CliRunner().invoke(app, ["explain", "example", "scene-0", text, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert re.search(r"^0\.9\d+  red$", done.output, re.MULTILINE)
    assert json.loads((out / "explanation.json").read_text())["ablation"]["decisive_region"] == 0
    for arguments, message in (
        (["example", "scene-9", text], "scene-9 is not a file; expected an image, or one of the packaged scene-0"),
        (["example", "scene-0", text, "--mask", "3"], "mask is 3, expected 0 to 0"),
        (["example", "scene-0", text, "--regions", "a", "--store", "b"], "got --regions and --store"),
        (["nowhere", "scene-0", text], "nowhere"),
    ):
        done = CliRunner().invoke(app, ["explain", *arguments, "--out", str(out)])
        assert done.exit_code == 2
        assert message in done.output
