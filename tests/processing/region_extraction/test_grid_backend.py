from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    Dinov2WithRegistersConfig,
    PreTrainedConfig,
    ResNetConfig,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SwinConfig,
    ViTConfig,
    ViTImageProcessorPil,
    YolosConfig,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from mmpt.processing.region_extraction.grid_backend import GridBackend, cell_boxes
from mmpt.processing.region_extraction.region_extractor import RegionExtractor

SIZE = 32
VIT = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=SIZE, patch_size=8
)
SQUARE = dict(size={"height": SIZE, "width": SIZE})
CROP = dict(size={"shortest_edge": 40}, crop_size={"height": SIZE, "width": SIZE})
ENCODERS: dict[str, tuple[PreTrainedConfig, Any, int]] = {  # config, processor, tokens before the patches
    "vit": (ViTConfig(**VIT), ViTImageProcessorPil(**SQUARE), 1),
    "dinov2": (Dinov2WithRegistersConfig(**VIT, num_register_tokens=3), BitImageProcessorPil(**CROP), 4),
    "siglip": (SiglipVisionConfig(**VIT), SiglipImageProcessorPil(**SQUARE), 0),
}


def save(config: PreTrainedConfig, processor: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    config, processor, first = ENCODERS[request.param]
    return save(config, processor, tmp_path_factory.mktemp(request.param)), first


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_features_are_the_tokens_of_the_patches(encoder):
    folder, first = encoder
    image = noise(SIZE, SIZE)  # of the model's size: whatever the processor does, it sees these pixels
    found = RegionExtractor.from_pretrained(folder, device="cpu")([image])[0]
    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(images=[image], do_resize=False, do_center_crop=False, return_tensors="pt")
    with torch.no_grad():
        tokens = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0, first:]
    np.testing.assert_allclose(found.features, tokens.numpy(), atol=1e-5)
    assert found.class_probs is found.labels is found.scores is None


def test_an_image_has_the_same_cells_alone_and_in_a_batch(encoder):
    extractor = RegionExtractor.from_pretrained(encoder[0], device="cpu")
    images = [noise(50, 40), noise(40, 50), noise(32, 32)]
    for image, together in zip(images, extractor(images), strict=True):
        np.testing.assert_allclose(extractor([image])[0].features, together.features, atol=1e-5)


def test_a_coloured_quadrant_changes_the_cells_under_it(encoder):
    extractor = RegionExtractor.from_pretrained(encoder[0], device="cpu")
    # The patches' embeddings: further up, attention mixes them.
    embeddings = [module for module in extractor._backend.model.modules() if isinstance(module, torch.nn.Conv2d)]
    plain = Image.new("RGB", (60, 40), "grey")
    coloured = plain.copy()
    coloured.paste("red", (30, 0, 60, 20))  # the right upper quadrant of a wide image: nothing of it is cropped
    seen = []
    embeddings[0].register_forward_hook(lambda module, args, out: seen.append(out[0].flatten(1).T.numpy()))
    regions = [extractor([image])[0] for image in (plain, coloured)]
    change = np.abs(seen[1] - seen[0]).max(1)
    boxes = regions[0].boxes
    under = (boxes[:, 0] >= 0.5) & (boxes[:, 3] <= 0.5)
    assert change[under].min() > 3 * change[~under].max()  # resizing blurs the quadrant's edge
    assert (regions[0].width, regions[0].height) == (60, 40)


def test_cells_by_hand():
    np.testing.assert_array_equal(
        cell_boxes((2, 2), (2, 2)), [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    )
    # Three columns averaged to two: both take the middle one.
    np.testing.assert_allclose(cell_boxes((1, 3), (1, 2)), [[0, 0, 2 / 3, 1], [1 / 3, 0, 1, 1]], atol=1e-7)


def test_a_large_grid_is_averaged_to_the_largest_square_within_max_regions():
    cells = torch.arange(16.0).reshape(1, 1, 4, 4)
    found = GridBackend(None, max_regions=8).regions(cells, None)[0]
    assert found["features"][:, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert found["boxes"].tolist()[1] == [0.5, 0, 1, 0.5]
    assert len(GridBackend(None, max_regions=None).regions(cells, None)[0]["features"]) == 16


@pytest.mark.parametrize(
    "config",
    [
        CLIPConfig(
            vision_config=VIT,
            text_config={k: v for k, v in VIT.items() if k not in ("image_size", "patch_size")} | {"vocab_size": 50000},
        ),
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
        SwinConfig(image_size=SIZE, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=2),
    ],
    ids=["clip", "resnet", "swin"],
)
def test_other_encoders_give_a_grid_too(config, tmp_path):
    extractor = RegionExtractor.from_pretrained(save(config, CLIPImageProcessorPil(**CROP), tmp_path), device="cpu")
    regions = extractor([noise(50, 40)])[0]
    assert (len(regions), regions.feature_dim) == (16, 16)
    np.testing.assert_array_equal(regions.boxes[5], [0.25, 0.25, 0.5, 0.5])
    assert extractor.class_names is None
    assert extractor.settings["images"]["size"] == {"height": SIZE, "width": SIZE}


def test_encoder_without_a_grid_is_an_error(tmp_path):
    # YOLOS has detection tokens after its patches.
    config = YolosConfig(**{**VIT, "image_size": [SIZE, SIZE]}, num_detection_tokens=7, architectures=["YolosModel"])
    with pytest.raises(ValueError, match="gives 24 tokens for 4 x 4 patches"):
        RegionExtractor.from_pretrained(save(config, ViTImageProcessorPil(**SQUARE), tmp_path), device="cpu")


def test_size_that_is_not_a_multiple_of_the_patch_is_an_error(tmp_path):
    folder = save(
        ENCODERS["dinov2"][0], BitImageProcessorPil(size={"height": 36, "width": 36}, do_center_crop=False), tmp_path
    )
    with pytest.raises(ValueError, match=r"36 x 36 pixels .* multiples of 8 and 8"):
        RegionExtractor.from_pretrained(folder, device="cpu")
