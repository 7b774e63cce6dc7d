"""The processor: tokenized text beside the regions of an image."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs, Unpack

from mmpt.configuration.errors import MmptError, MmptTypeError, MmptValueError
from mmpt.configuration.self_contained import SelfContained
from mmpt.processing.image_processing_mmpt import MmptImageProcessor, MmptImagesKwargs, refuse_unknown_options

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "special_tokens_mask")


class MmptProcessorKwargs(ProcessingKwargs, total=False):
    """What a call may override, by part."""

    images_kwargs: MmptImagesKwargs


class SelfContainedProcessor(SelfContained, ProcessorMixin):
    """What `MmptProcessor` extends: transformers asks the class before a processor in the order of inheritance."""


class MmptProcessor(SelfContainedProcessor):
    """Tokenizer and region processor in one: what a model of mmpt takes as input. A saved one carries its code.

    Args:
        image_processor: pads and checks regions.
        tokenizer: any tokenizer of transformers.

    Example:

    ```python
    >>> batch = processor(text=["a red star", "a dog"], images=[regions, regions], padding=True, return_tensors="pt")
    ```
    """

    valid_processor_kwargs = MmptProcessorKwargs
    image_processor: MmptImageProcessor

    def __init__(self, image_processor: MmptImageProcessor | None = None, tokenizer: Any = None) -> None:
        super().__init__(image_processor, tokenizer)

    def hub_classes(self) -> dict[str, type]:
        return {"AutoProcessor": type(self)} | self.image_processor.hub_classes()

    def set_auto_map(self, auto_map: dict[str, str]) -> None:
        self.auto_map = self.image_processor.auto_map = auto_map

    def forget_auto_map(self) -> None:
        self.__dict__.pop("auto_map", None)

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        **kwargs: Unpack[MmptProcessorKwargs],
    ) -> BatchFeature:
        """Return text and regions as one batch.

        Args:
            images: regions of one image or of many, in any form that `MmptImageProcessor` takes.
            text: a string; a list of strings; or a list of (text, second text) tuples. `text_pair=` gives second texts
                as well.

        Raises:
            ValueError: if neither is given, or if there is not one text an image.
        """
        if images is None and text is None:
            raise MmptValueError("got neither text nor regions, expected text=..., images=..., or both")
        self._check_options(dict(kwargs))
        options: dict[str, Any] = {name: value for name, value in kwargs.items() if value is not None}
        try:
            merged: Any = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **options)
        except MmptError:
            raise
        except Exception as error:  # transformers checks types here, and raises several kinds
            cause = error.__cause__ or error
            raise MmptValueError(f"an option of the processor has the wrong type: {cause}") from error
        data: dict[str, Any] = {}
        if text is not None:
            text_kwargs = merged["text_kwargs"]
            if (
                isinstance(text, list | tuple)
                and text
                and all(isinstance(item, tuple) and len(item) == 2 for item in text)
            ):
                text, text_kwargs["text_pair"] = [item[0] for item in text], [item[1] for item in text]
            if not text_kwargs.get("is_split_into_words"):
                _check_texts(text, text_kwargs.get("text_pair"))
            # The tokenizer's own default may be the left, as of models that generate.
            asked = (options, options.get("text_kwargs") or {}, options.get("common_kwargs") or {})
            if not any(isinstance(each.get("padding_side"), str) for each in asked):
                text_kwargs["padding_side"] = "right"
            try:
                data.update(self.tokenizer(text, **text_kwargs))
            except Exception as error:  # whatever a tokenizer of someone else raises
                raise MmptValueError(f"the tokenizer does not take these texts or options: {error}") from error
        if images is not None:
            data.update(self.image_processor(images, **merged["images_kwargs"]))
        if text is not None and images is not None:
            texts = 1 if isinstance(text, str) else len(text)
            images_given = len(data["region_features"])
            if texts != images_given:
                raise MmptValueError(
                    f"got {texts} texts and regions of {images_given} images, expected one text an image; repeat the "
                    "regions for each text of an image"
                )
        try:
            return BatchFeature(data, tensor_type=merged["text_kwargs"].get("return_tensors"))
        except Exception as error:  # transformers raises several kinds
            raise MmptValueError(
                f"the batch cannot be made tensors ({error}); pass padding=True for texts of several lengths, and "
                "return_tensors 'pt' or 'np'"
            ) from error

    def encode_texts(self, texts: Sequence[Any], max_tokens: int, **options: Any) -> tuple[dict[str, Tensor], Any]:
        """Tokenize the texts of a batch, padded on the right and truncated to `max_tokens`.

        Args:
            texts: strings, or (text, second text) tuples. A batch may mix both.
            options: further options of the tokenizer.

        Returns:
            The inputs that the tokenizer gives, by name, each (batch, tokens) int64; and its encoding, which knows
            characters and words.
        """
        encoding = self.tokenizer(
            list(texts),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=max_tokens,
            return_attention_mask=True,
            **options,
        )
        # One array per list is several times faster than return_tensors, which walks through every number.
        arrays = {name: np.array(encoding[name], dtype=np.int64) for name in TEXT_INPUTS if name in encoding}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, encoding

    def _check_options(self, given: dict[str, Any]) -> None:
        """Raise for an option that neither part has: transformers would warn and leave it out."""
        text = {*TextKwargs.__annotations__, *signature(type(self.tokenizer).__call__).parameters} - {"self"}
        images = set(MmptImagesKwargs.__annotations__)
        parts = {"text_kwargs": text, "images_kwargs": images, "common_kwargs": text | images}
        for name, known in parts.items():
            options = given.get(name)
            if options is not None and not isinstance(options, dict):
                raise MmptTypeError(f"{name} are {type(options).__name__}, expected a dict of options")
            refuse_unknown_options(options or {}, known, f"{name} of the processor")
        others = {"audio_kwargs", "videos_kwargs"}  # of transformers' callers, for parts that there are not
        refuse_unknown_options(given, text | images | set(parts) | others, "the processor")


def _check_texts(text: Any, text_pair: Any) -> None:
    """Check that texts are a string or a list of strings, and second texts, if there are, the same."""
    for name, texts in (("text", text), ("text_pair", text_pair)):
        if texts is None and name == "text_pair":
            continue
        rows = [texts] if isinstance(texts, str) else texts
        if not isinstance(rows, list | tuple):
            raise MmptTypeError(f"{name} is {type(texts).__name__}, expected a string or a list of strings")
        if not rows:
            raise MmptValueError(f"{name} is an empty list, expected at least one text")
        for row, one in enumerate(rows):
            if not isinstance(one, str):
                raise MmptTypeError(f"{name} has {type(one).__name__} in row {row}, expected a string; '' is no text")
            if not one.isascii() and any("\ud800" <= letter <= "\udfff" for letter in one):
                raise MmptValueError(f"{name} has a lone surrogate in row {row}, which tokenizers reject")
    if text_pair is not None and (
        isinstance(text, str) != isinstance(text_pair, str)
        or (not isinstance(text, str) and len(text) != len(text_pair))
    ):
        raise MmptValueError("text and text_pair are not alike, expected one second text for each text")
