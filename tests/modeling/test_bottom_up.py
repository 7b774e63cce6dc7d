"""Bottom-up attention's detector without golden vectors: pooling, rules, odd images, saving, the published files."""

import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel

from mmpt import BottomUpConfig, BottomUpDetector, BottomUpImageProcessor, RegionExtractor, convert, from_predecessor
from mmpt.configuration.configuration_bottom_up import PRESETS
from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.configuration.errors import MmptTypeError, MmptValueError
from mmpt.modeling_mmpt.bottom_up_layers import BottomUpConvolution
from mmpt.modeling_mmpt.bottom_up_selection import select_nms_filter, select_tsv
from mmpt.modeling_mmpt.box_geometry import box_overlaps, centred_anchors, suppress
from mmpt.modeling_mmpt.roi_pooling import AlignPooler, MaxPooler
from mmpt.processing.store.fit import check_store_fits, curing_command
from tests.factories.bottom_up_files import (
    DEPTHS,
    draw_weights,
    photo,
    save_caffe_checkpoint,
    save_detectron2_pickle,
    save_research_folder,
    save_weights,
)

GENERATOR = torch.Generator().manual_seed(0)


def random_boxes(count: int, width: float, height: float) -> Tensor:
    ends = torch.rand(count, 2, 2, generator=GENERATOR).sort(dim=1).values
    return (ends * torch.tensor([width, height])).flatten(1)


@pytest.fixture(scope="module")
def detector() -> BottomUpDetector:
    model = tiny_detector()
    model.config.min_regions = 1
    return model


def tiny_detector(**fields: Any) -> BottomUpDetector:
    folder = Path(os.environ.get("PYTEST_TMP", "/tmp"))
    path = folder / f"bottom-up-{os.getpid()}.safetensors"
    save_weights(path, draw_weights())
    try:
        return from_predecessor(path, num_proposals=40, **fields)  # type: ignore[return-value]
    finally:
        path.unlink()


def inputs_of(*images: Image.Image) -> dict[str, Tensor]:
    processor = BottomUpImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})
    return processor(list(images), return_tensors="pt")


def pool_cell_by_cell(image: Tensor, box: list[float], size: int) -> Tensor:
    """RoIPool as its paper's code loops."""
    x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(value) / 16 + 0.5), value)) for value in box)
    step_x, step_y = (np.float32(max(end - start + 1, 1)) / np.float32(size) for start, end in ((x1, x2), (y1, y2)))
    result = torch.zeros(size, size, image.shape[0])
    for row in range(size):
        for column in range(size):
            top, bottom = (math.floor(row * step_y) + y1, math.ceil((row + 1) * step_y) + y1)
            left, right = (math.floor(column * step_x) + x1, math.ceil((column + 1) * step_x) + x1)
            part = image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
            if part.numel():
                result[row, column] = part.amax((1, 2))
    return result


def align_sample_by_sample(image: Tensor, box: list[float], size: int) -> Tensor:
    """RoIAlign as maskrcnn-benchmark loops: no half-pixel shift, as many samples as a cell has map cells."""
    x1, y1, x2, y2 = (value / 16 for value in box)
    width, height = max(x2 - x1, 1.0), max(y2 - y1, 1.0)
    across, down = math.ceil(width / size), math.ceil(height / size)
    result = torch.zeros(size, size, image.shape[0])
    for row in range(size):
        for column in range(size):
            for i in range(down):
                for j in range(across):
                    y = y1 + row * height / size + (i + 0.5) * height / size / down
                    x = x1 + column * width / size + (j + 0.5) * width / size / across
                    result[row, column] += bilinear(image, y, x) / (across * down)
    return result


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    rows, columns = image.shape[1:]
    if y < -1 or y > rows or x < -1 or x > columns:
        return torch.zeros(image.shape[0])
    y, x = max(y, 0.0), max(x, 0.0)
    low_y, low_x = min(int(y), rows - 1), min(int(x), columns - 1)
    high_y, high_x = min(low_y + 1, rows - 1), min(low_x + 1, columns - 1)
    dy = 0.0 if low_y == rows - 1 else y - low_y
    dx = 0.0 if low_x == columns - 1 else x - low_x
    top = image[:, low_y, low_x] * (1 - dx) + image[:, low_y, high_x] * dx
    bottom = image[:, high_y, low_x] * (1 - dx) + image[:, high_y, high_x] * dx
    return top * (1 - dy) + bottom * dy


