"""The pictures of an explanation as files."""

import json
from collections.abc import Iterator
from pathlib import Path

from mmpt.configuration.errors import MmptFileExistsError
from mmpt.explanations.explanation import Explanation
from mmpt.explanations.figures import (
    Picture,
    draw_attention,
    draw_explanation,
    draw_masked_regions,
    draw_relevance,
)


def write_explanation(explanation: Explanation, folder: Path, image: Picture = None) -> Iterator[Path]:
    """Write explanation.json and the pictures that the model has, and yield each file.

    Args:
        image: the picture that the regions are of; empty sheets without.

    Raises:
        FileExistsError: if the folder's name is that of a file.
        ImportError: without Matplotlib.
    """
    if folder.exists() and not folder.is_dir():
        raise MmptFileExistsError(f"{folder} is a file, expected a folder to write pictures to")
    pictures = {"answer.png": lambda: draw_explanation(explanation, image)}
    pictures["relevance.png"] = lambda: draw_relevance(explanation, image)
    if explanation.attention.text_to_region is not None:
        pictures["attention.png"] = lambda: draw_attention(explanation)
    if explanation.masked_regions:
        pictures["masked_regions.png"] = lambda: draw_masked_regions(explanation, image)
    drawn = {name: draw() for name, draw in pictures.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in drawn.items():
        picture.save(folder / name)
        yield folder / name
    text = json.dumps(explanation.as_dict(), indent=1, ensure_ascii=False)
    (folder / "explanation.json").write_text(text + "\n", encoding="utf-8")
    yield folder / "explanation.json"
