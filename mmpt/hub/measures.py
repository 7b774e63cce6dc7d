"""The measures of a run: their intervals, what each means, and what it is compared with."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmpt.modeling_mmpt.objectives import OBJECTIVES

SHOWN = 10
"""Measures in the table of a card; metrics.json has all."""
_SHARES = re.compile(r"accuracy|recall|consistency")

MEANINGS = {
    "attribute_word_accuracy": "words for colour, shape or size, masked one at a time, whose word comes out first",
    "compositions_attribute_word_accuracy": "the same where colour and shape never occur together in training",
    "mrc_accuracy": "regions, masked one at a time, whose class comes out as the detector's",
    "mrc_kl_of_prior": "KL divergence from the detector for a masked region, as a share of the mean distribution's; "
    "lower is better",
    "mrfr_of_mean": "squared error of a masked region's feature, as a share of the mean feature's; lower is better",
    "itm_accuracy": "pairs rightly told matched or not, with partners at random",
    "itm_hard_accuracy": "the same with hard negatives of both kinds that follow",
    "itm_changed_accuracy": "the same where one attribute in the text is changed",
    "itm_swapped_accuracy": "the same where one attribute of two objects is exchanged",
    "retrieval_recall_at_1": "captions that score highest with their own image among 32",
    "eval_mlm_accuracy": "masked words that come out first",
    "eval_mrc_accuracy": "masked regions whose class comes out as the detector's",
    "eval_mrc_kl_agreement": "masked regions for which model and detector have the same first class",
    "eval_mrfr_cosine": "mean cosine of predicted and true feature of masked regions; 1 is best",
    "eval_itm_accuracy": "pairs rightly told matched or not",
    "eval_mrc_attribute_accuracy": "regions whose attribute comes out as the detector's",
    "vqa_accuracy": "answers as people gave them: min(matching people / 3, 1), averaged as VQA's script does",
    "accuracy": "rows whose class or choice is right",
    "balanced_accuracy": "the same, averaged over the classes, so that frequent ones weigh no more",
    "consistency": "groups of statements of one sentence that are all told right",
    "grounding_accuracy": "texts whose region overlaps the right box with an IoU of 0.5 or more",
    "phrase_recall_at_1": "phrases whose first region overlaps a right box with an IoU of 0.5 or more",
    **{
        f"{direction}_recall_at_{k}": f"{queries} whose {item} is among the first {k}"
        for direction, queries, item in (
            ("text_to_image", "texts", "image"),
            ("image_to_text", "images", "text"),
        )
        for k in (1, 5, 10)
    },
    "text_to_image_median_rank": "rank of the right image, median over the texts; 1 is best",
    "image_to_text_median_rank": "rank of the right text, median over the images; 1 is best",
}
"""What a measure says, in a clause; in the order in which cards show them."""

_WITHOUT_REGIONS = ("attribute_word_accuracy", "compositions_attribute_word_accuracy")
_BASELINES = {
    "mrc_kl_of_prior": 1.0,
    "mrfr_of_mean": 1.0,
    **dict.fromkeys(("itm_accuracy", "itm_hard_accuracy", "itm_changed_accuracy", "itm_swapped_accuracy"), 0.5),
    "retrieval_recall_at_1": 1 / 32,
    "eval_mrfr_cosine": 0.0,
    "eval_itm_accuracy": 0.5,
}


class Headline(NamedTuple):
    """A measure that says what a run is worth.

    Args:
        chance: what guessing gets; None where that is not known.
    """

    name: str
    value: float
    chance: float | None

    def __str__(self) -> str:
        beside = "" if self.chance is None else f" (chance {self.chance:.3g})"
        return f"{self.name} {self.value:.3g}{beside}"

    def as_dict(self) -> dict[str, Any]:
        """Return what metrics.json says of it."""
        name = f"eval_{self.name}" if f"eval_{self.name}" in MEANINGS else self.name
        return {"value": self.value, "chance": self.chance, "meaning": MEANINGS.get(name, "")}


class Measure(NamedTuple):
    """A measured value, the number of cases behind it, and its 95 % interval where it has one."""

    name: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None


def headline_of(headlines: Sequence[Headline]) -> dict[str, Any]:
    """Return what metrics.json opens with: value, chance and meaning of the measures that say what a run is worth."""
    return {each.name: each.as_dict() for each in headlines}


def measures_of(values: Mapping[str, Any]) -> list[Measure]:
    """Return the measures among a run's numbers: those with a number of cases beside them.

    Shares without an interval get Wilson's, which takes the cases for independent.
    """
    found = []
    for name, value in values.items():
        n = values.get(f"{name}_total", values.get(f"{name}_count"))
        if n is None or not isinstance(value, int | float):
            continue
        low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
        if low is None and n and _SHARES.search(name):
            low, high = wilson(value, int(n))
        found.append(Measure(name, float(value), int(n), low, high))
    return found


def measures_of_objectives(evaluation: Mapping[str, Any]) -> list[Measure]:
    """Return each objective's loss and metric in a pre-training evaluation."""
    found: list[Measure] = []
    for name, objective in OBJECTIVES.items():
        if f"eval_{name}_loss" not in evaluation:
            continue
        n = int(evaluation[f"eval_{name}_count"])
        metric, loss = f"eval_{name}_{objective.metric_name}", f"eval_{name}_loss"
        found.append(Measure(loss, evaluation[loss], n))
        value = evaluation[metric]
        found.append(Measure(metric, value, n, *(wilson(value, n) if n and _SHARES.search(metric) else (None, None))))
    return found


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def shown_measures(measures: Sequence[Measure]) -> list[Measure]:
    """Return the measures for a card: those with a meaning, in its order, at most `SHOWN`.

    An objective's metric over the random masks of an evaluation is left out where the same was measured region by
    region or word by word.
    """
    order = list(MEANINGS)
    known = {measure.name for measure in measures}
    finer = {"eval_mlm_accuracy": "attribute_word_accuracy", "eval_mrc_kl_agreement": "mrc_kl_of_prior"}
    finer |= {"eval_mrc_accuracy": "mrc_accuracy", "eval_mrfr_cosine": "mrfr_of_mean"}
    finer |= {"eval_itm_accuracy": "itm_accuracy"}
    kept = [each for each in measures if each.name in MEANINGS and finer.get(each.name) not in known]
    return sorted(kept, key=lambda each: order.index(each.name))[:SHOWN]


def baseline_of(measure: Measure, measures: Sequence[Measure], headlines: Sequence[Headline]) -> str:
    """Return what a measure is to be compared with, for a table."""
    if measure.name in _WITHOUT_REGIONS:
        zeroed = next((each.value for each in measures if each.name == "attribute_word_accuracy_zeroed"), None)
        if zeroed is not None:
            where = "" if measure.name == "attribute_word_accuracy" else " of those above"
            return f"{zeroed:.3g} without the image{where}"
    chances = {each.name: each.chance for each in headlines}
    chance = chances.get(measure.name, chances.get(measure.name.removeprefix("eval_")))
    chance = _BASELINES.get(measure.name) if chance is None else chance
    return "" if chance is None else f"{chance:.3g}"