BOXES = [[0.0, 0, 159, 111], [8, 8, 8, 8], [-40, 20, 30, 200], [150, 100, 400, 300], [24, 40, 71.9, 88.1]]


@pytest.mark.parametrize(("pooler", "by_hand"), [(MaxPooler, pool_cell_by_cell), (AlignPooler, align_sample_by_sample)])
def test_pooling_agrees_with_a_loop(pooler: Any, by_hand: Any) -> None:
    image = torch.randn(3, 7, 10, generator=GENERATOR)
    boxes = BOXES + random_boxes(6, 160, 112).tolist()
    for size in (2, 7):
        expected = torch.stack([by_hand(image, box, size) for box in boxes])
        torch.testing.assert_close(pooler(image, size)(torch.tensor(boxes)), expected, rtol=0, atol=1e-5)


def test_a_grouped_convolution_is_one_of_slices() -> None:
    config = BottomUpConfig(groups=4, norm_eps=0.0)
    grouped = BottomUpConvolution(config, 8, 12, 3, 2, groups=4).eval()
    torch.nn.init.normal_(grouped.conv.weight, generator=GENERATOR)
    for buffer in grouped.norm.buffers():
        buffer.copy_(torch.rand(buffer.shape, generator=GENERATOR) + 0.5)
    maps = torch.randn(2, 8, 9, 9, generator=GENERATOR)
    slices = zip(maps.chunk(4, dim=1), grouped.conv.weight.chunk(4), strict=True)
    plain = torch.cat([F.conv2d(part, weight, stride=2, padding=1) for part, weight in slices], dim=1)
    scale, shift = (each.float().view(1, -1, 1, 1) for each in grouped.norm.scale_and_shift())
    torch.testing.assert_close(grouped(maps), plain * scale + shift)
    norm = grouped.norm
    by_hand = (plain - norm.running_mean.view(1, -1, 1, 1)) * norm.running_var.rsqrt().view(1, -1, 1, 1)
    by_hand = by_hand * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(grouped(maps), by_hand)


def test_res5_is_dilated(detector: BottomUpDetector) -> None:
    """The maps are taken apart for speed: a convolution that is told its dilation gives the same."""
    image = torch.randn(1, 64, 7, 10, generator=GENERATOR)
    boxes = torch.tensor(BOXES[:2])
    hidden = MaxPooler(image[0], 14)(boxes).permute(0, 3, 1, 2)
    with torch.inference_mode():
        for block in detector.res5:
            conv = block.conv2.conv
            shortcut = hidden if block.shortcut is None else block.shortcut(hidden)
            inner = F.relu(block.conv1(hidden))
            inner = F.relu(block.conv2.norm(F.conv2d(inner, conv.weight, padding=2, dilation=2)))
            hidden = F.relu(block.conv3(inner) + shortcut)
        features = detector.pool(image, boxes)
    assert hidden.shape[2:] == (14, 14)
    torch.testing.assert_close(features, hidden.mean((2, 3)), rtol=1e-5, atol=1e-5)


def test_an_image_alone_is_as_in_a_batch(detector: BottomUpDetector) -> None:
    images = [photo(120, 90, seed) for seed in range(3)]
    with torch.inference_mode():
        together = detector(**inputs_of(*images))
        for row, image in enumerate(images):
            alone = detector(**inputs_of(image))
            for name in alone:
                assert torch.equal(alone[name][0], together[name][row]), name


def test_bfloat16_gives_close_features(detector: BottomUpDetector) -> None:
    inputs = inputs_of(photo(120, 90))
    with torch.inference_mode():
        found = detector(**inputs)
        boxes = list(found.proposals)
        exact = detector(**inputs, boxes=boxes).features[0]
        with torch.autocast("cpu", torch.bfloat16):
            mixed = detector(**inputs, boxes=boxes).features[0]
        low = tiny_detector().bfloat16()(**inputs, boxes=boxes).features[0]
    for features in (mixed, low):
        assert features.dtype == torch.float32
        assert (features - exact).norm() / exact.norm() < 2e-2


