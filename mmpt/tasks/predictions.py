"""From a model's output to predictions that a person, a metric and a JSON file can read."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.modeling_mmpt.objectives import IGNORED

Prediction = dict[str, Any]
"""What is said of one example: `prediction`, `confidence` (0..1) and, as far as the task has them, more.

`top` lists the likeliest `TOP` of what could be predicted, each with its confidence.
"""

TOP = 5
"""Likeliest choices that a prediction lists."""

DECISIONS = {"both": "joint_logits", "text": "text_logits", "regions": "region_logits"}


def decode_classes(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return the name of the likeliest class, its number and its probability; with late fusion also what each
    modality said, and its weight."""
    return _decisions(output, list(config.id2label.values()), torch.softmax)  # type: ignore[union-attr]


def decode_answers(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return the likeliest answer as `decode_classes` does; with binary cross-entropy its own probability."""
    squash = torch.softmax if config.answer_loss == "kl" else lambda logits, _: logits.sigmoid()
    return _decisions(output, list(config.id2label.values()), squash)  # type: ignore[union-attr]


def decode_choices(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return the number of the likeliest choice and its probability."""
    return _decisions(output, range(output.logits.shape[-1]), torch.softmax)


def decode_regions(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return the box of the region that scores highest, in pixels, its number and its share of the probability.

    An image without regions gives no box (null).
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


def decode_phrases(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return for each phrase the box of the region that scores highest, in pixels, and its share of the probability.

    The box is null where the phrase was cut off or the image has no regions. Behind the phrases of a row stand nulls
    for those that other rows of the batch have more.
    """
    candidates, positions = batch["candidates"], batch["phrase_positions"]
    logits = output.logits[..., : candidates.shape[-1]]  # with labels they may be wider
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


def decode_scores(output: Any, batch: Mapping[str, Tensor], config: MmptConfig) -> list[Prediction]:
    """Return the log-odds that text and image belong together, and whether they rather do."""
    scores = output.logits.float()
    return [
        {"prediction": score > 0, "confidence": probability, "score": score}
        for score, probability in zip(scores.tolist(), scores.abs().sigmoid().tolist(), strict=True)
    ]


def label_names(config: MmptConfig) -> list[str]:
    """Return the names of a model's classes or answers by their numbers; a saved configuration has them unordered."""
    names: dict[Any, Any] = config.id2label or {}
    return [names[number] for number in range(len(names))]


def label_numbers(config: MmptConfig) -> dict[str, int]:
    """Return the number of each class or answer of a model by its name, in the order of the numbers."""
    return {name: number for number, name in enumerate(label_names(config))}


def _decisions(output: Any, names: Sequence[Any], squash: Any) -> list[Prediction]:
    predictions = _best(output.logits, names, squash)
    weights = getattr(output, "decision_weights", None)
    if weights is None:
        return predictions
    given = {who: getattr(output, name) for who, name in DECISIONS.items() if getattr(output, name) is not None}
    alone = {who: _best(logits, names, squash) for who, logits in given.items()}
    for row, prediction in enumerate(predictions):
        prediction["decisions"] = {
            who: {name: said[row][name] for name in ("prediction", "confidence")} | {"weight": weight}
            for (who, said), weight in zip(alone.items(), weights[row].tolist(), strict=True)
        }
    return predictions


def _best(logits: Tensor, names: Sequence[Any], squash: Any) -> list[Prediction]:
    probabilities, numbers = squash(logits.float(), -1).topk(min(TOP, logits.shape[-1]), -1)
    return [
        {"prediction": names[first[0]], "confidence": shares[0], "number": first[0]}
        | {"top": [{"prediction": names[n], "confidence": share} for n, share in zip(first, shares, strict=True)]}
        for first, shares in zip(numbers.tolist(), probabilities.tolist(), strict=True)
    ]


def _over_candidates(logits: Tensor, candidates: Tensor) -> Tensor:
    """Return the probability of each region among the candidates, 0 elsewhere."""
    logits = logits.float().masked_fill(~candidates, torch.finfo(torch.float32).min)
    return logits.softmax(-1).masked_fill(~candidates, 0.0)
