"""Metrics of masked tokens and regions (MLM, MRC, MRC-KL, MRFR) over a whole evaluation."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from datasets import List, Value
from torch import Tensor

from mmpt.configuration.errors import MmptValueError
from mmpt.metrics.bootstrap import bootstrap, ratios
from mmpt.metrics.metric_base import MmptMetric, report
from mmpt.metrics.metric_inputs import as_tensor, finite
from mmpt.modeling_mmpt.objectives import hit, is_labelled, kl_divergence, squared_error, token_cross_entropy


class MaskedMetric(MmptMetric):
    """Means over masked elements.

    references: labels of a batch, (batch, elements) or (batch, elements, width), -100 where nothing is predicted.
    predictions: (batch, elements, width) for all elements, or (selected, width) in row-major order for elements with a
    label, as the models return them. Only sums and a count per example are kept, not logits; if an id repeats, they
    must agree. ids: ids of the examples. The intervals resample examples with a masked element.
    """

    inputs: ClassVar = {"predictions": List(Value("float64")), "references": Value("int64")}
    values: ClassVar[Mapping[str, Callable[[Tensor, Tensor], Tensor]]]
    """Name of a measure -> function of predictions and labels that returns one number per selected element."""

    def prepare(self, *, predictions: Any, references: Any) -> dict[str, list[Any]]:
        labels = finite("references", references)
        predicted = as_tensor("predictions", predictions)
        selected = is_labelled(labels)
        if not labels.numel():
            return {"predictions": [], "references": []}
        if predicted.shape[:-1] == selected.shape:
            predicted = predicted[selected]
        rows = selected.nonzero()[:, 0]
        if predicted.dim() != 2 or len(predicted) != len(rows):
            raise MmptValueError(
                f"predictions are {tuple(predicted.shape)} for labels {tuple(labels.shape)} of which {len(rows)} are "
                f"predicted; expected {(*selected.shape, 'width')} or {(len(rows), 'width')}"
            )
        predicted, targets = finite("predictions", predicted), labels[selected]
        self.check_targets(predicted, targets)
        columns = [value(predicted, targets).double() for value in self.values.values()]
        sums = torch.zeros(len(labels), len(columns), dtype=torch.float64)
        sums.index_add_(0, rows, torch.stack(columns, dim=1))
        return {"predictions": sums.tolist(), "references": torch.bincount(rows, minlength=len(labels)).tolist()}

    def check_targets(self, predicted: Tensor, targets: Tensor) -> None:
        """Raise ValueError if labels do not match.

        Args:
            predicted: (selected, width).
            targets: (selected,) or (selected, width).
        """
        if targets.dim() == 2 and predicted.shape != targets.shape:
            raise MmptValueError(
                f"predictions have {predicted.shape[1]} numbers per element and references {targets.shape[1]}; are "
                "they from the same region store?"
            )
        if (
            targets.dim() == 1
            and len(targets)
            and not 0 <= int(targets.min()) <= int(targets.max()) < predicted.shape[1]
        ):
            raise MmptValueError(
                f"references are from {int(targets.min())} to {int(targets.max())}, expected 0 to "
                f"{predicted.shape[1] - 1}, as predictions have {predicted.shape[1]} classes, or -100"
            )

    def measure(self, rows: dict[str, pa.Array]) -> dict[str, float]:
        counts = rows["references"].to_numpy()
        sums = rows["predictions"].flatten().to_numpy().reshape(len(counts), -1)
        masked = counts > 0
        if not masked.any():
            raise MmptValueError(f"{self.name} has no masked element in {len(counts)} examples; is its objective off?")
        units = np.column_stack([sums, counts])[masked]
        means = bootstrap(units, lambda drawn, kinds: ratios(drawn, kinds[:, :-1], kinds[:, -1]), self.seed)
        measures: dict[str, float] = {}
        for column, (name, value) in enumerate(self.values.items()):
            correct = sums[:, column].sum() if value is hit else None
            measures |= report(name, self.scale(name, means[column]), counts.sum(), correct)
        return measures

    def scale(self, name: str, mean: np.ndarray) -> np.ndarray:
        return mean


class MaskedTokens(MaskedMetric):
    """`mlm_accuracy`, and `mlm_perplexity`, exp of the mean cross-entropy over all masked tokens of the evaluation."""

    values: ClassVar = {"mlm_accuracy": hit, "mlm_perplexity": token_cross_entropy}

    def scale(self, name: str, mean: np.ndarray) -> np.ndarray:
        return np.exp(mean) if name == "mlm_perplexity" else mean


class MaskedRegionClasses(MaskedMetric):
    """`mrc_accuracy`, the fraction of masked regions whose most probable class is the label."""

    values: ClassVar = {"mrc_accuracy": hit}


class MaskedRegionDistributions(MaskedMetric):
    """`mrc_kl`, the mean of KL(detector || model) in nats; references: rows that sum to 1, or are all -100."""

    values: ClassVar = {"mrc_kl": kl_divergence}

    def check_targets(self, predicted: Tensor, targets: Tensor) -> None:
        super().check_targets(predicted, targets)
        sums = targets.float().sum(-1)
        if bool(((sums - 1).abs() > 0.01).any()) or bool((targets < 0).any()):
            worst = float(sums[(sums - 1).abs().argmax()])
            raise MmptValueError(
                f"references have a row that sums to {worst:.3f}, expected the detector's probabilities"
            )


class MaskedRegionFeatures(MaskedMetric):
    """`mrfr_error`, the squared error of masked region features, averaged over dimensions, then over regions."""

    values: ClassVar = {"mrfr_error": squared_error}
