"""The decision that is explained: its inputs, its choices, and where in the model it is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmpt.configuration.errors import MmptValueError
from mmpt.inference.batching import example_rows
from mmpt.inference.model_functions import check_function, main_function
from mmpt.inference.pipeline import MmptPipeline
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.processing.regions import Regions
from mmpt.processing.tasks.collator import NOT_FOR_THE_MODEL
from mmpt.processing.tasks.encoding import TaskBatch, Text
from mmpt.processing.tasks.inputs import candidate_inputs, pair_inputs
from mmpt.tasks.predictions import label_names

EXPLAINED = ("fill_mask", "match", "answer", "classify", "ground")
MATCHING_NAMES = ("not matched", "matched")


@dataclass
class Decision:
    """One decision of a model about a text and an image.

    Args:
        function: of the pipeline, one of `EXPLAINED`.
        batch: the example's inputs, a batch of one row.
        names: what can be chosen.
        logits: from the model's output to (rows, choices).
        squash: from these logits to probabilities.
        token: position of the token that the decision is read at; None where it is read at regions.
    """

    function: str
    batch: TaskBatch
    names: list[str]
    logits: Callable[[Any], Tensor]
    squash: Callable[[Tensor], Tensor]
    token: int | None

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the model takes."""
        return {name: value for name, value in self.batch.tensors.items() if name not in NOT_FOR_THE_MODEL}


def decision_of(pipeline: MmptPipeline, text: Text, regions: Regions, mask: int = 0) -> Decision:
    """Return what a pipeline's model decides about a text and an image.

    A pre-training model fills the mask of a text that has one, and else says whether text and image match.

    Args:
        mask: which mask of the text is explained, counted from 0.

    Raises:
        ValueError: if the model decides about more than one text and one image, or the text has no such mask.
    """
    model, tokenizer = pipeline.model, pipeline.processor.tokenizer
    example = example_rows({"text": text})[0] | {"regions": regions}
    function = main_function(model)
    if isinstance(model, MmptForPreTraining):
        texts = text if isinstance(text, tuple) else (text,)
        function = "fill_mask" if any(tokenizer.mask_token in part for part in texts) else "match"
        check_function(model, function)
    if function not in EXPLAINED:
        raise MmptValueError(
            f"{type(model).__name__} cannot be explained: expected a model that decides about one text and one image "
            f"({', '.join(EXPLAINED)})"
        )
    make = candidate_inputs if function == "ground" else pair_inputs
    batch = make(pipeline._encoder, [example])
    if function == "fill_mask":
        token = _place_of_mask(batch, tokenizer, text, mask)
        names = [tokenizer.decode([number]) for number in range(model.config.vocab_size)]
        return Decision(function, batch, names, lambda output: output.mlm_logits[:, token], _softmax, token)
    if function == "match":
        return Decision(function, batch, list(MATCHING_NAMES), _matching_logits, _softmax, 0)
    if function == "ground":
        seen = batch.detected[0]
        names = [f"region {number}" for number in range(int(seen.sum()))]
        return Decision(function, batch, names, lambda output: output.logits[:, : len(seen)][:, seen], _softmax, None)
    answers = function == "answer" and model.decides_answers
    squash = torch.sigmoid if answers else _softmax
    return Decision(function, batch, label_names(model.config), lambda output: output.logits, squash, 0)


def _place_of_mask(batch: TaskBatch, tokenizer: Any, text: Text, mask: int) -> int:
    places = (batch.tensors["input_ids"][0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    if not 0 <= mask < len(places):
        raise MmptValueError(
            f"mask is {mask}, expected 0 to {len(places) - 1}: the masks that the model reads of {text!r}"
        )
    return places[mask]


def _matching_logits(output: Any) -> Tensor:
    """Return (rows, 2): not matched, matched. Other kinds of mismatch count as not matched."""
    logits = getattr(output, "itm_logits", None)
    if logits is None:  # the log-odds of a retrieval model
        return torch.stack([torch.zeros_like(output.logits), output.logits], -1)
    others = torch.cat([logits[:, :1], logits[:, 2:]], 1)
    return torch.stack([others.logsumexp(1), logits[:, 1]], -1)


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)