def test_few_proposals_are_all_kept_and_none_is_no_region(detector: BottomUpDetector) -> None:
    scores = torch.rand(3, 5, generator=GENERATOR).softmax(1)
    boxes = random_boxes(3, 90, 60)
    rule = dict(threshold=0.3, score=0.9, least=10, most=36, extra=1)
    assert sorted(select_tsv(boxes, scores, **rule).indices.tolist()) == [0, 1, 2]
    assert len(select_tsv(boxes[:0], scores[:0], **rule).indices) == 0
    assert len(select_nms_filter(boxes[:0], scores[:0], **rule).indices) == 0


def test_vinvl_labels_a_region_by_the_class_that_it_survives_in() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 10], [50, 50, 60, 60]])
    scores = torch.tensor([[0.6, 0.1], [0.5, 0.4], [0.05, 0.15]])
    found = select_nms_filter(boxes, scores, threshold=0.3, score=0.2, least=3, most=100, extra=1)
    # Of the first class the first box suppresses the second, which wins the second class.
    assert found.indices.tolist() == [0, 1, 2]
    assert found.labels.tolist() == [0, 1, 1]
    torch.testing.assert_close(found.scores, torch.tensor([0.6, 0.4, 0.15]))


def test_suppression_agrees_with_a_loop() -> None:
    boxes = random_boxes(60, 100, 80)
    overlaps = box_overlaps(boxes, boxes, 0)
    kept: list[int] = []
    for place in range(len(boxes)):
        if all(overlaps[place, other] <= 0.3 for other in kept):
            kept.append(place)
    assert suppress(boxes, 0.3, 0, 100).tolist() == kept
    assert suppress(boxes, 0.3, 0, 4).tolist() == kept[:4]


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "vinvl"])
def test_presets_give_regions_by_their_rules(preset: str) -> None:
    model = tiny_detector()
    facts = model.config.use_preset(preset)
    with torch.inference_mode():
        found = model(**inputs_of(photo(150, 100)))
    assert min(facts.min_regions, len(found.proposals[0])) <= len(found.features[0]) <= facts.max_regions
    boxes = found.proposals[0][found.kept_indices[0]] * (100 / 96)
    on_proposals = facts.selection == "tsv"
    assert torch.allclose(found.boxes[0], boxes, atol=1e-2) == on_proposals
    torch.testing.assert_close(found.class_probs[0].sum(1), torch.ones(len(boxes)))
    assert found.attribute_probs[0].shape[1] == (12 if facts.cut_no_attribute else 13)


def test_presets_of_another_detector_are_refused() -> None:
    with pytest.raises(MmptValueError, match=r"X152-C4.*expected uniter, lxmert"):
        BottomUpConfig().use_preset("vinvl")
    with pytest.raises(MmptValueError, match="expected vinvl"):
        BottomUpConfig.x152_c4().use_preset("lxmert")


def test_the_three_published_files_give_the_same_features(tmp_path: Path) -> None:
    weights = draw_weights()
    sources = [
        save_research_folder(tmp_path / "frcnn", weights),
        save_detectron2_pickle(tmp_path / "faster_rcnn_from_caffe_attr.pkl", weights),
        save_detectron2_pickle(tmp_path / "protocol4.pkl", weights, protocol=4),
        save_caffe_checkpoint(tmp_path / "bua-caffe-frcn-r101-k36.pth", weights),
    ]
    inputs, found = inputs_of(photo(150, 100)), []
    for source in sources:
        model: Any = from_predecessor(source)
        fates = {key.theirs for key in model.conversion_report.keys}
        assert len(fates) == len(model.conversion_report.keys) > 140
        model.config.selection, model.config.min_regions = "maxnms", 36
        with torch.inference_mode():
            found.append(model(**inputs))
    for other in found[1:]:
        for name in ("features", "boxes", "class_probs", "attribute_probs", "proposals"):
            torch.testing.assert_close(other[name][0], found[0][name][0], rtol=0, atol=1e-3, msg=name)
        assert torch.equal(other.kept_indices[0], found[0].kept_indices[0])


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/bottom-up-was-here",)


