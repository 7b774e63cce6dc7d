"""The tables of models: the models of each task by stream, and every class by its name.

No saved folder carries this file: a folder has the classes of its own stream alone.
"""

from collections.abc import Mapping
from typing import Any

from mmpt.modeling_mmpt.dual_stream_tasks import (
    MmptDualStreamForGrounding,
    MmptDualStreamForImageAndTextRetrieval,
    MmptDualStreamForImagesAndTextClassification,
    MmptDualStreamForMultipleChoice,
    MmptDualStreamForQuestionAnswering,
    MmptDualStreamForRegionToPhraseAlignment,
    MmptDualStreamForSequenceClassification,
)
from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining, MmptDualStreamModel
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining, MmptSingleStreamModel
from mmpt.modeling_mmpt.single_stream_tasks import (
    MmptSingleStreamForGrounding,
    MmptSingleStreamForImageAndTextRetrieval,
    MmptSingleStreamForImagesAndTextClassification,
    MmptSingleStreamForMultipleChoice,
    MmptSingleStreamForQuestionAnswering,
    MmptSingleStreamForRegionToPhraseAlignment,
    MmptSingleStreamForSequenceClassification,
)
from mmpt.modeling_mmpt.task_base import MmptTaskModel

Streams = Mapping[str, type[MmptTaskModel]]

_CLASSIFICATION: Streams = {
    "single": MmptSingleStreamForSequenceClassification,
    "dual": MmptDualStreamForSequenceClassification,
}

TASK_MODELS: Mapping[str, Streams] = {
    "vqa": {"single": MmptSingleStreamForQuestionAnswering, "dual": MmptDualStreamForQuestionAnswering},
    "classification": _CLASSIFICATION,
    "entailment": _CLASSIFICATION,
    "statements": _CLASSIFICATION,
    "nlvr2": {
        "single": MmptSingleStreamForImagesAndTextClassification,
        "dual": MmptDualStreamForImagesAndTextClassification,
    },
    "multiple_choice": {"single": MmptSingleStreamForMultipleChoice, "dual": MmptDualStreamForMultipleChoice},
    "grounding": {"single": MmptSingleStreamForGrounding, "dual": MmptDualStreamForGrounding},
    "phrases": {
        "single": MmptSingleStreamForRegionToPhraseAlignment,
        "dual": MmptDualStreamForRegionToPhraseAlignment,
    },
    "retrieval": {
        "single": MmptSingleStreamForImageAndTextRetrieval,
        "dual": MmptDualStreamForImageAndTextRetrieval,
    },
}
"""Task -> stream -> its model. The names are those of recipes."""

BACKBONES: Mapping[str, Any] = {"single": MmptSingleStreamModel, "dual": MmptDualStreamModel}
PRETRAINING_MODELS: Mapping[str, Any] = {"single": MmptSingleStreamForPreTraining, "dual": MmptDualStreamForPreTraining}

MODELS: Mapping[str, Any] = {
    model.__name__: model
    for by_stream in (BACKBONES, PRETRAINING_MODELS, *TASK_MODELS.values())
    for model in by_stream.values()
}
"""Every class that a saved configuration may name, by its name."""
