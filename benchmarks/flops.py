"""Useful work of a step: the FLOPs of its matrix products on real tokens and regions, nothing for padding.

A head counts only where it predicts, and backward as twice forward. The share of the machine's matmul rate that a step
reaches is these FLOPs over its time.
"""

from typing import Any

from torch import Tensor

from mmpt.modeling_mmpt.objectives import OBJECTIVES, is_labelled


def step_flops(config: Any, batch: dict[str, Tensor]) -> float:
    """Return the FLOPs of forward and backward of one of our models on a batch.

    Args:
        config: of the model, either stream.
    """
    text, regions = batch["attention_mask"].sum(1), batch["region_attention_mask"].sum(1)
    size = config.hidden_size
    if "text_co_attention_layers" in config.to_dict():
        region_size = config.region_hidden_size or size
        encoder = dual_stream(config, text, regions)
    else:
        region_size = size
        encoder = config.num_hidden_layers * layer(text + regions, size, config.intermediate_size)
    projection = 2.0 * float(regions.sum()) * (config.region_feature_dim + config.region_box_dim) * region_size
    return 3 * (encoder + projection + heads(config, region_size, batch))


def dual_stream(config: Any, text: Tensor, regions: Tensor) -> float:
    """Return forward's FLOPs of the encoder. text, regions: (batch,), how many each pair has."""
    size, region_size = config.hidden_size, config.region_hidden_size or config.hidden_size
    inner = config.co_attention_hidden_size or size
    region_intermediate = config.region_intermediate_size or config.intermediate_size
    work = config.num_hidden_layers * layer(text, size, config.intermediate_size)
    work += config.region_num_hidden_layers * layer(regions, region_size, region_intermediate)
    joint = attention(text, regions, size, region_size, inner) + attention(regions, text, region_size, size, inner)
    if config.co_attention_feed_forward:
        joint += 4.0 * float(text.sum()) * size * config.intermediate_size
        joint += 4.0 * float(regions.sum()) * region_size * region_intermediate
    return work + len(config.text_co_attention_layers) * joint


def heads(config: Any, region_size: int, batch: dict[str, Tensor]) -> float:
    """Return forward's FLOPs of the heads, each at the places where one of its objectives has a label."""
    outputs = {
        "token": config.vocab_size,
        "region_class": config.num_region_classes,
        "region_attribute": config.num_region_attributes,
        "region_feature": config.region_feature_dim,
    }
    places: dict[str, Tensor] = {}
    for name, objective in OBJECTIVES.items():
        if f"{name}_labels" in batch:
            labelled = is_labelled(batch[f"{name}_labels"])
            places[objective.head] = labelled | places[objective.head] if objective.head in places else labelled
    work = 0.0
    for head, where in places.items():
        if head in outputs:
            work += prediction(where.sum(), config.hidden_size if head == "token" else region_size, outputs[head])
        elif head == "matching":
            work += prediction(where.sum(), config.hidden_size, config.num_matching_classes)
    return work


def layer(lengths: Tensor, size: int, intermediate: int) -> float:
    """Return forward's FLOPs of self-attention and feed-forward. lengths: (batch,)."""
    return attention(lengths, lengths, size, size, size) + 4.0 * float(lengths.sum()) * size * intermediate


def attention(queries: Tensor, keys: Tensor, query_size: int, key_size: int, inner: int) -> float:
    """Return forward's FLOPs of four projections, scores and weighted sum. queries, keys: (batch,)."""
    projections = 4.0 * inner * (float(queries.sum()) * query_size + float(keys.sum()) * key_size)
    return projections + 4.0 * inner * float((queries * keys).sum())


def prediction(places: Tensor | int, size: int, outputs: int) -> float:
    """Return forward's FLOPs of a hidden layer and a decoder: a head, or the pooler and the matching classifier."""
    return 2.0 * float(places) * size * (size + outputs)
