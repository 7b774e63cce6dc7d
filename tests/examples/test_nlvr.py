"""NLVR v1: a folder of Parquet files becomes true pairs with regions from their objects."""

import os
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PilImage
from PIL import ImageDraw

from mmpt.processing.corpora.nlvr import read_nlvr
from mmpt.processing.pairs.dataset import PairDataset

COLOURS = {"yellow": (255, 255, 0), "black": (0, 0, 0), "blue": (0, 153, 255)}
SHAPES = ("square", "circle", "triangle")
CLASSES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def draw(rng: np.random.Generator) -> tuple[PilImage.Image, dict[str, list]]:
    """An image of three panels with an object in each, and its objects."""
    image = PilImage.new("RGB", (400, 100), (211, 211, 211))
    canvas = ImageDraw.Draw(image)
    objects = {"bbox": [], "category": [], "panel": []}
    for panel in range(3):
        colour, shape = int(rng.integers(3)), int(rng.integers(3))
        left, top = 150 * panel + int(rng.integers(70)), int(rng.integers(70))
        box = (left, top, left + 20, top + 20)
        edges, fill = (box[0], box[1], box[2] - 1, box[3] - 1), list(COLOURS.values())[colour]
        if shape == 2:
            canvas.polygon([(left, box[3] - 1), (left + 10, top), (box[2] - 1, box[3] - 1)], fill=fill)
        else:
            (canvas.rectangle, canvas.ellipse)[shape](edges, fill=fill)
        objects["bbox"].append([float(edge) for edge in box])
        objects["category"].append(3 * colour + shape)
        objects["panel"].append(panel)
    return image, objects


def write_split(folder: Path, split: str, groups: int) -> None:
    features = Features(
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
    rng = np.random.default_rng(len(split))
    rows = []
    for group in range(groups):
        for place, label in enumerate((1, 1, 0, 0)):
            image, objects = draw(rng)
            rows += [
                {
                    "identifier": f"{split}-{group}-{place}",
                    "group": group,
                    "permutation": permutation,
                    "image": image,
                    "sentence": f"There is a box number {group}",
                    "label": label,
                    "objects": objects,
                }
                for permutation in (0, 1)
            ]
    Dataset.from_list(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def test_true_sentences_are_paired_and_false_images_are_hard_negatives(tmp_path: Path) -> None:
    write_split(tmp_path, "train", groups=12)
    write_split(tmp_path, "dev", groups=2)
    corpus = read_nlvr(tmp_path)
    assert corpus.train["image_id"] == [f"train-{group}-{place}" for group in range(12) for place in (0, 1)]
    assert corpus.train["hard_negative_image_ids"][0] == ["train-0-2", "train-0-3"]
    assert len(corpus.dev) == 4
    assert len(corpus.regions) == 56
    regions = corpus.regions["train-0-0"]
    assert regions.type_ids.tolist() == [0, 1, 2]
    assert (regions.width, regions.height) == (400, 100)
    assert regions.boxes[1, 0] >= 150 / 400
    assert np.allclose(regions.class_probs.sum(1), 1, atol=1e-5)
    PairDataset(corpus.train, corpus.regions)  # every image of the table has regions


def test_a_folder_without_the_corpus_says_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"has no train-\*\.parquet; NLVR v1 is at https://github.com/lil-lab/nlvr"
    ):
        read_nlvr(tmp_path)


@pytest.mark.skipif(
    not (Path(os.environ.get("MMPT_TEST_DATA", "")) / "nlvr").is_dir(),
    reason="MMPT_TEST_DATA has no folder nlvr; docs/nlvr.md tells how to make it from https://github.com/lil-lab/nlvr",
)
def test_the_real_corpus_is_read_whole() -> None:
    corpus = read_nlvr(Path(os.environ["MMPT_TEST_DATA"]) / "nlvr")
    assert (len(corpus.train), len(corpus.dev), len(corpus.class_names)) == (6996, 547, 9)
    accuracy = np.mean(
        [regions.class_probs.max(1).mean() for _, regions in zip(range(200), corpus.regions.values(), strict=False)]
    )
    assert 0.8 < accuracy < 1.0  # a distribution, not a certainty
