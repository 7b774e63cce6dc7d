"""Convert model outputs to predictions for display, metrics and JSON files."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.modeling_mmpt.objectives import IGNORED

Prediction = dict[str, Any]
"""Prediction of one example: `prediction`, `confidence` (0..1) and, depending on the task, further fields.

`top` lists the `TOP` most probable predictions with their confidences.
"""

TOP = 5
"""Number of most probable predictions to list."""

DECISIONS = {"both": "joint_logits", "text": "text_logits", "regions": "region_logits"}


def predict_classes(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return the most probable class with name, number and probability.

    With late fusion, also return the prediction and weight of each modality.
    """
    return _decisions(output, list(config.id2label.values()), torch.softmax)  # type: ignore[union-attr]


def predict_answers(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return the most probable answer as `predict_classes` does.

    The confidence is a softmax over all answers with `answer_loss="kl"`, and the answer's sigmoid otherwise.
    """
    activation = torch.softmax if config.answer_loss == "kl" else lambda logits, _: logits.sigmoid()
    return _decisions(output, list(config.id2label.values()), activation)  # type: ignore[union-attr]


def predict_choices(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return the number and probability of the most probable choice."""
    return _decisions(output, range(output.logits.shape[-1]), torch.softmax)


def predict_regions(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return the most probable region with its box in pixels, number and probability.

    For an image without regions, the box is null.
    """
    probabilities = _over_candidates(output.logits, batch["candidates"])
    boxes = batch["candidate_boxes"].tolist()
    confidences, regions = (each.tolist() for each in probabilities.topk(min(TOP, probabilities.shape[-1]), -1))
    candidates = batch["candidates"].tolist()
    predictions: list[Prediction] = []
    for row, found in enumerate(candidates):
        if not any(found):
            predictions.append({"prediction": None, "confidence": 0.0, "region": None})
            continue
        best = [pair for pair in zip(regions[row], confidences[row], strict=True) if found[pair[0]]]
        top = [{"prediction": boxes[row][region], "confidence": confidence} for region, confidence in best]
        predictions.append({**top[0], "region": best[0][0], "top": top})
    return predictions


def predict_phrases(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return for each phrase the box in pixels and the probability of the most probable region.

    The box is null if the phrase was truncated or the image has no regions. Rows with fewer phrases than others in the
    batch are padded with nulls.
    """
    candidates, positions = batch["candidates"], batch["phrase_positions"]
    logits = output.logits[..., : candidates.shape[-1]]  # labels may have made them wider
    values, best = _over_candidates(logits, candidates[:, None]).max(-1)  # (batch, phrases)
    boxes = batch["candidate_boxes"].gather(1, best[:, :, None].expand(-1, -1, 4)).tolist()
    known = ((positions != IGNORED) & candidates.any(-1, keepdim=True)).tolist()
    return [
        {
            "prediction": [box if here else None for box, here in zip(boxes[row], known[row], strict=True)],
            "confidence": max((value for value, here in zip(row_values, known[row], strict=True) if here), default=0.0),
            "confidences": row_values,
        }
        for row, row_values in enumerate(values.tolist())
    ]


def predict_scores(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return the log-odds that text and image match, and whether it is > 0."""
    scores = output.logits.float()
    return [
        {"prediction": score > 0, "confidence": probability, "score": score}
        for score, probability in zip(scores.tolist(), scores.abs().sigmoid().tolist(), strict=True)
    ]


def label_names(config: MmptConfig) -> list[str]:
    """Return the names of a model's classes or answers ordered by number; a saved configuration may be unordered."""
    names: dict[Any, Any] = config.id2label or {}
    return [names[number] for number in range(len(names))]


def label_numbers(config: MmptConfig) -> dict[str, int]:
    """Return name of a class or answer -> number, ordered by number."""
    return {name: number for number, name in enumerate(label_names(config))}


def _decisions(output: Any, names: Sequence[Any], activation: Any) -> list[Prediction]:
    predictions = _best(output.logits, names, activation)
    weights = getattr(output, "decision_weights", None)
    if weights is None:
        return predictions
    given = {source: getattr(output, name) for source, name in DECISIONS.items() if getattr(output, name) is not None}
    alone = {source: _best(logits, names, activation) for source, logits in given.items()}
    for row, prediction in enumerate(predictions):
        prediction["decisions"] = {
            source: {name: each[row][name] for name in ("prediction", "confidence")} | {"weight": weight}
            for (source, each), weight in zip(alone.items(), weights[row].tolist(), strict=True)
        }
    return predictions


def _best(logits: Tensor, names: Sequence[Any], activation: Any) -> list[Prediction]:
    probabilities, numbers = activation(logits.float(), -1).topk(min(TOP, logits.shape[-1]), -1)
    return [
        {"prediction": names[first[0]], "confidence": shares[0], "number": first[0]}
        | {"top": [{"prediction": names[n], "confidence": share} for n, share in zip(first, shares, strict=True)]}
        for first, shares in zip(numbers.tolist(), probabilities.tolist(), strict=True)
    ]


def _over_candidates(logits: Tensor, candidates: Tensor) -> Tensor:
    """Return the softmax over the candidate regions, with 0 for all others."""
    logits = logits.float().masked_fill(~candidates, torch.finfo(torch.float32).min)
    return logits.softmax(-1).masked_fill(~candidates, 0.0)
