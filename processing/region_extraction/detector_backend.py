"""Regions of a detector: its queries with boxes and class probabilities."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmpt.configuration.errors import MmptValueError

Arrays = dict[str, NDArray[Any]]  # field of Regions -> array


class DetectorBackend:
    """Keep the best queries of any detector that transformers loads for object detection.

    The feature of a region is the last hidden state of its query. Its score is the highest class probability, by which
    queries are ranked. `class_probs` is the softmax over the classes, without the no-object logit if there is one. For
    a softmax detector, the probability of an object is the score divided by the highest of `class_probs`.

    Args:
        max_regions: keep at most this many queries.
        min_regions: keep at least this many of the best queries, even below the threshold.
        threshold: keep queries with at least this score.
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
        """Whether the last logit means "no object"; then probabilities are a softmax, otherwise sigmoids."""
        return self.model.config.model_type in _SOFTMAX_TYPES or _last_class_is_no_object(self.model.config)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes by index, "N/A" for an index that the detector does not use."""
        config = self.model.config
        names = [str(config.id2label.get(index, "N/A")) for index in range(config.num_labels)]
        return names[:-1] if _last_class_is_no_object(config) else names

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that affect the output, as JSON."""
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
        """Return the arrays of each image's regions, sorted by descending score."""
        got, expected = output.logits.shape[-1], len(self.class_names) + self.has_no_object
        if got != expected:
            raise MmptValueError(
                f"{type(self.model).__name__} gives {got} logits per query, expected {expected} "
                f"({self.settings['scores']} over {len(self.class_names)} classes); mmpt does not support this detector"
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
    """Return features, boxes, class_probs, labels and scores of all queries, sorted per image by descending score.

    Args:
        logits: (batch, queries, classes), or (batch, queries, classes + 1) with `has_no_object`.
        boxes: (batch, queries, 4), normalised centre x, centre y, width, height.
        hidden: (batch, tokens, feature), whose last tokens are the queries.
        has_no_object: whether the last logit means "no object".
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
    corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1).clamp(0, 1)  # boxes may exceed the image

    def sort(tensor: Tensor) -> Tensor:
        return tensor.gather(1, order[..., None].expand(-1, -1, tensor.shape[-1]))

    return {
        "features": sort(hidden),
        "boxes": sort(corners),
        "class_probs": sort(logits.softmax(-1)),
        "labels": labels.gather(1, order),
        "scores": scores,
    }


_SOFTMAX_TYPES = ("detr", "table-transformer", "yolos")  # detectors with an extra no-object logit


def _last_class_is_no_object(config: Any) -> bool:
    """Return whether the last class itself is "no object", as in the RT-DETR family without focal loss."""
    return not getattr(config, "use_focal_loss", True)


def _whole_image(queries: Arrays) -> Arrays:
    """Return one region for the whole image, with the mean feature, class_probs and score of the queries."""
    probs = queries["class_probs"].mean(0, keepdims=True)
    return {
        "features": queries["features"].mean(0, keepdims=True),
        "boxes": np.asarray([[0, 0, 1, 1]], dtype=np.float32),
        "class_probs": probs,
        "labels": probs.argmax(1),
        "scores": queries["scores"].mean(0, keepdims=True),
    }
