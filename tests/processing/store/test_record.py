"""What a saved model records of its regions: its pipeline builds the extractor, other regions are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForObjectDetection
from typer.testing import CliRunner

from mmpt import ImageRegions, MmptPipeline, MmptProcessor, RegionExtractor, RegionStore, fill_store, open_images
from mmpt.commands.main import app
from mmpt.processing.generated_scenes.scenes import TRAIN_COMPOSITIONS, render, sample_scene
from mmpt.processing.store.record import check_same_regions, record_of
from mmpt.recipe.recipe import load_recipe
from mmpt.training.finetuning import finetune
from tests.factories.detectors import save_detector
from tests.factories.tasks import table
from tests.mmpt.training.test_finetuning import MODEL, TRAINING

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a detector, another detector of the same width, a store of each, and a model trained on the first."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "photos").mkdir()
    for number in range(6):
        scene = sample_scene(np.random.default_rng(number), TRAIN_COMPOSITIONS)
        render(scene).save(folder / "photos" / f"image-{number}.png")
    for name in ("detector", "other"):
        shutil.copytree(save_detector("yolos", tmp_path_factory.mktemp(name)), folder / name)
        if name == "other":
            model = AutoModelForObjectDetection.from_pretrained(folder / name)
            torch.nn.init.normal_(next(model.class_labels_classifier.parameters()))
            model.save_pretrained(folder / name)
        extractor = RegionExtractor.from_pretrained(folder / name, max_regions=5, device="cpu")
        images = open_images(folder / "photos")
        fill_store(folder / f"store-{name}", ImageRegions(images, extractor))
    table("statements", 6).to_parquet(folder / "pairs.parquet")
    finetune(recipe(folder, "detector", "run"))
    return folder


def recipe(folder: Path, detector: str, out: str, *overrides: str):
    pairs, path = folder / "pairs.parquet", folder / f"{out}.yaml"
    data = f"data: {{store: {folder / f'store-{detector}'}, pairs: {pairs}, eval_pairs: {pairs}}}\n"
    path.write_text(f"{MODEL}\n{data}\ntask: {{name: statements}}\n{TRAINING}")
    return load_recipe(path, ["--output_dir", str(folder / out), *overrides], command="finetune")


def test_the_processor_holds_what_made_the_regions(folder: Path):
    store = RegionStore.open(folder / "store-detector")
    record = MmptProcessor.from_pretrained(folder / "run").image_processor.extracted_by
    assert record == json.loads(json.dumps(record_of(store)))
    assert record is not None
    assert (record["fingerprint"], record["extractor"]) == (store.fingerprint, store.extractor)
    assert (record["class_names"], record["feature_dim"]) == (store.class_names, store.feature_dim)


def test_a_photo_is_extracted_as_in_training(folder: Path):
    pipeline = MmptPipeline.from_pretrained(folder / "run", device="cpu")
    photo = folder / "photos" / "image-2.png"
    regions, stored = pipeline(str(photo)), RegionStore.open(folder / "store-detector")["image-2"]
    np.testing.assert_allclose(regions.features, stored.features, atol=1e-2)
    np.testing.assert_allclose(regions.boxes, stored.boxes, atol=1e-5)
    assert pipeline(photo, "red star") == pipeline.classify("red star", photo) == pipeline.classify("red star", regions)


def test_an_extractor_that_is_not_to_be_had_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "run", tmp_path / "deep" / "run")
    pipeline = MmptPipeline.from_pretrained(tmp_path / "deep" / "run", device="cpu")
    with pytest.raises(OSError, match=r"a picture needs the extractor .* 'detector' \(backend detector, weights"):
        pipeline(folder / "photos" / "image-0.png")
    shutil.copytree(folder / "other", tmp_path / "deep" / "detector")  # another one by the same name
    with pytest.raises(ValueError, match=r"was made by .*weights_sha256"):
        pipeline(folder / "photos" / "image-0.png")


def test_regions_of_another_extractor_are_refused_everywhere(folder: Path):
    run, store = folder / "run", folder / "store-other"
    for given in (
        {"regions": RegionStore.open(store)},
        {"extractor": RegionExtractor.from_pretrained(folder / "other", max_regions=5, device="cpu")},
    ):
        with pytest.raises(ValueError, match=r"was made by 'other' .* made by 'detector'"):
            MmptPipeline.from_pretrained(run, device="cpu", **given)
        MmptPipeline.from_pretrained(run, device="cpu", allow_other_regions=True, **given)
    words = ["--pairs", str(folder / "pairs.parquet"), "--store", str(store), "--device", "cpu"]
    for command in (["evaluate", str(run)], ["predict", str(run), "--out", "-"]):
        result = RUNNER.invoke(app, [*command, *words])
        assert result.exit_code == 2
        assert "made by 'other'" in result.stderr
        assert RUNNER.invoke(app, [*command, *words, "--allow-other-regions"]).exit_code == 0
    with pytest.raises(ValueError, match=r"set data.allow_other_regions=true"):
        finetune(recipe(folder, "other", "again", "--from_pretrained", str(run)))
    finetune(recipe(folder, "other", "again", "--from_pretrained", str(run), "--allow_other_regions", "true"))
    assert MmptProcessor.from_pretrained(folder / "again").image_processor.extracted_by == record_of(
        RegionStore.open(store)
    )


def test_a_table_of_the_test_split_alone_is_evaluated(folder: Path, tmp_path: Path):
    shutil.copytree(folder / "store-detector", tmp_path / "regions")
    table("statements", 3).to_parquet(tmp_path / "test.parquet")
    words = ["--pairs", str(tmp_path / "test.parquet"), "--store", str(tmp_path / "regions"), "--device", "cpu"]
    result = RUNNER.invoke(app, ["evaluate", str(folder / "run"), *words])
    assert result.exit_code == 0, result.output


def test_what_is_not_recorded_is_not_checked():
    store = {"extractor": {"model": "a"}, "feature_dim": 4, "class_names": None}
    for pair in ((None, store), (store, None), (store, dict(store)), (store, store | {"class_names": ["dog"]})):
        check_same_regions(*pair, "it", "allow")
    same = {"extractor": {"model": "b", "weights_sha256": "1", "dtype": "float32"}, "feature_dim": 4}
    check_same_regions(same, same | {"extractor": {"model": "c", "weights_sha256": "1", "dtype": "bfloat16"}}, "it", "")
    for other in ({"extractor": {"model": "b"}}, {"feature_dim": 5}):
        with pytest.raises(ValueError, match=r"^it "):
            check_same_regions(store, store | other, "it", "allow")
