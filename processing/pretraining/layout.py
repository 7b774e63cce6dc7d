"""The layout of a batch for pre-training: which places the model computes, and where its last states are read."""

import numpy as np
from torch import Tensor

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.modeling_mmpt.objectives import OBJECTIVES, is_labelled
from mmpt.modeling_mmpt.unpadding import batch_layout, labelled_places


def pretraining_layout(config: MmptConfig, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the layout of a batch by its masks and its labels, by which the model computes nothing in padding.

    Args:
        batch: both masks, and the labels of the objectives, each where there are some.
    """
    masks = {"tokens": batch["attention_mask"].numpy(), "regions": batch["region_attention_mask"].numpy()}
    read = {reads: np.zeros(mask.shape, bool) for reads, mask in masks.items()}
    for name, row in OBJECTIVES.items():
        if row.reads in read and f"{name}_labels" in batch:
            read[row.reads] |= is_labelled(batch[f"{name}_labels"]).numpy()
    layout = batch_layout(config, *masks.values(), *read.values())
    for reads, places in read.items():
        layout |= labelled_places(reads, places) if layout else {}
    return layout
