"""Write generated scenes as files: images with pair tables, and annotated images to train a detector."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.configuration.errors import MmptFileExistsError, MmptValueError
from mmpt.processing.generated_scenes.corpus import GeneratedScenes
from mmpt.processing.generated_scenes.scenes import (
    ALL_COMPOSITIONS,
    CLASS_NAMES,
    IMAGE_SIZE,
    Scene,
    render,
    sample_scene,
)

TABLES = ("train", "evaluation")
_DETECTOR_SCENES = 4  # random stream, distinct from those of the generated corpus


def write_corpus(folder: str | Path, corpus: GeneratedScenes) -> None:
    """Write every image of the corpus as `images/<image id>.png`, and `train.jsonl` and `evaluation.jsonl`.

    The tables have the columns of the corpus: text, image_id and the hard negatives.

    Raises:
        FileExistsError: if the folder already has images.
    """
    folder = Path(folder)
    images = _new_images(folder)
    for image_id, scene in corpus.scenes.items():
        _write_image(images / f"{image_id}.png", scene)
    for name in TABLES:
        rows = [json.dumps(row) for row in getattr(corpus, name)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_detector_scenes(folder: str | Path, count: int, seed: int) -> None:
    """Write scenes of all compositions as `images/<number>.png`, with `annotations.json` in COCO's layout.

    The scenes differ from those of any corpus: a detector trained on them has seen every class, but none of the images
    that regions are extracted from.

    Raises:
        FileExistsError: if the folder already has images.
        ValueError: if `count` is not positive.
    """
    if count < 1:
        raise MmptValueError(f"count is {count}, expected at least 1 scene")
    folder = Path(folder)
    images = _new_images(folder)
    scenes = [sample_scene(np.random.default_rng((seed, _DETECTOR_SCENES, k)), ALL_COMPOSITIONS) for k in range(count)]
    for number, scene in enumerate(scenes):
        _write_image(images / _file_name(number), scene)
    (folder / "annotations.json").write_text(json.dumps(_coco_layout(scenes)), encoding="utf-8")


def _coco_layout(scenes: list[Scene]) -> dict[str, list[dict[str, Any]]]:
    objects = [(number, item) for number, scene in enumerate(scenes) for item in scene.objects]
    return {
        "images": [
            {"id": number, "file_name": _file_name(number), "width": IMAGE_SIZE, "height": IMAGE_SIZE}
            for number in range(len(scenes))
        ],
        "annotations": [
            {
                "id": index,
                "image_id": number,
                "category_id": item.class_id,
                "bbox": [item.left, item.top, item.diameter, item.diameter],
                "area": item.diameter**2,
                "iscrowd": 0,
            }
            for index, (number, item) in enumerate(objects)
        ],
        "categories": [{"id": index, "name": name} for index, name in enumerate(CLASS_NAMES)],
    }


def _new_images(folder: Path) -> Path:
    images = folder / "images"
    if images.is_dir() and any(images.iterdir()):
        raise MmptFileExistsError(f"{images} already has files; remove it, or choose another folder")
    images.mkdir(parents=True, exist_ok=True)
    return images


def _file_name(number: int) -> str:
    return f"{number:06d}.png"


def _write_image(path: Path, scene: Scene) -> None:
    render(scene).save(path)
