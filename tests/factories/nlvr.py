"""A tiny corpus in the layout that examples/nlvr reads: objects of every colour, shape and size."""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PilImage

from examples.nlvr.pictures import draw_scene
from examples.nlvr.scenes import Scene, scene_of

CLASSES = [f"{colour} {shape}" for colour in ("yellow", "black", "blue") for shape in ("square", "circle", "triangle")]
FEATURES = Features(
    {
        "identifier": Value("string"),
        "group": Value("int32"),
        "permutation": Value("int8"),
        "image": Image(),
        "sentence": Value("string"),
        "label": ClassLabel(names=["false", "true"]),
        "objects": {
            "bbox": List(List(Value("float32"), length=4)),
            "category": List(ClassLabel(names=CLASSES)),
            "panel": List(Value("int8")),
        },
    }
)


def scene(number: int) -> tuple[Scene, list[list[float]], list[int], list[int]]:
    """Return the scene of this number, its boxes in pixels, categories and panels: six objects, two in each box.

    Scenes 0 to 8 have all 27 kinds; what there is, and where, changes with the number.
    """
    side, first = (10, 20, 30)[number % 3], number // 3 * 3
    categories = [(first + kind) % 9 for kind in range(6)]
    corners = [(150 * (kind // 2) + 50 * (kind % 2), (7 * number + 5 * kind) % 70) for kind in range(6)]
    boxes = [[float(edge) for edge in (x, y, x + side, y + side)] for x, y in corners]
    panels = [kind // 2 for kind in range(6)]
    return scene_of(np.array(boxes, np.float32), np.array(categories), np.array(panels)), boxes, categories, panels


def write_split(folder: Path, split: str, groups: list[int]) -> None:
    """Write `<split>-00000-of-00001.parquet`: four rows a group, the first two true, each in two orders of boxes."""
    rows = []
    for place, group in enumerate(groups):
        for member in range(4):
            drawn, boxes, categories, panels = scene(4 * place + member + (100 if split != "train" else 0))
            rows += [
                {
                    "identifier": f"{split}-{group}-{member}",
                    "group": group,
                    "permutation": permutation,
                    "image": draw_scene(drawn) if permutation == 0 else PilImage.new("RGB", (400, 100)),
                    "sentence": f"There is a box number {group}",
                    "label": int(member < 2),
                    "objects": {"bbox": boxes, "category": categories, "panel": panels},
                }
                for permutation in (0, 1)
            ]
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=FEATURES).to_parquet(folder / f"{split}-00000-of-00001.parquet")