@pytest.mark.parametrize("kind", ["malicious", "truncated", "foreign", "a list", "a page"])
def test_a_pickle_of_something_else_is_refused_and_not_run(kind: str, tmp_path: Path) -> None:
    trace = Path("/tmp/bottom-up-was-here")
    trace.unlink(missing_ok=True)
    path = save_detectron2_pickle(tmp_path / "weights.pkl", draw_weights())
    content = {
        "malicious": pickle.dumps({"model": {"a": Malicious()}}),
        "truncated": path.read_bytes()[:-1000],
        "foreign": pickle.dumps({"model": {"conv.weight": np.zeros(3, np.float32)}}),
        "a list": pickle.dumps([1, 2]),
        "a page": b"<html>log in</html>",
    }[kind]
    path.write_bytes(content)
    reason = {
        "malicious": r"refused, and nothing of it was run: .*posix.system",
        "truncated": "refused.*damaged|no end",
        "foreign": "none of the predecessors|expected one of|nothing is known|keys",
        "a list": "holds a list",
        "a page": "web page",
    }[kind]
    with pytest.raises(MmptValueError, match=reason):
        from_predecessor(path)
    assert not trace.exists()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    weights = draw_weights()
    lacking = {key: value for key, value in weights.items() if key != "roi_heads.res5.1.conv2.weight"}
    with pytest.raises(MmptValueError, match=r"res5\.1\.conv2\.conv\.weight"):
        from_predecessor(save_weights(tmp_path / "lacking.safetensors", lacking))
    with pytest.raises(MmptValueError, match=r"keys that are unknown for bottom_up: extra"):
        from_predecessor(save_weights(tmp_path / "extra.safetensors", weights | {"extra": torch.zeros(2)}))
    small = weights | {
        "proposal_generator.anchor_generator.cell_anchors.0": centred_anchors([4, 8, 16, 32], [0.5, 1, 2])
    }
    path = save_caffe_checkpoint(tmp_path / "small.pth", small)
    held = torch.load(path)
    held["model"]["proposal_generator.anchor_generator.cell_anchors.0"] = small[
        "proposal_generator.anchor_generator.cell_anchors.0"
    ]
    torch.save(held, path)
    with pytest.raises(MmptValueError, match="anchors that its detector was not trained with"):
        from_predecessor(path)


def test_vocabularies_name_classes_and_attributes(tmp_path: Path) -> None:
    folder = save_research_folder(tmp_path / "frcnn", draw_weights())
    (folder / "objects_vocab.txt").write_text("".join(f"Thing {n},things\n" for n in range(20)))
    (folder / "attributes_vocab.txt").write_text("".join(f"colour {n}\n" for n in range(12)))
    report = convert(folder, tmp_path / "butd")
    assert report.assumptions == ()
    model = BottomUpDetector.from_pretrained(tmp_path / "butd")
    assert model.config.names_of("class")[17] == "thing 17"
    assert model.config.names_of("attribute")[3] == "colour 3"
    assert from_predecessor(save_weights(tmp_path / "w.safetensors", draw_weights())).config.names_of("class")[17] == (
        "object 17"
    )


def test_a_folder_carries_its_code_and_auto_classes_know_it(tmp_path: Path) -> None:
    model = tiny_detector()
    model.save_pretrained(tmp_path)
    BottomUpImageProcessor(resize_rule="pillow").save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"modeling_bottom_up.py", "roi_pooling.py", "image_processing_bottom_up.py", "model.safetensors"} <= names
    again = AutoModel.from_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert isinstance(again, BottomUpDetector)
    assert isinstance(processor, BottomUpImageProcessor)
    assert processor.resize_rule == "pillow"
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_opencv_steps_by_the_factor_not_by_the_sizes() -> None:
    """Two pixels become five at the factor 2.5: their centres are 0.4 pixels apart, from -0.3 on."""
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    image[:, 1] = 100
    processor = BottomUpImageProcessor(size={"shortest_edge": 5, "longest_edge": 9}, image_mean=[0.0, 0.0, 0.0])
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels[0, 0, 0], torch.tensor([0.0, 10, 50, 90, 100]))


