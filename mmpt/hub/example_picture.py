"""The picture on a card: an example of the run with the model's answer and the region that decides it."""

import logging
from pathlib import Path
from typing import Any

from mmpt.explanations.decision import EXPLAINED
from mmpt.explanations.explanation import explain
from mmpt.explanations.figures import draw_explanation
from mmpt.inference.model_functions import main_function
from mmpt.inference.pipeline import MmptPipeline
from mmpt.processing.regions import Regions

logger = logging.getLogger(__name__)

EXAMPLE = "example.png"


def draw_example(folder: Path, text: str, regions: Regions | None, image: Any = None) -> bool:
    """Draw the answer of the model that a folder holds into `EXAMPLE`, and return whether it was drawn.

    It is not without Matplotlib, before the model is saved, and for tasks that ask about more than a text and an image.

    Args:
        image: the picture that the regions are of, if there is one.
    """
    if regions is None or not len(regions) or not any(folder.glob("model*.safetensors")):
        return False
    try:
        pipeline = MmptPipeline.from_pretrained(folder, device="cpu", allow_other_regions=True)
        if main_function(pipeline.model) not in EXPLAINED:
            return False
        draw_explanation(explain(pipeline, text, regions), image).save(folder / EXAMPLE)
    except Exception as error:  # a run of days must not be lost for a picture
        logger.warning("the card has no picture of an example: %s", error)
        return False
    return True
