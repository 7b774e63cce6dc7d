"""Table of the pipeline functions of each model class."""

from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.classification_tasks import (
    MmptDecisionModel,
    MmptForImagesAndTextClassification,
    MmptForMultipleChoice,
    MmptForQuestionAnswering,
    MmptForSequenceClassification,
)
from mmpt.modeling_mmpt.modeling_base import MmptBackbone
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.region_tasks import MmptForGrounding, MmptForRegionToPhraseAlignment
from mmpt.modeling_mmpt.retrieval_task import MmptForImageAndTextRetrieval
from mmpt.modeling_mmpt.task_models import MODELS

MATCHING = (MmptForImageAndTextRetrieval, MmptForPreTraining)
FUNCTIONS: dict[str, tuple[type, ...]] = {
    "fill_mask": (MmptForPreTraining,),
    "log_odds": MATCHING,
    "match": MATCHING,
    "rank_images": MATCHING,
    "rank_texts": MATCHING,
    "answer": (MmptForQuestionAnswering,),
    "classify": (MmptForSequenceClassification,),
    "classify_pair": (MmptForImagesAndTextClassification,),
    "choose": (MmptForMultipleChoice,),
    "ground": (MmptForGrounding,),
    "ground_phrases": (MmptForRegionToPhraseAlignment,),
    "embed_texts": (MmptForImageAndTextRetrieval,),
    "embed_images": (MmptForImageAndTextRetrieval,),
    "embed_pairs": (MmptBackbone, MmptForPreTraining, MmptDecisionModel, MmptForImageAndTextRetrieval),
}
"""Function -> the model classes that have it."""

OBJECTIVES_READ = {"fill_mask": "mlm", **dict.fromkeys(("log_odds", "match", "rank_images", "rank_texts"), "itm")}
"""Function -> the objective whose head it needs in a pre-training model."""


def main_function(model: Any) -> str:
    """Return the main function of a model, the first one of the table that it has.

    Raises:
        ValueError: if it has none, such as a pre-training model without masked language modelling and matching.
    """
    trained = getattr(model.config, "objective_weights", {})
    for name, bases in FUNCTIONS.items():
        needed = OBJECTIVES_READ.get(name) if isinstance(model, MmptForPreTraining) else None
        if name != "log_odds" and isinstance(model, bases) and (needed is None or needed in trained):
            return name
    raise MmptValueError(f"{type(model).__name__} has no function of a text and an image")


def check_function(model: Any, function: str) -> None:
    """Raise if a model does not have a function.

    Raises:
        ValueError: if it does not; the message names the classes that have it, and the functions of this model.
    """
    if not isinstance(model, FUNCTIONS[function]):
        wanted = [name for name, each in MODELS.items() if issubclass(each, FUNCTIONS[function])]
        has = [f"{name}()" for name, bases in FUNCTIONS.items() if isinstance(model, bases)]
        raise MmptValueError(
            f"{function}() needs {' or '.join(wanted)}, but this model is {type(model).__name__}, which has "
            f"{', '.join(has)}; load a model that was trained for it"
        )
    if isinstance(model, MmptForPreTraining) and function in OBJECTIVES_READ:
        objective, trained = OBJECTIVES_READ[function], model.config.objective_weights
        if objective not in trained:
            raise MmptValueError(
                f"{function}() needs a model that was pre-trained with objective {objective!r}, but this one was "
                f"pre-trained with {', '.join(trained)}"
            )
