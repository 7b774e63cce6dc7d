"""The detector beside the original code: golden vectors of the network, the selection rules and Caffe's proposals."""

import hashlib
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmpt import BottomUpConfig, BottomUpDetector, BottomUpImageProcessor, from_predecessor
from mmpt.modeling_mmpt.bottom_up_selection import Chosen, select_maxnms, select_perclass, select_tsv, survivors
from mmpt.modeling_mmpt.box_geometry import GEOMETRIES, propose, rounded_anchors
from tests.factories.bottom_up_files import golden_case, golden_folder, key_shapes, save_weights

SMALL = (
    "astronaut_portrait_10_36",
    "astronaut_portrait_36_36",
    "china_landscape_10_36",
    "china_landscape_36_36",
    "china_landscape_36_36_800_1333",
    "synthetic_small_10_36",
    "synthetic_small_36_36",
)
FULL = "full_width_china_landscape_36_36"


@pytest.fixture(scope="module")
def small() -> BottomUpDetector:
    return from_predecessor(golden_folder() / "small_weights.safetensors")  # type: ignore[return-value]


def as_the_demo(detector: BottomUpDetector, case: dict[str, Any]) -> BottomUpImageProcessor:
    """Set a detector as transformers' research code was for a case, and return the preprocessing."""
    settings = dict(
        geometry="detectron2",
        selection="maxnms",
        min_regions=case["min_boxes"],
        max_regions=case["max_boxes"],
        nms_thresholds=case["config"]["roi_heads"]["nms_thresh_test"],
        num_proposals=case["num_proposals"],
        cut_no_attribute=True,
    )
    for name, value in settings.items():
        setattr(detector.config, name, value)
    edges = case["config"]["input"]
    size = {"shortest_edge": edges["min_size_test"], "longest_edge": edges["max_size_test"]}
    return BottomUpImageProcessor(size=size, resize_rule="interpolate")


def compare(detector: BottomUpDetector, name: str) -> None:
    case, expected, image = golden_case(name)
    inputs = as_the_demo(detector, case)(image, return_tensors="pt")
    bits = inputs["pixel_values"].numpy().astype("<f4").tobytes()
    assert hashlib.sha256(bits).hexdigest() == case["pixel_values_sha256_float32"]
    with torch.inference_mode():
        res4 = detector.res4(inputs["pixel_values"])
        found = detector(**inputs)
    channels = slice(None, None, case["res4_channel_step"])

    def close(got: Tensor, key: str, tolerance: float) -> None:
        torch.testing.assert_close(got, expected[key], rtol=0, atol=tolerance, msg=lambda text: f"{key}: {text}")

    close(res4[0, channels], "res4_channels", 1e-3)
    close(res4[0].mean((1, 2)), "res4_channel_mean", 1e-3)
    close(found.proposals[0], "proposals", 0.05)
    close(found.objectness[0], "objectness_logits", 1e-3)
    assert found.kept_indices[0].tolist() == expected["kept_indices"].tolist()
    close(found.boxes[0], "boxes", 0.05)
    close(found.features[0], "roi_features", 1e-3)
    close(found.class_probs[0].roll(-1, 1), "kept_class_probabilities", 1e-4)
    close(found.attribute_probs[0], "kept_attribute_probabilities", 1e-4)
    close(found.scores[0], "class_scores", 1e-4)
    close(found.attribute_scores[0], "attribute_scores", 1e-4)
    assert found.labels[0].tolist() == expected["class_ids"].tolist()
    assert found.attribute_labels[0].tolist() == expected["attribute_ids"].tolist()
    if "all_roi_features" not in expected:
        return
    detector.config.cut_no_attribute = False
    with torch.inference_mode():  # the same features for the same boxes, whoever names them
        given = detector(**inputs, boxes=[expected["proposals"]])
    close(given.features[0], "all_roi_features", 1e-3)
    close(given.class_probs[0].roll(-1, 1), "all_class_probabilities", 1e-4)
    kept = given.attribute_probs[0][expected["kept_indices"]].roll(-1, 1)
    close(kept, "kept_attribute_probabilities_all", 1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_network_agrees_with_the_original_code(small: BottomUpDetector, name: str) -> None:
    compare(small, name)


@pytest.mark.slow
def test_full_width_agrees_with_the_original_code(tmp_path: Path) -> None:
    compare(full_width_detector(tmp_path), FULL)


def full_width_detector(folder: Path) -> BottomUpDetector:
    """Return the released architecture with the golden case's weights, which its seed and overrides give."""
    root = golden_folder()
    case = json.loads((root / FULL / "case.json").read_text())
    overrides = load_file(root / FULL / "overrides.safetensors")
    draw = runpy.run_path(str(root / "weights_from_seed.py"))["draw"]
    widths = ((64, 256), (128, 512), (256, 1024), (512, 2048))
    shapes = key_shapes(64, widths, (3, 4, 23, 3), 512, 1600, 400)
    weights = {key: torch.from_numpy(draw(case["weights_seed"], key, shape)) for key, shape in shapes.items()}
    head = "roi_heads.box_predictor"
    for name, value in overrides.items():
        if f"{head}.{name}" in weights:
            weights[f"{head}.{name}"] = value
    plane = overrides["directions"]
    for name in ("cls_score", "bbox_pred"):
        weight = weights[f"{head}.{name}.weight"]
        weights[f"{head}.{name}.weight"] = (weight - (weight @ plane.T) @ plane) * overrides[f"gain.{name}"].float()
    weights[f"{head}.attr_score.weight"] *= overrides["gain.attr_score"].float()
    return from_predecessor(save_weights(folder / "full.safetensors", weights))  # type: ignore[return-value]


CASES = [f"case_{number}" for number in range(5)]


def selection(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    folder = golden_folder() / "selection"
    return json.loads((folder / "cases.json").read_text())[name], load_file(folder / f"{name}.safetensors")


@pytest.mark.parametrize("limits", [(10, 100), (36, 36), (10, 36)])
@pytest.mark.parametrize("name", CASES)
def test_tsv_rule_keeps_what_the_original_keeps(name: str, limits: tuple[int, int]) -> None:
    case, arrays = selection(name)
    boxes, scores = arrays["proposals"] / case["scale"], arrays["probabilities_background_first"][:, 1:]
    least, most = limits
    found = select_tsv(boxes, scores, threshold=0.3, score=0.2, least=least, most=most, extra=1)
    kept = arrays[f"tsv_{least}_{most}_kept"]
    best, _ = survivors(boxes, scores, 0.3, 1)
    # Proposals that survive in no class are all equal: numpy's order among them is not defined.
    surviving = int((best[kept] > 0).sum())
    assert found.indices[:surviving].tolist() == kept[:surviving].tolist()
    assert best[found.indices].tolist() == best[kept].tolist()
    torch.testing.assert_close(boxes[found.indices[:surviving]], arrays[f"tsv_{least}_{most}_boxes"][:surviving])


@pytest.mark.parametrize("rule", ["demo_10_36", "demo_36_36"])
@pytest.mark.parametrize("name", CASES)
def test_maxnms_rule_keeps_what_the_original_keeps(name: str, rule: str) -> None:
    case, arrays = selection(name)
    height, width = case["size_hw"]
    scores = arrays["probabilities_background_last"][:, :-1]
    boxes = arrays["regressed_boxes"].unflatten(1, (-1, 4))[torch.arange(len(scores)), scores.argmax(1)]
    boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]))
    _, least, most = rule.split("_")
    thresholds = case["rules"][rule]["thresholds"]
    found = select_maxnms(boxes, scores, thresholds=thresholds, least=int(least), most=int(most), extra=0)
    assert_chosen(found, boxes[found.indices], arrays, rule)