def test_channels_are_blue_green_red_less_their_means() -> None:
    image = Image.new("RGB", (40, 30), (200, 100, 50))
    for rule in ("opencv", "interpolate", "pillow"):
        size = {"shortest_edge": 60, "longest_edge": 100}
        pixels = BottomUpImageProcessor(size=size, resize_rule=rule)(image, return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 60, 80)
        expected = torch.tensor([50 - 102.9801, 100 - 115.9465, 200 - 122.7717])
        torch.testing.assert_close(pixels[0, :, 7, 7], expected)


def test_images_of_two_sizes_are_not_padded() -> None:
    processor = BottomUpImageProcessor()
    with pytest.raises(MmptValueError, match="2 sizes"):
        processor([photo(40, 30), photo(30, 40)])
    with pytest.raises(MmptTypeError, match="expected uint8"):
        processor(np.zeros((4, 4, 3), dtype=np.float32))


def test_wrong_inputs_are_named(detector: BottomUpDetector) -> None:
    with pytest.raises(MmptValueError, match="expected \\(images, 3, height, width\\)"):
        detector(torch.zeros(1, 4, 32, 32))
    with pytest.raises(MmptValueError, match="sides of 3"):
        detector(torch.zeros(1, 3, 2, 32))
    with pytest.raises(MmptValueError, match="resize_factors"):
        detector(torch.zeros(1, 3, 32, 32), torch.zeros(1, 2))
    with pytest.raises(MmptValueError, match="boxes of 2 images"):
        detector(torch.zeros(1, 3, 32, 32), boxes=[torch.zeros(1, 4)] * 2)


def test_vinvls_file_becomes_its_detector(tmp_path: Path) -> None:
    """No vector of the original exists: names, rows and rules are those of its code, under random weights."""
    config = BottomUpConfig.x152_c4(
        stem_width=8, stage_widths=[16, 32, 64, 128], inner_widths=[8, 16, 32, 64], stage_depths=list(DEPTHS), groups=4,
        rpn_width=16, num_classes=10, num_attributes=6, class_embedding_size=8, attribute_hidden_size=16,
    )  # fmt: skip
    torch.manual_seed(0)
    model = BottomUpDetector(config).eval()
    renamed: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if "anchors" not in key:
            renamed[vinvl_name(key)] = value.clone()
    head = "roi_heads.box.predictor.bbox_pred"
    for name in ("weight", "bias"):
        boxes = renamed[f"{head}.{name}"].unflatten(0, (-1, 4))
        scale = torch.tensor([10.0, 10, 5, 5]).view(1, 4, *[1] * (boxes.ndim - 2))
        renamed[f"{head}.{name}"] = torch.cat([torch.zeros_like(boxes[:1]), boxes * scale]).flatten(0, 1)
        # The file has its anchors by ratio, ours by size.
        order = [size * 3 + ratio for ratio in range(3) for size in range(5)]
        scores, deltas = f"rpn.head.cls_logits.{name}", f"rpn.head.bbox_pred.{name}"
        renamed[scores] = renamed[scores][order]
        renamed[deltas] = renamed[deltas].unflatten(0, (15, 4))[order].flatten(0, 1)
    twins = {
        key.replace("roi_heads.box.feature_extractor", "attribute.feature_extractor"): value.clone()
        for key, value in renamed.items()
        if key.startswith("roi_heads.box.feature_extractor")
    }
    path = save_weights(tmp_path / "vinvl.safetensors", {f"module.{k}": v for k, v in (renamed | twins).items()})
    again: Any = from_predecessor(path)
    assert len(again.conversion_report.of("tied")) == len(twins)
    assert again.config.groups == 4
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, msg=key)
    inputs = inputs_of(photo(150, 100))
    with torch.inference_mode():
        found = again(**inputs)
    assert again.config.selection == "nms_filter"
    assert 1 <= len(found.features[0]) <= 100
    assert found.features[0].shape[1] == 128
    scores = found.scores[0]
    assert torch.equal(scores, scores.sort(descending=True).values)
    proposals = found.proposals[0][found.kept_indices[0]] * (100 / 96)
    torch.testing.assert_close(found.boxes[0], proposals, rtol=0, atol=1e-3)  # box regression is not read


