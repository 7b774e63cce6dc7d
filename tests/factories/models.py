"""Tiny models of either stream, with random batches for them."""

from typing import Any

import torch
from torch import Tensor

from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES, MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.modeling_mmpt.modeling_base import MmptBackbone
from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining, MmptDualStreamModel
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining, MmptSingleStreamModel

STREAMS = ("single", "dual")
BATCH, TOKENS, REGIONS, FEATURE, CLASSES, VOCABULARY, HIDDEN = 3, 5, 4, 6, 7, 50, 16
LENGTHS, REGION_COUNTS = (5, 3, 4), (4, 2, 1)
"""Valid tokens and regions of the rows of a ragged batch."""

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 8,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.3,
    "region_feature_dim": FEATURE,
    "num_region_classes": CLASSES,
}
# The region stream has another width and another number of heads than the text stream, so that none stands in for
# the other unnoticed.
DUAL_SIZES: dict[str, Any] = {
    "region_num_hidden_layers": 3,
    "region_hidden_size": 12,
    "region_num_attention_heads": 3,
    "region_intermediate_size": 20,
    "co_attention_hidden_size": 8,
    "co_attention_num_heads": 2,
    "text_co_attention_layers": [1, 2],
    "region_co_attention_layers": [0, 2],
}


def tiny_config(stream: str, **overrides: Any) -> MmptSingleStreamConfig | MmptDualStreamConfig:
    """Return a configuration whose initial weights are large enough that every input matters."""
    if stream == "single":
        return MmptSingleStreamConfig(**(SIZES | overrides))
    return MmptDualStreamConfig(**(SIZES | DUAL_SIZES | overrides))


def tiny_backbone(stream: str, seed: int = 0, attention: str = "eager", **overrides: Any) -> MmptBackbone:
    """Return a backbone in evaluation mode."""
    model_class = MmptSingleStreamModel if stream == "single" else MmptDualStreamModel
    return _build(model_class, tiny_config(stream, **overrides), seed, attention)


def tiny_pretraining(stream: str, seed: int = 0, attention: str = "eager", **overrides: Any) -> MmptForPreTraining:
    """Return a model for pre-training in evaluation mode."""
    model_class = MmptSingleStreamForPreTraining if stream == "single" else MmptDualStreamForPreTraining
    return _build(model_class, tiny_config(stream, **overrides), seed, attention)


def tiny_batch(seed: int = 0, ragged: bool = True) -> dict[str, Tensor]:
    """Return inputs; what is padding holds random numbers, which no output may depend on."""
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(BATCH, REGIONS, 2, 2, generator=draw).sort(2).values
    lengths = torch.tensor(LENGTHS if ragged else [TOKENS] * BATCH)
    counts = torch.tensor(REGION_COUNTS if ragged else [REGIONS] * BATCH)
    return {
        "input_ids": torch.randint(1, VOCABULARY, (BATCH, TOKENS), generator=draw),
        "attention_mask": (torch.arange(TOKENS) < lengths[:, None]).long(),
        "token_type_ids": torch.randint(0, 2, (BATCH, TOKENS), generator=draw),
        "region_features": torch.randn(BATCH, REGIONS, FEATURE, generator=draw),
        "region_boxes": corners.flatten(2),
        "region_attention_mask": (torch.arange(REGIONS) < counts[:, None]).long(),
    }


def tiny_labels(seed: int = 0) -> dict[str, Tensor]:
    """Return labels of the five objectives: two tokens, three regions and two pairs are predicted."""
    draw = torch.Generator().manual_seed(seed)
    mlm = torch.full((BATCH, TOKENS), -100)
    mlm[0, 1], mlm[1, 2] = 7, 9
    masked = torch.zeros(BATCH, REGIONS, dtype=torch.bool)
    masked[0, 0] = masked[0, 3] = masked[1, 1] = True
    probs = torch.rand(BATCH, REGIONS, CLASSES, generator=draw).softmax(-1)
    features = torch.randn(BATCH, REGIONS, FEATURE, generator=draw)
    labels = {
        "masked_regions": masked,
        "mlm_labels": mlm,
        "mrc_labels": torch.where(masked, torch.randint(0, CLASSES, (BATCH, REGIONS), generator=draw), -100),
        "mrc_kl_labels": torch.where(masked[..., None], probs, -100.0),
        "mrfr_labels": torch.where(masked[..., None], features, -100.0),
        "itm_labels": torch.tensor([1, -100, 0]),
    }
    assert set(labels) == {"masked_regions", *(f"{name}_labels" for name in OBJECTIVE_NAMES)}
    return labels


def _build(model_class: Any, config: Any, seed: int, attention: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class._from_config(config, attn_implementation=attention).eval()
