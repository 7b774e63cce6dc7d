"""Regions of a detector: its queries, their boxes and their distributions over classes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmpt.configuration.errors import MmptValueError

Arrays = dict[str, NDArray[Any]]  # fields of Regions


class DetectorBackend:
    """The best queries of any detector that transformers loads for object detection.

    A region's feature is the last hidden state of its query. Its score is the highest probability of a class, and ranks
    the queries; `class_probs` is the softmax over the classes, without the no-object column where the detector has one.
    A softmax detector's probability that there is an object is the score divided by the highest of `class_probs`.

    Args:
        max_regions: keep at most this many queries.
        min_regions: keep at least this many of the best, below the threshold too.
        threshold: keep the queries whose score is at least this.
    """

    name = "detector"
    pixel_boxes = False
    feature_dim = None

    def __init__(self, model: Any, *, max_regions: int | None, min_regions: int, threshold: float) -> None:
        self.model = model
        self._limits = (min_regions, max_regions)
        self._threshold = threshold

    @property
    def has_no_object(self) -> bool:
        """Whether the last logit means "no object": the probabilities are a softmax then, or else sigmoids."""
        return self.model.config.model_type in _SOFTMAX_TYPES or _last_class_is_no_object(self.model.config)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes by index; where the detector leaves an index out, "N/A"."""
        config = self.model.config
        names = [str(config.id2label.get(index, "N/A")) for index in range(config.num_labels)]
        return names[:-1] if _last_class_is_no_object(config) else names

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which regions come out, as JSON."""
        low, high = self._limits
        kind = ("softmax", "softmax without no-object") if self.has_no_object else ("sigmoid", "softmax")
        return {
            "max_regions": high,
            "min_regions": low,
            "threshold": self._threshold,
            "scores": kind[0],
            "class_probs": kind[1],
        }

    def forward(self, inputs: dict[str, Tensor], boxes: None) -> Any:
        """Run the detector."""
        return self.model(**inputs)

    def regions(self, output: Any, boxes: None) -> list[Arrays]:
        """Return the arrays of each image's regions, the best first."""
        got, expected = output.logits.shape[-1], len(self.class_names) + self.has_no_object
        if got != expected:
            raise MmptValueError(
                f"{type(self.model).__name__} gives {got} logits a query, expected {expected} "
                f"({self.settings['scores']} over {len(self.class_names)} classes); mmpt does not know this detector"
            )
        found = rank_queries(output.logits, output.pred_boxes, output.last_hidden_state, self.has_no_object)
        arrays = {name: tensor.cpu().numpy() for name, tensor in found.items()}
        return [
            self._keep({name: array[row] for name, array in arrays.items()}) for row in range(len(arrays["features"]))
        ]

    def _keep(self, queries: Arrays) -> Arrays:
        boxes = queries["boxes"]
        whole = (boxes[:, 2:] > boxes[:, :2]).all(1)
        if not whole.any():
            return _whole_image(queries)
        low, high = self._limits
        count = max(int((queries["scores"][whole] >= self._threshold).sum()), low)
        count = count if high is None else min(count, high)
        return {name: array[whole][:count] for name, array in queries.items()}


def rank_queries(logits: Tensor, boxes: Tensor, hidden: Tensor, has_no_object: bool) -> dict[str, Tensor]:
    """Return features, boxes, class_probs, labels and scores of all queries, each image's best first.

    Shapes: logits (batch, queries, classes or classes + 1), boxes (batch, queries, 4) as centre, width and height,
    hidden (batch, at least queries, feature) with the queries last.
    """
    logits, boxes, hidden = logits.float(), boxes.float(), hidden.float()
    hidden = hidden[:, -logits.shape[1] :]  # YOLOS has its patches first
    if has_no_object:
        probs = logits.softmax(-1)[..., :-1]
        logits = logits[..., :-1]
    else:
        probs = logits.sigmoid()
    scores, labels = probs.max(-1)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    centre, size = boxes.split(2, dim=-1)
    corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1).clamp(0, 1)  # a box may leave the image

    def sort(tensor: Tensor) -> Tensor:
        return tensor.gather(1, order[..., None].expand(-1, -1, tensor.shape[-1]))

    return {
        "features": sort(hidden),
        "boxes": sort(corners),
        "class_probs": sort(logits.softmax(-1)),
        "labels": labels.gather(1, order),
        "scores": scores,
    }


_SOFTMAX_TYPES = ("detr", "table-transformer", "yolos")  # their heads have a logit beyond the classes


def _last_class_is_no_object(config: Any) -> bool:
    """The RT-DETR family without focal loss has no logit beyond its classes; the last one is "no object"."""
    return not getattr(config, "use_focal_loss", True)


def _whole_image(queries: Arrays) -> Arrays:
    """Return one region over the whole image: the mean of what the queries say."""
    probs = queries["class_probs"].mean(0, keepdims=True)
    return {
        "features": queries["features"].mean(0, keepdims=True),
        "boxes": np.asarray([[0, 0, 1, 1]], dtype=np.float32),
        "class_probs": probs,
        "labels": probs.argmax(1),
        "scores": queries["scores"].mean(0, keepdims=True),
    }
