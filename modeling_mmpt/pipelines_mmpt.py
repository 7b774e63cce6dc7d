# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Pipelines of transformers for texts with regions: `pipeline("mmpt-fill-mask", model=folder, trust_remote_code=True)`.

An input is a dict: `text`, and `regions` in any form that the processor takes, or the path of an .npz file with the
fields of `Regions`; or `image`, a picture or its path, for which the pipeline needs an `extractor`. Where mmpt is
installed, the extractor that the processor records is loaded. A list of inputs gives a list of results.
"""

import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Pipeline, PreTrainedModel
from transformers.image_utils import load_image

from mmpt.configuration.errors import MmptImportError, MmptTypeError, MmptValueError
from mmpt.modeling_mmpt.unpadding import batch_layout


class MmptTaskPipeline(Pipeline):
    """What the pipelines of all tasks share.

    Args:
        extractor: function from a list of pictures to one `Regions` (or dict) each.
        top_k: how many results, the best first.

    Raises:
        ValueError: if the model was trained for another task, or an input lacks a text or an image.
        TypeError: for an unknown option or key of an input.
    """

    _load_processor = True
    _load_tokenizer = _load_image_processor = _load_feature_extractor = False
    auto_name = "AutoModel"
    keys = ("text", "text_pair")

    processor: Any
    model: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise MmptValueError(f"pipeline {self.task!r} got no processor, expected processor=, or model= as a folder")
        named = self.model.config.architectures or []
        if isinstance(self.model, PreTrainedModel) and named and type(self.model).__name__ not in named:
            raise MmptValueError(
                f"the weights are those of {', '.join(named)}, but pipeline {self.task!r} needs "
                f"{type(self.model).__name__}, whose head would be random; choose the pipeline of this model, one of "
                f"{', '.join(pipelines_of(named[0], self.model.config)) or 'none'}"
            )
        self.check_model()

    def check_model(self) -> None:
        """Raise if the model lacks what the task reads."""

    def _sanitize_parameters(self, top_k: int | None = None, extractor: Any = None, **others: Any) -> Any:
        if others:
            raise MmptTypeError(f"pipeline {self.task!r} has no option {next(iter(others))!r}; it has top_k, extractor")
        if top_k is not None and top_k < 1:
            raise MmptValueError(f"top_k is {top_k}, expected 1 or more")
        before = {} if extractor is None else {"extractor": extractor}
        return before, {}, {} if top_k is None else {"top_k": top_k}

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the result of an input, or of each of a list."""
        # A row of its own for each input: the processor pads, not the loader.
        batch_size = kwargs.pop("batch_size", self._batch_size) or 1
        if isinstance(inputs, list) and batch_size > 1 and inputs:
            return self._call_in_batches(inputs, batch_size, **kwargs)
        return super().__call__(inputs, *args, batch_size=1, **kwargs)

    def _call_in_batches(self, inputs: list[Any], batch_size: int, num_workers: Any = None, **kwargs: Any) -> list[Any]:
        before, _, after = self._sanitize_parameters(**kwargs)
        before, after = {**self._preprocess_params, **before}, {**self._postprocess_params, **after}
        results = []
        for start in range(0, len(inputs), batch_size):
            output: Any = self.forward(self.encode(inputs[start : start + batch_size], **before))
            results += self.results(output, **after)
        return results

    def preprocess(self, inputs: Any, **options: Any) -> dict[str, Any]:
        return self.encode([inputs], **options)

    def postprocess(self, output: Any, **options: Any) -> Any:
        return self.results(output, **options)[0]

    def encode(self, inputs: list[Any], extractor: Any = None) -> dict[str, Any]:
        """Return the batch of some inputs, and the inputs."""
        rows = [self._checked(row) for row in inputs]
        batch = self.processor(
            text=[(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in rows],
            images=[self.regions_of(row, extractor) for row in rows],
            padding=True,
            truncation=True,
            max_length=self.model.config.max_position_embeddings,
            return_tensors="pt",
        )
        masks = [batch[name].numpy() for name in ("attention_mask", "region_attention_mask")]
        layout = {} if all(mask.all() for mask in masks) else batch_layout(self.model.config, *masks)
        return {"batch": dict(batch) | layout, "rows": rows}

    def regions_of(self, row: Mapping[str, Any], extractor: Any) -> Any:
        """Return the regions of an input, in a form that the processor takes."""
        regions = row.get("regions")
        if isinstance(regions, str | os.PathLike):
            try:
                with np.load(regions, allow_pickle=False) as file:
                    return {name: file[name].item() if file[name].ndim == 0 else file[name] for name in file.files}
            except (OSError, ValueError) as error:
                raise MmptValueError(
                    f"{regions} is no .npz file of regions ({error}); write it with np.savez"
                ) from None
        if regions is not None:
            return regions
        if extractor is None:
            extractor = self._recorded_extractor()
        picture = row["image"]
        if isinstance(picture, str | os.PathLike):
            try:
                picture = load_image(os.fspath(picture))
            except (OSError, ValueError) as error:
                raise MmptValueError(f"{row['image']} is no image that can be read: {error}") from error
        return extractor([picture])[0]

    def _recorded_extractor(self) -> Any:
        if "extractor" not in self._preprocess_params:
            try:  # by name: this file travels to where mmpt may not be installed
                loading = importlib.import_module("mmpt.processing.region_extraction.recorded_extractor")
            except ImportError as error:
                raise MmptImportError(
                    "an image needs regions; install mmpt, which loads the extractor that the model was trained with, "
                    "or give extractor=, a function from pictures to regions, or regions in place of the image"
                ) from error
            record = getattr(self.processor.image_processor, "extracted_by", None)
            if record is None:
                raise MmptValueError(
                    "the model's processor does not record what made its regions; give extractor=, or regions"
                )
            folder = self.model.config.name_or_path or None
            self._preprocess_params["extractor"] = loading.load_recorded_extractor(record, folder)
        return self._preprocess_params["extractor"]

    def _checked(self, row: Any) -> dict[str, Any]:
        if not isinstance(row, Mapping):
            raise MmptTypeError(
                f"got {type(row).__name__} for an input, expected a dict with text and regions, or text and image"
            )
        known = (*self.keys, "regions", "image")
        for name in row:
            if name not in known:
                raise MmptTypeError(f"an input of pipeline {self.task!r} has no {name!r}; it has {', '.join(known)}")
        if not isinstance(row.get("text"), str):
            raise MmptTypeError(f"text is {row.get('text')!r:.60}, expected a string")
        if (row.get("regions") is None) == (row.get("image") is None):
            raise MmptValueError("an input needs regions, or an image to extract them from, and not both")
        return {name: value for name, value in row.items() if value is not None}

    def _forward(self, inputs: dict[str, Any], **more: Tensor) -> dict[str, Any]:
        return {**inputs, "output": self.model(**inputs["batch"], **more)}

    def results(self, output: dict[str, Any], top_k: int | None = None) -> list[Any]:
        """Return the result of each row."""
        raise NotImplementedError


class MmptFillMaskPipeline(MmptTaskPipeline):
    """The likeliest tokens of each mask of a text: `{"score", "token", "token_str"}`."""

    auto_name = "AutoModelForMaskedLM"

    def check_model(self) -> None:
        _check_objective(self.model, "mlm", "fill-mask")

    def results(self, output: dict[str, Any], top_k: int | None = None) -> list[Any]:
        tokenizer, ids = self.processor.tokenizer, output["batch"]["input_ids"]
        found = []
        for row, logits, tokens in zip(output["rows"], output["output"]["mlm_logits"], ids, strict=True):
            places = (tokens == tokenizer.mask_token_id).nonzero().flatten()
            if not len(places):
                raise MmptValueError(f"the text {row['text']!r} has no {tokenizer.mask_token}, expected one or more")
            best = [_best(logits[place].float().softmax(-1), top_k or 5) for place in places]
            found.append(
                [[{"score": s, "token": n, "token_str": tokenizer.decode([n])} for s, n in each] for each in best]
            )
        return found


class MmptMatchingPipeline(MmptTaskPipeline):
    """The probability that a text and an image belong together: `{"score"}`."""

    auto_name = "AutoModelForPreTraining"

    def check_model(self) -> None:
        _check_objective(self.model, "itm", "matching")

    def results(self, output: dict[str, Any], top_k: int | None = None) -> list[Any]:
        return [{"score": row.float().softmax(-1)[1].item()} for row in output["output"]["itm_logits"]]


class MmptRetrievalPipeline(MmptTaskPipeline):
    """How well a text fits an image: `{"score"}`, the probability of the retrieval model."""

    def results(self, output: dict[str, Any], top_k: int | None = None) -> list[Any]:
        return [{"score": score} for score in output["output"]["logits"].float().sigmoid().tolist()]


class MmptAnswerPipeline(MmptTaskPipeline):
    """The best answers to a question: `{"score", "answer"}`. The question is `text` or `question`."""

    auto_name = "AutoModelForVisualQuestionAnswering"
    keys = ("text", "text_pair", "question")

    def _checked(self, row: Any) -> dict[str, Any]:
        if isinstance(row, Mapping) and "question" in row:
            row = {"text": row["question"], **{name: value for name, value in row.items() if name != "question"}}
        return super()._checked(row)

    def results(self, output: dict[str, Any], top_k: int | None = None) -> list[Any]:
        logits, names = output["output"]["logits"].float(), self.model.config.id2label
        scores = logits.sigmoid() if self.model.config.answer_loss == "bce" else logits.softmax(-1)
        return [[{"score": s, "answer": names[n]} for s, n in _best(row, top_k or 5)] for row in scores]


class MmptClassificationPipeline(MmptTaskPipeline):
    """The classes of a text with an image: `{"score", "label"}`."""

    auto_name = "AutoModelForSequenceClassification"

    def results(self, output: dict[str, Any], top_k: int | None = None) -> list[Any]:
        names = self.model.config.id2label
        scores = output["output"]["logits"].float().softmax(-1)
        return [[{"score": s, "label": names[n]} for s, n in _best(row, top_k)] for row in scores]


class MmptGroundingPipeline(MmptTaskPipeline):
    """The regions that an expression means: `{"score", "box", "region"}`, the box as x1 y1 x2 y2 in 0..1."""

    def results(self, output: dict[str, Any], top_k: int | None = None) -> list[Any]:
        boxes = output["batch"]["region_boxes"]
        found = []
        for logits, own in zip(output["output"]["logits"].float(), boxes, strict=True):
            best = [(s, n) for s, n in _best(logits.softmax(-1), top_k) if logits[n] > torch.finfo(logits.dtype).min]
            found.append([{"score": s, "box": own[n].tolist(), "region": n} for s, n in best])
        return found


class MmptFeaturePipeline(MmptTaskPipeline):
    """The pooled vector of a text with an image, a list of numbers."""

    def results(self, output: dict[str, Any], top_k: int | None = None) -> list[Any]:
        return output["output"]["pooler_output"].float().tolist()


PIPELINES: dict[str, type[MmptTaskPipeline]] = {
    "mmpt-fill-mask": MmptFillMaskPipeline,
    "mmpt-matching": MmptMatchingPipeline,
    "mmpt-retrieval": MmptRetrievalPipeline,
    "mmpt-visual-question-answering": MmptAnswerPipeline,
    "mmpt-text-classification": MmptClassificationPipeline,
    "mmpt-grounding": MmptGroundingPipeline,
    "mmpt-feature-extraction": MmptFeaturePipeline,
}
"""The pipelines by the name of their task."""

STOCK = {
    "mmpt-fill-mask": "fill-mask",
    "mmpt-visual-question-answering": "visual-question-answering",
    "mmpt-text-classification": "text-classification",
}
"""Tasks of transformers that a saved folder answers to as well, with its own code."""


def pipelines_of(architecture: str, config: Any) -> list[str]:
    """Return the tasks that a model of this class has, those of `PIPELINES`."""
    weights = config.objective_weights
    if architecture.endswith("ForPreTraining"):
        return [task for task, name in {"mmpt-fill-mask": "mlm", "mmpt-matching": "itm"}.items() if name in weights]
    ends = {
        "ForImageAndTextRetrieval": "mmpt-retrieval",
        "ForQuestionAnswering": "mmpt-visual-question-answering",
        "ForSequenceClassification": "mmpt-text-classification",
        "ForGrounding": "mmpt-grounding",
        "StreamModel": "mmpt-feature-extraction",
    }
    return [task for end, task in ends.items() if architecture.endswith(end)]


def custom_pipelines(architecture: str, config: Any) -> dict[str, dict[str, Any]]:
    """Return what config.json says of the pipelines of a model: their code, and the Auto class that they load."""
    own = {
        task: {"impl": f"pipelines_mmpt.{PIPELINES[task].__name__}", "pt": [PIPELINES[task].auto_name]}
        for task in pipelines_of(architecture, config)
    }
    return own | {STOCK[task]: entry for task, entry in own.items() if task in STOCK}


def _check_objective(model: Any, name: str, task: str) -> None:
    if name not in model.config.objective_weights:
        raise MmptValueError(
            f"pipeline {task!r} needs a model that was pre-trained with objective {name!r}, this one was with "
            f"{', '.join(model.config.objective_weights) or 'none'}"
        )


def _best(scores: Tensor, top_k: int | None) -> list[tuple[float, int]]:
    numbers = scores.argsort(descending=True, stable=True)[:top_k]
    return list(zip(scores[numbers].tolist(), numbers.tolist(), strict=True))
