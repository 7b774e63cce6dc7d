from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, ResNetConfig, ViTConfig, ViTImageProcessorPil

from mmpt.processing.region_extraction.box_backend import pool_boxes
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from tests.factories.detectors import save_detector

SIZE = 32
ENCODERS = {
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "vit": ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=SIZE, patch_size=8
    ),
}
WHOLE = [[0.0, 0.0, 1.0, 1.0]]


def extractor(name: str, folder: Path) -> RegionExtractor:
    if name in ENCODERS:
        torch.manual_seed(0)
        AutoModel.from_config(ENCODERS[name]).save_pretrained(folder)
        ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    else:
        save_detector(name, folder)
    return RegionExtractor.from_pretrained(folder, backend="boxes", device="cpu")


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_pooling_by_hand():
    # A map whose value is its column: read between the cells, the mean over a box is its middle.
    ramp = torch.arange(8.0).expand(1, 8, 8)
    boxes = torch.tensor([[0.25, 0.25, 0.75, 0.5], [0.125, 0.0, 0.5, 1.0]])
    torch.testing.assert_close(
        pool_boxes(ramp, boxes), torch.tensor([[3.5], [2.0]])
    )  # column c has its centre at c + 0.5
    torch.testing.assert_close(pool_boxes(torch.full((2, 3, 5), 7.0), boxes), torch.full((2, 2), 7.0))


def test_pooling_reads_rows_from_the_second_coordinate():
    rows = torch.arange(8.0)[:, None].expand(1, 8, 8)
    torch.testing.assert_close(pool_boxes(rows, torch.tensor([[0.1, 0.5, 0.3, 0.75]])), torch.tensor([[4.5]]))


@pytest.mark.parametrize("name", [*ENCODERS, "detr", "rt_detr", "lw_detr"])
def test_given_boxes_get_features_and_stay_as_they_are(name, tmp_path):
    given = [np.asarray([[0.1, 0.2, 0.5, 0.9], [0.5, 0.0, 1.0, 0.5]]), np.asarray(WHOLE)]
    found = extractor(name, tmp_path)
    images = [noise(50, 40), noise(40, 50)]
    together = found(images, boxes=given)
    for image, boxes, regions in zip(images, given, together, strict=True):
        np.testing.assert_allclose(regions.boxes, boxes, atol=1e-7)
        assert regions.class_probs is regions.labels is regions.scores is None
        np.testing.assert_allclose(found([image], boxes=[boxes])[0].features, regions.features, atol=1e-5)
    assert np.abs(together[0].features[0] - together[0].features[1]).max() > 1e-4


def test_the_box_over_a_change_sees_it(tmp_path):
    found: Any = extractor("resnet", tmp_path)
    plain = Image.new("RGB", (64, 64), "grey")
    changed = plain.copy()
    changed.paste("red", (48, 48, 64, 64))
    boxes = [np.asarray([[0.0, 0.0, 0.25, 0.25], [0.75, 0.75, 1.0, 1.0]])]
    before, after = (found([image], boxes=boxes)[0].features for image in (plain, changed))
    difference = np.abs(after - before).max(1)
    assert difference[1] > 20 * difference[0]  # a convolution sees a little beyond


def test_boxes_are_asked_for(tmp_path):
    found = extractor("vit", tmp_path)
    with pytest.raises(ValueError, match="got no boxes, but the backend is 'boxes'"):
        found([noise(40, 40)])
    with pytest.raises(ValueError, match=r"image 0 of the batch: boxes have shape \(0,\), expected \(regions, 4\)"):
        found([noise(40, 40)], boxes=[np.asarray([])])
    with pytest.raises(ValueError, match="looks like pixels"):
        found([noise(40, 40)], boxes=[np.asarray([[0, 0, 30, 30]])])


def test_detector_without_a_backbone_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"\(yolos\) has no backbone"):
        extractor("yolos", tmp_path)
