"""Regions of bottom-up attention's detector, as a released model was trained on them."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmpt.configuration.configuration_bottom_up import Background, BottomUpConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.modeling_bottom_up import BottomUpDetector, BottomUpOutput
from mmpt.processing.region_extraction.detector_backend import Arrays

BACKGROUND = "background"


class BottomUpBackend:
    """The regions that the detector's own rules select, or given boxes; the detector tells classes and attributes.

    Args:
        preset: name of what set the model's rules, for the record.
        background: "first" keeps the background as class 0; "none" leaves it out, and the other probabilities sum to 1.
        given: whether images come with boxes.

    Raises:
        ValueError: if `background` is another word.
    """

    pixel_boxes = True

    def __init__(self, model: BottomUpDetector, *, preset: str | None, background: Background, given: bool) -> None:
        if background not in get_args(Background):
            raise MmptValueError(f"background is {background!r}, expected one of {', '.join(get_args(Background))}")
        self.model: Any = model
        self.name = "boxes" if given else "detector"
        self._preset = preset
        self._background = background

    @property
    def class_names(self) -> list[str]:
        """Names of the classes by index."""
        names = self.model.config.names_of("class")
        return names if self._background == "none" else [BACKGROUND, *names]

    @property
    def feature_dim(self) -> int:
        """Numbers in one region's feature."""
        return self.model.config.stage_widths[3]

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which regions come out, as JSON."""
        config = self.model.config
        rules = {name: getattr(config, name) for name in BottomUpConfig.preset_fields}
        return {
            "preset": self._preset,
            **rules,
            "score_threshold": config.score_threshold,
            "num_proposals": config.num_proposals,
            "background": self._background,
            "label_space": "background_first" if self._background == "first" else "no_background",
        }

    def forward(self, inputs: dict[str, Tensor], boxes: Sequence[NDArray[np.float32]] | None) -> BottomUpOutput:
        """Run the detector; boxes (regions, 4) are shares of the image."""
        height, width = inputs["pixel_values"].shape[2:]
        scale = torch.tensor([width, height, width, height], dtype=torch.float32)
        given = None if boxes is None else [torch.from_numpy(one) * scale for one in boxes]
        return self.model(**inputs, boxes=given)

    def regions(self, output: BottomUpOutput, boxes: Sequence[NDArray[np.float32]] | None) -> list[Arrays]:
        """Return the arrays of each image's regions; boxes in pixels of the original image."""
        found = []
        for row, features in enumerate(output.features or ()):
            arrays = {"features": features}
            for name in ("boxes", "class_probs", "labels", "scores", "attribute_labels", "attribute_scores"):
                values = getattr(output, name)
                if values is not None:
                    arrays[name] = values[row]
            if self._background == "none":
                foreground = arrays["class_probs"][:, 1:]
                arrays["class_probs"] = foreground / foreground.sum(1, keepdim=True)
            else:
                arrays["labels"] = arrays["labels"] + 1
            found.append({name: tensor.cpu().numpy() for name, tensor in arrays.items()})
        return found
