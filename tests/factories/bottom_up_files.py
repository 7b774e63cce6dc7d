"""Small detectors with random weights under the names of the published files, and the golden cases."""

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmpt.modeling_mmpt.box_geometry import centred_anchors, rounded_anchors

Weights = dict[str, Tensor]
SIZES = [64, 128, 256, 512]
RATIOS = [0.5, 1.0, 2.0]
CLASSES, ATTRIBUTES = 20, 12
WIDTHS = ((8, 16), (16, 32), (32, 64), (64, 128))  # inside and behind res2 to res5
DEPTHS = (1, 2, 2, 2)


def golden_folder() -> Path:
    """Return the folder of the golden vectors, or skip."""
    root = os.environ.get("MMPT_TEST_DATA")
    if root is None or not Path(root, "bottom_up").is_dir():
        pytest.skip("set MMPT_TEST_DATA to a folder with bottom_up/, the vectors of the original code")
    return Path(root, "bottom_up")


def golden_case(name: str) -> tuple[dict[str, Any], Weights, Image.Image]:
    """Return the settings, the tensors and the image of a case."""
    folder = golden_folder()
    case = json.loads((folder / name / "case.json").read_text())
    return case, load_file(folder / name / "tensors.safetensors"), Image.open(folder / case["image"])


def draw(seed: int, key: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Draw sane weights from a key's name: maps keep their size through the layers, and classes are told apart."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if key.endswith("running_var"):
        return ((1e4 if ".stem." in key else 1.0) * rng.uniform(0.5, 1.5, shape)).astype(np.float32)
    if ".norm." in key and key.endswith("weight"):
        low, high = (0.15, 0.35) if ".conv3." in key else (0.8, 1.2)
        return rng.uniform(low, high, shape).astype(np.float32)
    if key.endswith(("running_mean", "bias")):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:])) if "cls_embedding" not in key else 1
    gains = {"anchor_deltas": 0.25, "objectness_logits": 1.0, "bbox_pred": 1.0, "cls_score": 1.0, "cls_embedding": 0.5}
    gain = next((value for name, value in gains.items() if name in key), 2.0**0.5)
    return (gain / fan_in**0.5 * rng.standard_normal(shape)).astype(np.float32)


