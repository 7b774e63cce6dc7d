"""Tiny configurations of both streams, and their inputs, for the shared tests."""

from typing import Any

import torch
from torch import Tensor

from mmpt.configuration.configuration_mmpt import MmptConfig, MmptDualStreamConfig, MmptSingleStreamConfig

BATCH, TOKENS, REGIONS, FEATURE, CLASSES = 3, 7, 5, 16, 6
TINY: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "region_feature_dim": FEATURE,
    "num_region_classes": CLASSES,
}
# The joint view of hidden states, the text's and the regions'.
STATES = {"num_hidden_states_types": 3}


def single_config() -> MmptSingleStreamConfig:
    return MmptSingleStreamConfig(**TINY, region_type_embedding="shared", region_mask_embedding=True)


def dual_config() -> MmptDualStreamConfig:
    return MmptDualStreamConfig(
        **TINY, region_num_hidden_layers=2, text_co_attention_layers=[1, 2], region_co_attention_layers=[0, 1]
    )


def inputs(config: MmptConfig) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    corner = torch.rand(BATCH, REGIONS, 2, generator=draw) / 2
    return {
        "input_ids": torch.randint(1, config.vocab_size, (BATCH, TOKENS), generator=draw),
        "attention_mask": torch.ones(BATCH, TOKENS, dtype=torch.long),
        "token_type_ids": torch.zeros(BATCH, TOKENS, dtype=torch.long),
        "region_features": torch.rand(BATCH, REGIONS, FEATURE, generator=draw),
        "region_boxes": torch.cat([corner, corner + 0.4], dim=-1),
        "region_attention_mask": torch.ones(BATCH, REGIONS, dtype=torch.long),
        "masked_regions": torch.ones(BATCH, REGIONS, dtype=torch.bool),
    }
