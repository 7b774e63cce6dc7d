"""What a pre-trained model predicts for a region that it does not see: MRC, MRC-KL and MRFR side by side."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.objectives import cosine, kl_divergence, squared_error
from mmpt.processing.image_processing_mmpt import set_whole_image_feature
from mmpt.processing.regions import Regions

SHOWN_CLASSES = 3


@dataclass
class MaskedRegion:
    """What is predicted for one region when it alone is masked.

    Args:
        detector: the most probable classes of the detector, (number, probability) each. None without a distribution.
        model: the model's, which MRC and MRC-KL train; None where neither is on.
        kl: KL(detector || model), in nats, the loss of MRC-KL.
        cosine: of the predicted and the true feature, the metric of MRFR.
        squared_error: mean over the feature's numbers, the loss of MRFR.
    """

    detector: list[tuple[int, float]] | None = None
    model: list[tuple[int, float]] | None = None
    kl: float | None = None
    cosine: float | None = None
    squared_error: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, as JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def predict_masked_regions(
    model: Any, inputs: dict[str, Tensor], regions: Regions, detected: list[int], has_whole_image: bool
) -> list[MaskedRegion]:
    """Return what a model predicts for each region, masked one at a time; empty for a model without such objectives.

    Args:
        inputs: a batch of one row.
        regions: those of the row, with what the detector said of them.
        detected: their places in the row; a whole-image region, at place 0, is the mean of those that are not masked.
    """
    heads = getattr(model, "heads", {}) if isinstance(model, MmptForPreTraining) else {}
    if "region_class" not in heads and "region_feature" not in heads:
        return []
    count = len(detected)
    rows = {name: value.expand(count, *value.shape[1:]).clone() for name, value in inputs.items()}
    own = torch.arange(count), torch.tensor(detected)
    rows["region_features"][own] = 0.0
    rows["masked_regions"] = torch.zeros(rows["region_features"].shape[:2], dtype=torch.bool, device=model.device)
    rows["masked_regions"][own] = True
    if has_whole_image:
        seen = ~rows["masked_regions"]
        seen[:, [place for place in range(seen.shape[1]) if place not in detected]] = False
        set_whole_image_feature(rows["region_features"], seen)
    with torch.inference_mode():
        output = model(**rows)
    found = [MaskedRegion() for _ in range(count)]
    probs = regions.class_probs
    for number, each in enumerate(found):
        if probs is not None:
            each.detector = _best(np.asarray(probs[number], dtype=np.float32))
    if "region_class" in heads:
        logits = output.mrc_logits[own].float().cpu()
        divergence = None
        if probs is not None and np.shape(probs) == logits.shape:  # else the detector has other classes than the model
            divergence = kl_divergence(logits, torch.from_numpy(np.asarray(probs))).tolist()
        for number, each in enumerate(found):
            each.model = _best(logits[number].softmax(-1).numpy())
            each.kl = None if divergence is None else divergence[number]
    if "region_feature" in heads:
        predicted = output.mrfr_prediction[own].float().cpu()
        true = inputs["region_features"][0, detected].float().cpu()
        values = zip(cosine(predicted, true).tolist(), squared_error(predicted, true).tolist(), strict=True)
        for each, (angle, error) in zip(found, values, strict=True):
            each.cosine, each.squared_error = angle, error
    return found


def _best(probabilities: np.ndarray) -> list[tuple[int, float]]:
    order = np.argsort(-probabilities, kind="stable")[:SHOWN_CLASSES]
    return [(int(number), float(probabilities[number])) for number in order]
