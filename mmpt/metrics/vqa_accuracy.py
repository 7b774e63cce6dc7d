"""Accuracy of answers that several people gave, as VQA defines it (Antol et al. 2015, Goyal et al. 2017)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import List, Value

from mmpt.configuration.errors import MmptValueError
from mmpt.metrics.bootstrap import bootstrap, ratios
from mmpt.metrics.metric_base import MmptMetric, report
from mmpt.metrics.vqa_answers import score_answer

RULES = ("official", "uniform")


class VqaAccuracy(MmptMetric):
    """`vqa_accuracy`, the mean of what each question's answer is worth (0 to 1).

    predictions: strings. references: for each question the list of the people's answers, as they were given.
    `vqa_accuracy_correct` would not be a whole number and is left out; the interval draws questions.

    Args:
        config_name: "official" compares the answers as written where all people wrote the same, and normalises both
            sides elsewhere, which is what the official script does; "uniform" always normalises.
    """

    inputs: ClassVar = {"predictions": Value("string"), "references": List(Value("string"))}

    def __init__(self, config_name: str | None = None, **options: Any) -> None:
        if config_name not in (None, *RULES):
            raise MmptValueError(f"config_name is {config_name!r}, expected one of {RULES}")
        super().__init__(config_name or "official", **options)

    def prepare(self, *, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Sequence[Any]]:
        for row, answer in enumerate(predictions):
            if not isinstance(answer, str):
                raise MmptValueError(f"predictions: row {row} of the batch is {answer!r}, expected a string")
        for row, answers in enumerate(references):
            if isinstance(answers, str) or not answers or not all(isinstance(one, str) for one in answers):
                raise MmptValueError(
                    f"references: row {row} of the batch is {answers!r}, expected a list with an answer or more"
                )
        return {"predictions": list(predictions), "references": [list(answers) for answers in references]}

    def measure(self, rows: dict[str, pa.Array]) -> dict[str, float]:
        always = self.config_name == "uniform"
        answered = zip(rows["predictions"].to_pylist(), rows["references"].to_pylist(), strict=True)
        scores = np.array([[score_answer(answer, given, always)] for answer, given in answered])
        (accuracy,) = bootstrap(scores, lambda counts, kinds: ratios(counts, kinds, np.ones(len(kinds))), self.seed)
        return report("vqa_accuracy", accuracy, len(scores))
