"""VQA accuracy against the answers of several annotators (Antol et al. 2015, Goyal et al. 2017)."""

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
    """`vqa_accuracy`, the mean score (0 to 1) of the answers.

    predictions: (batch,) strings. references: for each question the list of the annotators' answers, unnormalised.
    There is no `vqa_accuracy_correct`, because scores are fractional. The interval resamples questions.

    Args:
        config_name: "official" normalises answers only if the annotators disagree, as the official script does;
            "uniform" always normalises.
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
                    f"references: row {row} of the batch is {answers!r}, expected a list of one or more answers"
                )
        return {"predictions": list(predictions), "references": [list(answers) for answers in references]}

    def measure(self, rows: dict[str, pa.Array]) -> dict[str, float]:
        always = self.config_name == "uniform"
        answered = zip(rows["predictions"].to_pylist(), rows["references"].to_pylist(), strict=True)
        scores = np.array([[score_answer(answer, given, always)] for answer, given in answered])
        (accuracy,) = bootstrap(scores, lambda counts, kinds: ratios(counts, kinds, np.ones(len(kinds))), self.seed)
        return report("vqa_accuracy", accuracy, len(scores))