def key_shapes(
    stem: int = 8,
    widths: tuple[tuple[int, int], ...] = WIDTHS,
    depths: tuple[int, ...] = DEPTHS,
    rpn: int = 24,
    classes: int = CLASSES,
    attributes: int = ATTRIBUTES,
) -> dict[str, tuple[int, ...]]:
    """Return the keys of `unc-nlp/frcnn-vg-finetuned` with their shapes, the anchors and counters excepted."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(key: str, out: int, width: int, size: int) -> None:
        shapes[f"{key}.weight"] = (out, width, size, size)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{key}.norm.{name}"] = (out,)

    def linear(key: str, out: int, *rest: int) -> None:
        shapes[f"{key}.weight"], shapes[f"{key}.bias"] = (out, *rest), (out,)

    convolution("backbone.stem.conv1", stem, 3, 7)
    width = stem
    for number, ((inner, out), depth) in enumerate(zip(widths, depths, strict=True)):
        prefix = f"{'roi_heads' if number == 3 else 'backbone'}.res{number + 2}"
        for block in range(depth):
            if block == 0:
                convolution(f"{prefix}.0.shortcut", out, width, 1)
            convolution(f"{prefix}.{block}.conv1", inner, width, 1)
            convolution(f"{prefix}.{block}.conv2", inner, inner, 3)
            convolution(f"{prefix}.{block}.conv3", out, inner, 1)
            width = out
    linear("proposal_generator.rpn_head.conv", rpn, widths[2][1], 3, 3)
    linear("proposal_generator.rpn_head.objectness_logits", 12, rpn, 1, 1)
    linear("proposal_generator.rpn_head.anchor_deltas", 48, rpn, 1, 1)
    linear("roi_heads.box_predictor.cls_score", classes + 1, width)
    linear("roi_heads.box_predictor.bbox_pred", 4 * classes, width)
    if attributes:
        shapes["roi_heads.box_predictor.cls_embedding.weight"] = (classes + 1, width // 8)
        linear("roi_heads.box_predictor.fc_attr", width // 4, width + width // 8)
        linear("roi_heads.box_predictor.attr_score", attributes + 1, width // 4)
    return shapes


def draw_weights(seed: int = 3, **sizes: Any) -> Weights:
    """Return the state dict of `unc-nlp/frcnn-vg-finetuned`, with random weights."""
    weights = {key: torch.from_numpy(draw(seed, key, shape)) for key, shape in key_shapes(**sizes).items()}
    # Classes that tell images apart: of the first random weights each would be as likely as the other.
    for name in ("cls_score", "attr_score"):
        if f"roi_heads.box_predictor.{name}.weight" in weights:
            weights[f"roi_heads.box_predictor.{name}.weight"] *= 4
    weights["proposal_generator.anchor_generator.cell_anchors.0"] = centred_anchors(SIZES, RATIOS)
    return weights


def save_research_folder(folder: Path, weights: Mapping[str, Tensor]) -> Path:
    """Write the weights as `unc-nlp/frcnn-vg-finetuned` has them: config.yaml, pytorch_model.bin with counters."""
    folder.mkdir(parents=True)
    counters = {
        key.replace("running_var", "num_batches_tracked"): torch.tensor(0) for key in weights if "running_var" in key
    }
    torch.save({**weights, **counters}, folder / "pytorch_model.bin")
    (folder / "config.yaml").write_text("model:\n  max_pool: true\nroi_box_head:\n  res5halve: false\n")
    return folder


def save_detectron2_pickle(path: Path, weights: Mapping[str, Tensor], protocol: int = 2) -> Path:
    """Write the weights as faster_rcnn_from_caffe_attr.pkl has them: numpy arrays in a dict."""
    model = {key: value.numpy() for key, value in weights.items() if "cell_anchors" not in key}
    made = {"model": model, "__author__": "someone", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(made, protocol=protocol))
    return path


def save_caffe_checkpoint(path: Path, weights: Mapping[str, Tensor]) -> Path:
    """Write the weights as bua-caffe-frcn-r101-*.pth has them.

    Background and "no attribute" come first, an anchor has two scores and Caffe's order (ratios outermost), boxes have
    rows for the background, and their deltas are already divided by 10, 10, 5, 5.
    """
    head, rpn = "roi_heads.box_predictor", "proposal_generator.rpn_head"
    made = dict(weights)
    for key in [key for key in made if key.startswith((f"{head}.cls_score", f"{head}.cls_emb", f"{head}.attr_score"))]:
        made[key] = torch.cat([made[key][-1:], made[key][:-1]])
    renamed = {"cls_embedding": "cls_embed", "fc_attr": "attr_linear1", "attr_score": "attr_linear2"}
    for old, new in renamed.items():
        for key in [key for key in made if key.startswith(f"{head}.{old}.")]:
            made[key.replace(old, new)] = made.pop(key)
    order = [size * 3 + ratio for ratio in range(3) for size in range(4)]
    for name in ("weight", "bias"):
        scores = made[f"{rpn}.objectness_logits.{name}"][order]
        half = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1)) * 0.01
        made[f"{rpn}.objectness_logits.{name}"] = torch.cat([half, half + scores])
        deltas = made[f"{rpn}.anchor_deltas.{name}"]
        made[f"{rpn}.anchor_deltas.{name}"] = deltas.unflatten(0, (12, 4))[order].flatten(0, 1)
        boxes = made[f"{head}.bbox_pred.{name}"].unflatten(0, (-1, 4))
        scale = torch.tensor([10.0, 10, 5, 5]).view(1, 4, *[1] * (boxes.ndim - 2))
        made[f"{head}.bbox_pred.{name}"] = torch.cat([torch.zeros_like(boxes[:1]), boxes / scale]).flatten(0, 1)
    made["proposal_generator.anchor_generator.cell_anchors.0"] = rounded_anchors(SIZES, RATIOS)[order]
    torch.save({"model": made, "iteration": 1}, path)
    return path


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> Path:
    """Write the weights as safetensors."""
    save_file(dict(weights), path)
    return path


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return an image of coarse random patches."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)
