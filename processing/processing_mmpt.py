"""The processor: tokenized text beside the regions of an image."""

from typing import Any

from transformers import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack

from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.self_contained import SelfContained
from mmpt.processing.image_processing_mmpt import MmptImageProcessor, MmptImagesKwargs


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
        merged = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        data: dict[str, Any] = {}
        if text is not None:
            text_kwargs = merged["text_kwargs"]
            if isinstance(text, list | tuple) and text and all(isinstance(item, tuple) for item in text):
                text, text_kwargs["text_pair"] = [item[0] for item in text], [item[1] for item in text]
            data.update(self.tokenizer(text, **text_kwargs))
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
        return BatchFeature(data, tensor_type=merged["text_kwargs"].get("return_tensors"))
