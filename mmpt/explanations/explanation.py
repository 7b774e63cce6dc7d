"""The explanation of one decision: `explain(pipeline, text, image)`."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmpt.configuration.errors import MmptValueError
from mmpt.explanations.attention import EAGER, METHOD, Attention, attend
from mmpt.explanations.decision import Decision, decision_of
from mmpt.explanations.masked_regions import MaskedRegion, predict_masked_regions
from mmpt.inference.image_inputs import ImageInput
from mmpt.inference.pipeline import MmptPipeline
from mmpt.processing.generated_scenes.scenes import CLASS_NAMES
from mmpt.processing.image_processing_mmpt import set_whole_image_feature
from mmpt.processing.regions import Regions
from mmpt.processing.store.record import Record
from mmpt.processing.tasks.encoding import Text
from mmpt.tasks.predictions import DECISIONS

SCENES = "scenes of shapes"
"""The corpus whose regions have `CLASS_NAMES`, as recipes record it."""
SHOWN_ANSWERS = 5
ABLATION = "the region's feature set to zero, its box kept: what the model reads of a masked region"


@dataclass
class Explanation:
    """One answer, and what it depends on.

    Args:
        function: what was asked: fill_mask, match, answer, classify or ground.
        answers: the most probable choices with their probabilities. The first is explained.
        tokens: the text as the model reads it, special tokens too.
        regions: those that the model reads, in its order.
        class_names: of the regions, where the model's processor knows them.
        ablated: (regions,), the probability of the first answer with each region ablated, the others as they are.
        ablated_all: the same with all regions ablated at once.
        attention: weights and relevance.
        decisions: with late or hybrid fusion, what text, image and both say, as `answers`, and the weight of each.
        masked_regions: what a pre-trained model predicts for each region when it is masked.
    """

    text: str
    function: str
    answers: list[tuple[str, float]]
    tokens: list[str]
    regions: Regions
    class_names: list[str] | None
    ablated: NDArray[Any]
    ablated_all: float
    attention: Attention
    decisions: dict[str, tuple[list[tuple[str, float]], float]] = field(default_factory=dict)
    masked_regions: list[MaskedRegion] = field(default_factory=list)

    @property
    def decisive(self) -> int:
        """The region whose ablation lowers the answer's probability most."""
        return int(self.ablated.argmin())

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, as JSON."""
        answer, probability = self.answers[0]
        attention = self.attention
        return {
            "text": self.text,
            "function": self.function,
            "answers": [{"answer": name, "probability": score} for name, score in self.answers],
            "ablation": {
                "method": ABLATION,
                "answer": answer,
                "with_all_regions": probability,
                "without_each_region": self.ablated.tolist(),
                "without_any_region": self.ablated_all,
                "decisive_region": self.decisive,
            },
            "relevance": {
                "method": METHOD,
                "attention": EAGER,
                "tokens": list(zip(self.tokens, attention.relevance_of_tokens.tolist(), strict=True)),
                "regions": attention.relevance_of_regions.tolist(),
            },
            "boxes": self.regions.boxes.tolist(),
            "decisions": {
                who: {"answers": [{"answer": n, "probability": p} for n, p in said], "weight": weight}
                for who, (said, weight) in self.decisions.items()
            },
            "masked_regions": [each.as_dict() for each in self.masked_regions],
        }


def explain(pipeline: MmptPipeline, text: Text, image: ImageInput, mask: int = 0) -> Explanation:
    """Explain what a pipeline's model says of a text and an image.

    The model runs with eager attention once, with gradients, and without them once for each region.

    Args:
        image: as the pipeline takes it.
        mask: which mask of the text is explained, counted from 0.

    Raises:
        ValueError: if the model decides about more than one text and one image, the text has no such mask, or the image
            no region.
    """
    regions: Regions = pipeline(image)
    decision = decision_of(pipeline, text, regions, mask)
    records = decision.batch.records[0]
    if not len(records):
        raise MmptValueError(f"{records.title(0)} has no region, expected at least one to explain an answer with")
    model = pipeline.model
    inputs = {name: value.to(model.device) for name, value in decision.inputs.items()}
    detected = decision.batch.detected[0].nonzero().flatten().tolist()
    has_whole_image = pipeline.processor.image_processor.whole_image_region
    rows = ablated_rows(inputs, detected, has_whole_image)
    with torch.inference_mode():
        output = model(**rows)
        probabilities = decision.squash(decision.logits(output).float()).cpu()
    best = int(probabilities[0].argmax())
    attention = _attention(model, inputs, decision, best, detected)
    return Explanation(
        text=" / ".join(text) if isinstance(text, tuple) else text,
        function=decision.function,
        answers=_answers(probabilities[0], decision.names),
        tokens=pipeline.processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist()),
        regions=records,
        class_names=class_names_of(pipeline.processor.image_processor.extracted_by),
        ablated=probabilities[1:-1, best].numpy(),
        ablated_all=float(probabilities[-1, best]),
        attention=attention,
        decisions=_each_says(output, decision),
        masked_regions=predict_masked_regions(model, inputs, records, detected, has_whole_image),
    )


def ablated_rows(inputs: dict[str, Tensor], detected: list[int], has_whole_image: bool) -> dict[str, Tensor]:
    """Return a batch: the example as it is, with each region's feature zeroed, and with all of them.

    Args:
        inputs: a batch of one row.
        detected: places of the regions; a whole-image region, at place 0, is the mean of those that are left.
    """
    count = len(detected) + 2
    rows = {name: value.expand(count, *value.shape[1:]).clone() for name, value in inputs.items()}
    seen = torch.zeros(rows["region_features"].shape[:2], dtype=torch.bool, device=rows["region_features"].device)
    seen[:, detected] = True
    for row, place in enumerate(detected, 1):
        seen[row, place] = False
    seen[-1] = False
    zeroed = ~seen
    zeroed[:, [place for place in range(seen.shape[1]) if place not in detected]] = False
    rows["region_features"][zeroed] = 0.0
    if has_whole_image:
        set_whole_image_feature(rows["region_features"], seen)
    return rows


def class_names_of(record: Record | None) -> list[str] | None:
    """Return the names of the regions' classes that a model's record has, or that its corpus is known by."""
    corpus = (record or {}).get("extractor", {}).get("corpus")
    return list(CLASS_NAMES) if corpus == SCENES else (record or {}).get("class_names")


def _attention(model: Any, inputs: dict[str, Tensor], decision: Decision, best: int, detected: list[int]) -> Attention:
    pools_regions = model.config.fusion == "late" or model.config.pooled_fusion != "text"
    region = detected[best] if decision.function == "ground" else None
    if region is None and decision.token == 0 and decision.function != "fill_mask" and pools_regions:
        region = 0
    found = attend(model, inputs, lambda output: decision.logits(output)[0, best], decision.token, region)
    found.relevance_of_regions = found.relevance_of_regions[detected]
    if found.text_to_region is not None and found.region_to_text is not None:
        found.text_to_region = found.text_to_region[..., detected]
        found.region_to_text = found.region_to_text[:, :, detected]
    return found


def _answers(probabilities: Tensor, names: list[str]) -> list[tuple[str, float]]:
    values, numbers = probabilities.topk(min(SHOWN_ANSWERS, len(names)))
    return [(names[number], value) for number, value in zip(numbers.tolist(), values.tolist(), strict=True)]


def _each_says(output: Any, decision: Decision) -> dict[str, tuple[list[tuple[str, float]], float]]:
    """Return what each that decides says of the example, and its weight; empty with early fusion."""
    weights = getattr(output, "decision_weights", None)
    if weights is None:
        return {}
    given = {who: getattr(output, name) for who, name in DECISIONS.items() if getattr(output, name) is not None}
    return {
        who: (_answers(decision.squash(logits[0].float()).cpu(), decision.names), weight)
        for (who, logits), weight in zip(given.items(), np.asarray(weights[0].cpu()).tolist(), strict=True)
    }
