import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModel,
    AutoModelForObjectDetection,
    BertConfig,
    GroundingDinoConfig,
    PPDocLayoutV2Config,
    ViTConfig,
    ViTImageProcessorPil,
)

from mmpt.processing.region_extraction.region_extractor import RegionExtractor, weights_sha256
from tests.factories.detectors import CLASSES, save_detector

SIZE = 32
VIT = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=SIZE, patch_size=8
)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detector("detr", tmp_path_factory.mktemp("x") / "tiny-detr")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    AutoModel.from_config(ViTConfig(**VIT)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def extractor(detector: Path) -> RegionExtractor:
    return RegionExtractor.from_pretrained(detector, device="cpu", batch_size=2)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_config_says_which_backend(extractor, vit):
    assert extractor.settings["backend"] == "detector"
    assert RegionExtractor.from_pretrained(vit, device="cpu").settings["backend"] == "grid"


def test_settings_say_what_made_the_regions(extractor):
    settings = dict(extractor.settings)
    assert json.loads(json.dumps(settings)) == settings
    assert len(settings.pop("weights_sha256")) == 64
    assert settings.pop("images")["size"] == {"shortest_edge": 40, "longest_edge": 64}
    assert settings == {
        "model": "tiny-detr",  # not where it lies
        "model_type": "detr",
        "revision": None,
        "backend": "detector",
        "dtype": "float32",
        "max_regions": 36,
        "min_regions": 1,
        "threshold": 0.0,
        "scores": "softmax",
        "class_probs": "softmax without no-object",
    }


def test_hash_is_of_the_weights_not_of_their_file(detector, extractor):
    model = AutoModelForObjectDetection.from_pretrained(detector)
    assert weights_sha256(model) == extractor.settings["weights_sha256"]
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert weights_sha256(model) != extractor.settings["weights_sha256"]


def test_more_images_than_a_batch_come_back_in_their_order(extractor):
    images = [noise(60, 48, seed) if seed % 2 else noise(48, 60, seed) for seed in range(5)]
    for seed, regions in enumerate(extractor(images, image_ids=list("abcde"))):
        assert regions.image_id == "abcde"[seed]
        np.testing.assert_allclose(regions.features, extractor([images[seed]])[0].features, atol=1e-5)
    assert extractor([]) == []


def test_boxes_are_of_the_upright_image(extractor):
    upright = noise(60, 40)
    turned = upright.transpose(Image.Transpose.ROTATE_90)  # as a camera that is turned would save it
    turned.getexif()[0x0112] = 6
    expected, found = extractor([upright, turned])
    assert (found.width, found.height) == (60, 40)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (90, 2)])
def test_images_of_odd_shapes_have_regions(size, extractor):
    regions = extractor([noise(*size)])[0]
    assert len(regions) >= 1
    assert np.isfinite(regions.features).all()


def test_image_too_long_to_be_resized_says_so(extractor):
    with pytest.raises(ValueError, match="an image of 1 x 5000 pixels cannot be prepared"):
        extractor([noise(1, 5000)])


def test_grey_and_transparent_images_are_taken(extractor):
    grey, transparent = noise(50, 50).convert("L"), noise(50, 50).convert("RGBA")
    assert len(extractor([grey, transparent])) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_gives_float32_features_that_are_near(dtype, detector, extractor):
    lower = RegionExtractor.from_pretrained(detector, device="cpu", dtype=dtype)
    images = [noise(60, 48)]
    found, exact = lower(images)[0], extractor(images)[0]
    assert found.features.dtype == found.class_probs.dtype == np.float32
    np.testing.assert_allclose(found.features.mean(0), exact.features.mean(0), atol=0.1)
    assert lower.settings["dtype"] == dtype


def test_rf_detr_settings_are_read_without_torchvision(tmp_path):
    folder = save_detector("rf_detr", tmp_path)
    file = folder / "preprocessor_config.json"
    file.write_text(file.read_text().replace("DetrImageProcessor", "RfDetrImageProcessor"))
    assert "RfDetrImageProcessor" in file.read_text()
    assert RegionExtractor.from_pretrained(folder, device="cpu").class_names == list(CLASSES.values())


def test_missing_image_processor_is_an_error_that_says_what_to_do(tmp_path):
    folder = save_detector("yolos", tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(OSError, match=r"has no preprocessor_config.json, .*save_pretrained\(folder\)"):
        RegionExtractor.from_pretrained(folder)


def test_missing_weights_are_not_made_up(tmp_path):
    folder = save_detector("yolos", tmp_path)
    AutoModel.from_pretrained(folder).save_pretrained(folder)  # without the head
    with pytest.raises(ValueError, match=r"lacks \d+ weights of YolosForObjectDetection \(bbox_predictor"):
        RegionExtractor.from_pretrained(folder, backend="detector")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BertConfig(), "is of type 'bert', expected a detector or an image encoder"),
        (GroundingDinoConfig(), r"\(grounding-dino\) detects what a text describes"),
        (PPDocLayoutV2Config(), r"\(pp_doclayout_v2\) detects the layout of documents"),
    ],
    ids=["text", "zero-shot", "documents"],
)
def test_other_models_are_refused(config, message, tmp_path):
    config.save_pretrained(tmp_path)
    ViTImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        RegionExtractor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "roi"}, "backend is 'roi', expected one of detector, grid, boxes"),
        ({"min_regions": 0}, "min_regions is 0 and max_regions 36"),
        ({"min_regions": 10, "max_regions": 5}, "min_regions is 10 and max_regions 5"),
        ({"threshold": 20.0}, r"threshold is 20.0, expected a score in 0\.\.1"),
        ({"dtype": "half"}, "dtype is 'half', expected one of float32, bfloat16, float16"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"backend": "grid", "threshold": 0.5}, "regions of the backend 'grid' have no scores"),
    ],
)
def test_arguments_out_of_range_are_errors(arguments, message, vit):
    with pytest.raises(ValueError, match=message):
        RegionExtractor.from_pretrained(vit, **arguments)


def test_ids_and_boxes_must_fit_the_images(extractor):
    with pytest.raises(ValueError, match="got 2 image_ids and 1 images"):
        extractor([noise(40, 40)], image_ids=["a", "b"])
    with pytest.raises(ValueError, match="got boxes, but the backend is 'detector'"):
        extractor([noise(40, 40)], boxes=[np.asarray([[0, 0, 1, 1]])])


def test_code_beside_the_weights_is_not_run(tmp_path):
    config: dict[str, Any] = {"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Foreign"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "foreign.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    with pytest.raises(ValueError, match="is refused: it needs custom Python code"):
        RegionExtractor.from_pretrained(tmp_path)
    assert not (tmp_path / "run").exists()