@pytest.mark.parametrize("name", CASES)
def test_perclass_rule_keeps_what_detectron2_keeps(name: str) -> None:
    case, arrays = selection(name)
    height, width = case["size_hw"]
    scores = arrays["probabilities_background_last"][:, :-1]
    boxes = arrays["regressed_boxes"].unflatten(1, (-1, 4))
    boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]))
    found = select_perclass(boxes, scores, thresholds=[0.5], score=0.2, least=36, most=36, extra=0)
    assert_chosen(found, boxes[found.indices, found.labels], arrays, "perclass_05_36")


def assert_chosen(found: Chosen, boxes: Tensor, arrays: dict[str, Tensor], rule: str) -> None:
    assert found.indices.tolist() == arrays[f"{rule}_kept"].tolist()
    assert found.labels.tolist() == arrays[f"{rule}_classes"].tolist()
    torch.testing.assert_close(found.scores, arrays[f"{rule}_scores"])
    torch.testing.assert_close(boxes, arrays[f"{rule}_boxes"])


def test_caffe_proposals_are_those_of_the_original() -> None:
    arrays = load_file(golden_folder() / "selection" / "caffe_proposals.safetensors")
    config = BottomUpConfig()
    order = [ratio * 4 + size for size in range(4) for ratio in range(3)]  # Caffe has sizes innermost
    anchors = rounded_anchors(config.anchor_sizes, config.anchor_ratios)
    torch.testing.assert_close(anchors, arrays["anchors"][order].float(), rtol=0, atol=0)
    height, width, scale = arrays["image_hw_scale"].tolist()
    boxes, logits = propose(
        arrays["objectness"][0][order].permute(1, 2, 0).logit(),
        arrays["deltas"][0].unflatten(0, (12, 4))[order].permute(2, 3, 0, 1),
        anchors,
        GEOMETRIES["caffe"],
        size=(int(height), int(width)),
        factor=scale,
        num_candidates=6000,
        num_proposals=300,
        threshold=0.7,
    )
    torch.testing.assert_close(boxes, arrays["proposals"], rtol=0, atol=0.05)
    torch.testing.assert_close(logits.sigmoid(), arrays["scores"])
