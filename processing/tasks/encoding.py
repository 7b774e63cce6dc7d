"""Texts and regions of a task's examples as tensors, one modality left blank where a diagnosis asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.processing.batch_checks import check_feature_widths
from mmpt.processing.image_processing_mmpt import WHOLE_IMAGE, set_whole_image_feature
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.regions import Regions

Blank = Literal["text", "regions"]
Text = str | tuple[str, str]
REGION_INPUTS = ("region_features", "region_boxes", "region_attention_mask", "region_type_ids")


@dataclass
class TaskBatch:
    """A batch on its way to the model.

    Args:
        tensors: the model's inputs so far.
        encoding: what the tokenizer returned; tells which token a letter of a text belongs to.
        records: the regions of each image, after the limit on their number, boxes as they are.
        detected: (images, regions), bool; False at padding and at a whole-image region.
    """

    tensors: dict[str, Tensor]
    encoding: Any
    records: list[Regions]
    detected: Tensor


@dataclass
class TaskEncoder:
    """Make tensors of texts and regions.

    Args:
        processor: tokenizer and region processor.
        config: of the model that the batch is for.
        max_tokens: tokens a text is cut to, specials included.
        blank: "text": every text is empty, [CLS] [SEP]. "regions": every feature is zero and every box the whole image.
    """

    processor: MmptProcessor
    config: MmptConfig
    max_tokens: int
    blank: Blank | None = None

    def encode(self, texts: Sequence[Text], images: Sequence[Regions], predicts_regions: bool = False) -> TaskBatch:
        """Return texts and images as tensors; there may be more texts than images, or fewer.

        Args:
            predicts_regions: whether the task chooses among the regions. It then keeps their number where they are
                blank; else one is left, because how many there are tells something too.

        Raises:
            ValueError: if features are not as wide as the model expects, or regions are bad.
        """
        if self.blank == "text":
            texts = [""] * len(texts)
        tensors, encoding = self.processor.encode_texts(texts, self.max_tokens)
        regions = self.processor.image_processor
        records = regions.records(list(images))
        check_feature_widths(records, self.config)
        batch, detected = regions.pad(records, feature_dim=self.config.region_feature_dim)
        if regions.whole_image_region:
            set_whole_image_feature(batch["region_features"], detected)
        if self.blank == "regions":
            length = detected.shape[1] if predicts_regions else 1
            batch = {name: tensor[:, :length] for name, tensor in batch.items()}
            batch["region_features"].zero_()
            batch["region_boxes"][...] = torch.tensor(WHOLE_IMAGE)
            batch["region_attention_mask"] = batch["region_attention_mask"].clone()
            if not predicts_regions:
                batch["region_attention_mask"].fill_(1)
                detected = torch.zeros_like(detected[:, :1])
            if "region_type_ids" in batch:
                batch["region_type_ids"].zero_()
        return TaskBatch(tensors | batch, encoding, records, detected)


def pixel_boxes(regions: Regions) -> np.ndarray:
    """Return the boxes of regions in pixels, (regions, 4).

    Raises:
        ValueError: if the image's size is not known.
    """
    if not regions.width or not regions.height:
        raise MmptValueError(
            f"regions of image {regions.image_id!r} have no width and height, which boxes in pixels need; extract or "
            "import them with their images' sizes"
        )
    size = [regions.width, regions.height, regions.width, regions.height]
    return np.asarray(regions.boxes, dtype=np.float64) * size