def vinvl_name(key: str) -> str:
    """Return maskrcnn-benchmark's name of one of ours."""
    for ours, theirs in (
        ("backbone.stem", "backbone.body.stem.conv1"),
        ("backbone.res2", "backbone.body.layer1"),
        ("backbone.res3", "backbone.body.layer2"),
        ("backbone.res4", "backbone.body.layer3"),
        ("res5", "roi_heads.box.feature_extractor.head.layer4"),
        ("rpn.objectness", "rpn.head.cls_logits"),
        ("rpn.deltas", "rpn.head.bbox_pred"),
        ("rpn.conv", "rpn.head.conv"),
        ("classifier", "roi_heads.box.predictor.cls_score"),
        ("box_regressor", "roi_heads.box.predictor.bbox_pred"),
        ("class_embedding", "attribute.predictor.cls_embedding"),
        ("attribute_dense", "attribute.predictor.fc_attr"),
        ("attribute_classifier", "attribute.predictor.attr_score"),
    ):
        if key.startswith(f"{ours}."):
            key = theirs + key.removeprefix(ours)
            break
    for name in ("conv1", "conv2", "conv3"):
        key = key.replace(f".{name}.norm.", f".{name.replace('conv', 'bn')}.").replace(f".{name}.conv.", f".{name}.")
    return key.replace(".shortcut.norm.", ".downsample.1.").replace(".shortcut.conv.", ".downsample.0.")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "rotated"])
def test_odd_images_have_regions_of_their_own(mode: str, tmp_path: Path) -> None:
    model = tiny_detector()
    model.save_pretrained(tmp_path)
    processor = BottomUpImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})
    processor.save_pretrained(tmp_path)
    extractor = RegionExtractor.from_pretrained(tmp_path)
    image = photo(90, 60)
    if mode == "rotated":
        exif = image.getexif()
        exif[0x0112] = 6
        file = tmp_path / "turned.jpg"
        image.save(file, exif=exif)
        image = Image.open(file)
    else:
        image = image.convert(mode)
    alone, beside = extractor([image])[0], extractor([photo(60, 90, 5), image, photo(90, 60, 6)])[1]
    assert (alone.width, alone.height) == ((60, 90) if mode == "rotated" else (90, 60))
    assert len(alone) >= 10
    np.testing.assert_array_equal(alone.features, beside.features)
    np.testing.assert_array_equal(alone.boxes, beside.boxes)
    assert alone.boxes.min() >= 0
    assert alone.boxes.max() <= 1


def test_a_store_that_does_not_fit_a_model_is_refused_with_the_command_that_cures_it() -> None:
    record = {
        "extractor": {"model": "butd", "label_space": "background_first"},
        "feature_dim": 2048,
        "num_classes": 1601,
    }
    uniter = MmptSingleStreamConfig.uniter()
    check_store_fits(uniter, record, "regions")
    check_store_fits(uniter, None, "regions")
    with pytest.raises(
        MmptValueError, match=r"1601 classes, the model predicts 1600\. .*mmpt extract .* --preset lxmert"
    ):
        check_store_fits(MmptDualStreamConfig.lxmert(), record, "regions")
    with pytest.raises(MmptValueError, match=r"768 numbers, the model reads 2048\. .*--preset uniter"):
        check_store_fits(uniter, record | {"feature_dim": 768}, "regions")
    with pytest.raises(MmptValueError, match="no background, the model the background as class 0"):
        check_store_fits(uniter, record | {"extractor": {"label_space": "no_background"}}, "regions")
    oscar = MmptSingleStreamConfig.oscar()
    check_store_fits(oscar, record | {"num_classes": 1594}, "regions")  # it predicts no classes
    assert curing_command(oscar).count("--preset oscar") == 1
