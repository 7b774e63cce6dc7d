"""The recipe from raw images: its script writes, trains, and saves what the extractor loads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.scenes_from_pixels import prepare as script
from mmpt.processing.generated_scenes.images import write_detector_scenes
from mmpt.processing.generated_scenes.scenes import CLASS_NAMES
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from mmpt.recipe.recipe import load_recipe
from tests.factories.paths import ROOT

RECIPE = ROOT / "examples" / "scenes_from_pixels" / "pretrain.yaml"


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotated")
    write_detector_scenes(folder, 24, seed=0)
    return folder


def train(annotated: Path, steps: int) -> list[float]:
    data = script.read_annotated(annotated)
    torch.manual_seed(0)
    return script.train_detector(script.build_detector(data.names), data, steps=steps, learning_rate=2e-3, seed=0)


def test_images_are_those_of_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "a.yaml"
    recipe.write_text("data: {generated: {train_scenes: 3, eval_scenes: 2, region_store: not/yet/there}}\n")
    script.main(["images", str(recipe), str(tmp_path), "--annotated", "2"])
    names = {path.stem for path in (tmp_path / "images").iterdir()}
    assert {"train-000002", "evaluation-000001", "compositions-000001"} <= names
    assert len(list((tmp_path / "annotated" / "images").iterdir())) == 2


def test_a_recipe_without_generated_scenes_has_no_images(tmp_path: Path) -> None:
    recipe = tmp_path / "a.yaml"
    recipe.write_text("data: {store: s, pairs: p}\n")
    with pytest.raises(ValueError, match=r"has no data\.generated, expected a recipe of generated scenes"):
        script.main(["images", str(recipe), str(tmp_path)])


def test_annotations_are_read_back(annotated: Path) -> None:
    data = script.read_annotated(annotated)
    coco = json.loads((annotated / "annotations.json").read_text())
    assert data.names == list(CLASS_NAMES)
    assert sum(map(len, data.boxes)) == len(coco["annotations"])
    first = coco["annotations"][0]
    x, y, width, height = first["bbox"]
    expected = torch.tensor([x + width / 2, y + height / 2, width, height]) / 120
    torch.testing.assert_close(data.boxes[0][0], expected)
    assert int(data.classes[0][0]) == first["category_id"]


def test_the_loss_of_the_detector_falls(annotated: Path) -> None:
    pytest.importorskip("scipy")
    losses = train(annotated, steps=6)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < 0.8 * losses[0]


def test_training_of_the_detector_repeats_itself(annotated: Path) -> None:
    pytest.importorskip("scipy")
    assert train(annotated, steps=3) == train(annotated, steps=3)


def test_the_measure_counts_found_double_and_false(annotated: Path) -> None:
    data = script.read_annotated(annotated)
    data.pixels, data.boxes, data.classes = data.pixels[:1], data.boxes[:1], data.classes[:1]
    objects = len(data.boxes[0])
    boxes = torch.cat([data.boxes[0], data.boxes[0][:1], torch.tensor([[0.5, 0.5, 0.01, 0.01]])])
    classes = torch.cat([data.classes[0], data.classes[0][:1], torch.zeros(1, dtype=torch.long)])
    logits = 20 * torch.nn.functional.one_hot(classes, len(CLASS_NAMES)).float() - 10

    class Output(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> "Output":
            self.logits, self.pred_boxes = logits[None], boxes[None]
            return self

    measured = script.measure_detector(Output(), data, threshold=0.5)
    assert measured["found"] == 1.0
    assert measured["iou"] == pytest.approx(1.0, abs=1e-4)
    assert measured["doubles"] == measured["false"] == pytest.approx(1 / objects, abs=1e-4)


def test_the_extractor_loads_the_saved_detector(annotated: Path, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    script.main(["detector", str(annotated), str(tmp_path), "--steps", "1"])
    assert json.loads((tmp_path / "detection.json").read_text())["objects"] > 0
    extractor = RegionExtractor.from_pretrained(str(tmp_path), max_regions=7)
    regions = extractor([Image.open(annotated / "images" / "000000.png")])[0]
    assert regions.feature_dim == script.WIDTH
    assert regions.class_probs is not None
    assert regions.class_probs.shape == (7, len(CLASS_NAMES))


@pytest.mark.parametrize("stream", ["single", "dual"])
def test_model_and_scenes_of_the_recipe_are_those_of_the_tiny_one(stream: str) -> None:
    pixels, tiny = (load_recipe(path, ["--stream", stream]) for path in (RECIPE, ROOT / "recipes" / "tiny.yaml"))
    assert pixels.data.generated is not None
    assert pixels.data.generated.region_store == "runs/scenes/store"
    pixels.data.generated.region_store = None
    assert pixels.model == tiny.model
    assert pixels.data == tiny.data
