"""The scenes of a recipe as image files, and a small detector trained on annotated ones.

    python -m examples.scenes_from_pixels.prepare images examples/scenes_from_pixels/pretrain.yaml runs/scenes
    python -m examples.scenes_from_pixels.prepare detector runs/scenes/annotated runs/scenes/detector

The detector is a small RT-DETR (Zhao et al. 2024) that sees one map, of stride 8. It learns from any folder of small
square images, all of one size, with annotations in the layout of COCO. The matching of its loss needs scipy.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoModelForObjectDetection,
    PreTrainedModel,
    RTDetrConfig,
    get_linear_schedule_with_warmup,
)
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

from mmpt.processing.generated_scenes.corpus import GeneratedScenes
from mmpt.processing.generated_scenes.images import write_corpus, write_detector_scenes
from mmpt.recipe.recipe import load_recipe

WIDTH = 64
HELD_OUT_SHARE = 1 / 8  # of the annotated images, to measure the detector on
BATCH = 16
Box = tuple[float, float, float, float]


@dataclass
class AnnotatedImages:
    """Images with their objects.

    Args:
        pixels: (images, 3, side, side), bytes.
        boxes: (objects, 4) of each image: centre, width and height as shares of the image.
        classes: (objects,) of each image.
        names: names of the classes.
    """

    pixels: Tensor
    boxes: list[Tensor]
    classes: list[Tensor]
    names: list[str]

    def inputs(self, rows: Tensor) -> Tensor:
        """Return the pixels of some images as the image processor gives them."""
        return self.pixels[rows].float() / 255

    def labels(self, rows: Tensor) -> list[dict[str, Tensor]]:
        """Return the objects of some images as detectors of transformers take them."""
        return [{"class_labels": self.classes[row], "boxes": self.boxes[row]} for row in rows.tolist()]


def write_images(recipe: str, folder: Path, annotated: int) -> None:
    """Write the images of the recipe's scenes, their pair tables, and annotated scenes to train a detector on.

    Raises:
        ValueError: if the recipe has no generated scenes.
    """
    source = load_recipe(recipe).data.generated
    if source is None:
        raise ValueError(f"{recipe} has no data.generated, expected a recipe of generated scenes")
    arguments = {name: value for name, value in asdict(source).items() if name != "region_store"}
    write_corpus(folder, GeneratedScenes.build(**arguments))
    write_detector_scenes(folder / "annotated", annotated, source.seed)


def read_annotated(folder: Path) -> AnnotatedImages:
    """Read `images/` and `annotations.json` of a folder."""
    coco = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    class_ids = {category["id"]: number for number, category in enumerate(coco["categories"])}
    objects: dict[int, list[tuple[Box, int]]] = {image["id"]: [] for image in coco["images"]}
    for item in coco["annotations"]:
        objects[item["image_id"]].append((item["bbox"], class_ids[item["category_id"]]))
    pixels, boxes = [], []
    for image in coco["images"]:
        pixels.append(np.asarray(Image.open(folder / "images" / image["file_name"]).convert("RGB")).transpose(2, 0, 1))
        corners = torch.tensor([box for box, _ in objects[image["id"]]]).float().reshape(-1, 4)  # x y width height
        corners[:, :2] += corners[:, 2:] / 2
        boxes.append(corners / torch.tensor([image["width"], image["height"]] * 2))
    classes = [torch.tensor([number for _, number in objects[image["id"]]]).long() for image in coco["images"]]
    names = [category["name"] for category in coco["categories"]]
    return AnnotatedImages(torch.from_numpy(np.stack(pixels)), boxes, classes, names)


def build_detector(names: list[str]) -> PreTrainedModel:
    """Return a detector with random weights, made to be trained from them in minutes."""
    backbone = dict(
        model_type="rt_detr_resnet",
        embedding_size=32,
        hidden_sizes=[32, 64],
        depths=[1, 1],
        layer_type="basic",
        out_indices=[2],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        feat_strides=[8],
        num_feature_levels=1,
        encoder_in_channels=[64],
        encoder_hidden_dim=WIDTH,
        encode_proj_layers=[],
        encoder_layers=0,
        decoder_in_channels=[WIDTH],
        d_model=WIDTH,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=2 * WIDTH,
        num_queries=12,
        num_denoising=12,
        initializer_range=0.1,  # 0.01 is made for a width of 256
        id2label=dict(enumerate(names)),
    )
    model = AutoModelForObjectDetection.from_config(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # transformers draws it around 0, which holds training up for long
    return model


def train_detector(
    model: PreTrainedModel, data: AnnotatedImages, steps: int, learning_rate: float, seed: int
) -> list[float]:
    """Train on all but the held-out images and return the loss of every step."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    rows, losses = torch.zeros(0, dtype=torch.long), []
    model.train()
    for step in range(steps):
        if len(rows) < BATCH:
            rows = torch.cat([rows, torch.randperm(len(data.boxes) - _held_out(data))])
        chosen, rows = rows[:BATCH], rows[BATCH:]
        loss = model(data.inputs(chosen), labels=data.labels(chosen)).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} of {steps}, loss {np.mean(losses[-50:]):.2f}", flush=True)
    return losses


