"""The models and scenes that come with the package: `load_example()`, and `example` where a command takes a model."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmpt.configuration.errors import MmptValueError
from mmpt.inference.pipeline import MmptPipeline
from mmpt.processing.regions import Regions

FOLDER = Path(__file__).resolve().parent
STREAMS = ("single", "dual")
REGION_FIELDS = ("features", "boxes", "class_probs", "labels", "scores", "width", "height", "image_id")


@dataclass
class ExampleScene:
    """A rendered scene.

    Args:
        text: its caption with one word masked.
        word: the word.
        image: the picture.
        regions: those of the picture, as the models were trained on.
        path: the picture's file; the regions lie beside it, as .npz.
    """

    text: str
    word: str
    image: Image.Image
    regions: Regions
    path: Path


def load_example(stream: str = "single") -> tuple[MmptPipeline, list[ExampleScene]]:
    """Return a small pre-trained model as a pipeline, and three scenes that it was not trained on, without a network.

    The model is that of recipes/tiny.yaml, stored in half precision; its card is beside it.

    Args:
        stream: "single" or "dual".

    Raises:
        ValueError: for another stream.
    """
    folder = example_model(stream)
    return MmptPipeline.from_pretrained(folder), load_scenes()


def example_model(stream: str = "single") -> Path:
    """Return the folder of a packaged model.

    Raises:
        ValueError: for a stream that there is not.
    """
    if stream not in STREAMS:
        raise MmptValueError(f"stream is {stream!r}, expected one of {', '.join(STREAMS)}")
    return FOLDER / f"{stream}-stream"


def load_scenes() -> list[ExampleScene]:
    """Return the packaged scenes."""
    folder = FOLDER / "scenes"
    scenes = []
    for row in json.loads((folder / "scenes.json").read_text(encoding="utf-8")):
        path = folder / row["file"]
        with Image.open(path) as image:
            picture = image.convert("RGB")
        scenes.append(ExampleScene(row["text"], row["word"], picture, read_regions(path.with_suffix(".npz")), path))
    return scenes


def read_regions(path: Path) -> Regions:
    """Return regions from an .npz file with the fields of `Regions`, as `np.savez` writes it.

    Raises:
        ValueError: if the file is none, lacks features or boxes, or holds objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            fields = {name: file[name].item() if file[name].ndim == 0 else file[name] for name in file.files}
        return Regions(**fields)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise MmptValueError(
            f"{path} cannot be read as regions ({error}); expected an .npz file with features and boxes, as np.savez "
            "writes it"
        ) from None


def write_regions(path: Path, regions: Regions) -> None:
    """Write regions as an .npz file that `read_regions` and the pipelines of transformers read."""
    given = {name: getattr(regions, name) for name in REGION_FIELDS}
    halves = {
        name: value.astype(np.float16) if name in ("features", "class_probs") else value
        for name, value in given.items()
        if value is not None
    }
    np.savez_compressed(path, **halves)
