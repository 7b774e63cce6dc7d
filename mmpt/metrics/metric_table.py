"""Table of metrics by name. Importing this module imports `evaluate`, which takes a second but downloads nothing."""

from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.metrics.box_grounding import GroundingAccuracy, PhraseRecall
from mmpt.metrics.class_accuracy import ClassAccuracy
from mmpt.metrics.group_consistency import GroupConsistency
from mmpt.metrics.masked_predictions import (
    MaskedRegionClasses,
    MaskedRegionDistributions,
    MaskedRegionFeatures,
    MaskedTokens,
)
from mmpt.metrics.matching_auc import MatchingAuc
from mmpt.metrics.metric_base import MmptMetric
from mmpt.metrics.retrieval_recall import RetrievalRecall
from mmpt.metrics.vqa_accuracy import VqaAccuracy

METRICS: dict[str, type[MmptMetric]] = {
    "vqa_accuracy": VqaAccuracy,
    "retrieval_recall": RetrievalRecall,
    "accuracy": ClassAccuracy,
    "consistency": GroupConsistency,
    "grounding_accuracy": GroundingAccuracy,
    "phrase_recall": PhraseRecall,
    "mlm": MaskedTokens,
    "mrc": MaskedRegionClasses,
    "mrc_kl": MaskedRegionDistributions,
    "mrfr": MaskedRegionFeatures,
    "itm": MatchingAuc,
}


def load_metric(name: str, **options: Any) -> MmptMetric:
    """Return a new metric of `METRICS`.

    Args:
        options: arguments of the class; several processes need num_process, process_id, experiment_id and cache_dir.

    Raises:
        ValueError: if there is no metric of this name.
    """
    if name not in METRICS:
        raise MmptValueError(f"metric is {name!r}, expected one of {', '.join(METRICS)}")
    return METRICS[name](**options)