@torch.no_grad()
def measure_detector(model: PreTrainedModel, data: AnnotatedImages, threshold: float) -> dict[str, float]:
    """Return what the queries with a score of at least `threshold` find of the held-out objects.

    - found: share of the objects with a query of their class and an IoU of at least 0.5, each query for one object;
    - doubles: queries on an object that another one found already, by object; false: all other queries, by object;
    - iou: mean IoU of the found with their queries.
    """
    model.eval()
    counts = dict.fromkeys(("found", "doubles", "false", "iou"), 0.0)
    rows = torch.arange(len(data.boxes) - _held_out(data), len(data.boxes))
    for chunk in rows.split(BATCH):
        output = model(data.inputs(chunk))
        for row, logits, boxes in zip(chunk.tolist(), output.logits, output.pred_boxes, strict=True):
            scores, classes = logits.sigmoid().max(-1)
            keep = scores >= threshold
            order = scores[keep].argsort(descending=True)
            ious = _iou(boxes[keep][order], data.boxes[row])
            ious = ious * (classes[keep][order][:, None] == data.classes[row])  # (queries, objects)
            free = torch.ones(len(data.boxes[row]), dtype=torch.bool)
            for query in ious:
                best, number = (query * free).max(0)
                if best >= 0.5:
                    free[number] = False
                    counts["found"] += 1
                    counts["iou"] += float(best)
                else:
                    counts["doubles" if query.max() >= 0.5 else "false"] += 1
    objects = sum(len(data.boxes[row]) for row in rows.tolist())
    counts["iou"] *= objects / max(counts["found"], 1)
    return {name: round(count / objects, 4) for name, count in counts.items()} | {"objects": objects}


def _held_out(data: AnnotatedImages) -> int:
    return max(1, round(HELD_OUT_SHARE * len(data.boxes)))


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """(boxes, 4) and (others, 4), centre, width and height; returns (boxes, others)."""
    low = torch.maximum((one[:, :2] - one[:, 2:] / 2)[:, None], (other[:, :2] - other[:, 2:] / 2)[None])
    high = torch.minimum((one[:, :2] + one[:, 2:] / 2)[:, None], (other[:, :2] + other[:, 2:] / 2)[None])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (one[:, 2:].prod(-1)[:, None] + other[:, 2:].prod(-1)[None] - shared)


def main(arguments: list[str] | None = None) -> None:
    """Write images, or train a detector and save it with its image processor and what it finds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    images = commands.add_parser("images", help="write the images of a recipe's scenes, and annotated ones")
    images.add_argument("recipe")
    images.add_argument("folder", type=Path)
    images.add_argument("--annotated", type=int, default=4000, help="scenes to train a detector on")
    detector = commands.add_parser("detector", help="train a detector on annotated images")
    detector.add_argument("annotated", type=Path, help="folder with images/ and annotations.json")
    detector.add_argument("out", type=Path)
    detector.add_argument("--steps", type=int, default=800)
    detector.add_argument("--learning-rate", type=float, default=2e-3)
    detector.add_argument("--seed", type=int, default=0)
    detector.add_argument("--threshold", type=float, default=0.3, help="least score of a query that is measured")
    given = parser.parse_args(arguments)
    if given.command == "images":
        write_images(given.recipe, given.folder, given.annotated)
        return
    data = read_annotated(given.annotated)
    torch.manual_seed(given.seed)
    model = build_detector(data.names)
    train_detector(model, data, given.steps, given.learning_rate, given.seed)
    measures = measure_detector(model, data, given.threshold)
    model.save_pretrained(given.out)
    height, width = data.pixels.shape[2:]
    RTDetrImageProcessorPil(size={"height": height, "width": width}).save_pretrained(given.out)
    (given.out / "detection.json").write_text(json.dumps(measures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(measures))


if __name__ == "__main__":
    main()
