"""Layer-wise learning rates and freezing of parameters in fine-tuning, by depth in the model.

The depth of a block is the number of blocks on the longest path before it. Embeddings have depth 0; the layers of a
single stream have depths 1, 2, ...; in the dual stream a co-attention layer is one above the deeper of its two inputs.
Poolers and heads are at the top. Layer-wise decay multiplies the rate by a factor for each level below the top (Howard
and Ruder 2018, Universal Language Model Fine-tuning; Clark et al. 2020, ELECTRA).
"""

from collections.abc import Iterable
from typing import Any, Literal

from torch import nn

from mmpt.configuration.configuration_mmpt import MmptConfig, MmptDualStreamConfig
from mmpt.configuration.errors import MmptValueError

Freeze = Literal["backbone", "embeddings"] | int | None
BACKBONE = "backbone."
EMBEDDINGS = ("backbone.text_embeddings.", "backbone.region_embeddings.")
POOLERS = ("backbone.text_pooler.", "backbone.region_pooler.")


def block_depths(config: MmptConfig) -> dict[str, int]:
    """Return prefix of parameter names -> depth, for each block of a backbone."""
    depths: dict[str, int] = {prefix: 0 for prefix in EMBEDDINGS}  # noqa: C420 - wider keys
    if not isinstance(config, MmptDualStreamConfig):
        return depths | {f"backbone.layers.{layer}.": layer + 1 for layer in range(config.num_hidden_layers)}
    text = region = text_done = region_done = 0
    ends = (config.num_hidden_layers, config.region_num_hidden_layers)
    stops = [*zip(config.text_co_attention_layers, config.region_co_attention_layers, strict=True), ends]
    for number, (text_stop, region_stop) in enumerate(stops):
        for layer in range(text_done, text_stop):
            text += 1
            depths[f"backbone.text_layers.{layer}."] = text
        for layer in range(region_done, region_stop):
            region += 1
            depths[f"backbone.region_layers.{layer}."] = region
        text_done, region_done = text_stop, region_stop
        if number < len(stops) - 1:
            text = region = max(text, region) + 1
            depths[f"backbone.co_attention_layers.{number}."] = text
    return depths


def depth_of(name: str, depths: dict[str, int]) -> int:
    """Return the depth of a parameter; poolers and heads are one above the deepest block.

    Raises:
        ValueError: if a backbone parameter belongs to no known block.
    """
    for prefix, depth in depths.items():
        if name.startswith(prefix):
            return depth
    if name.startswith(BACKBONE) and not name.startswith(POOLERS):
        raise MmptValueError(f"parameter {name!r} is in no block of the backbone, whose blocks are {', '.join(depths)}")
    return max(depths.values()) + 1


def parameter_groups(
    model: nn.Module,
    decayed: Iterable[str],
    *,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    head_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Return optimiser groups of all trainable parameters, from the embeddings to the head.

    Args:
        model: model of a task.
        decayed: names of the parameters with weight decay.
        learning_rate: rate at the top of the model.
        weight_decay: weight decay of the `decayed` parameters.
        layer_decay: factor of the rate for each level below the top.
        head_factor: factor of the rate of all parameters outside the backbone.
    """
    depths = block_depths(model.config)  # type: ignore[arg-type]
    top, decayed = max(depths.values()) + 1, set(decayed)
    groups: dict[tuple[int, bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth, is_head, has_decay = depth_of(name, depths), not name.startswith(BACKBONE), name in decayed
        group = groups.setdefault(
            (depth, is_head, has_decay),
            {
                "params": [],
                "lr": learning_rate * layer_decay ** (top - depth) * (head_factor if is_head else 1.0),
                "weight_decay": weight_decay if has_decay else 0.0,
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def freeze_parameters(model: nn.Module, freeze: Freeze) -> int:
    """Freeze part of a task model, and return the number of trainable parameters.

    Args:
        freeze: "backbone" freezes all but the head; "embeddings" freezes only these; a number freezes the embeddings
            and all blocks up to this depth; None freezes nothing.

    Raises:
        ValueError: if the number is larger than the depth of the model.
    """
    depths = block_depths(model.config)  # type: ignore[arg-type]
    deepest = max(depths.values())
    levels = {None: -1, "embeddings": 0, "backbone": deepest}.get(freeze, freeze)  # type: ignore[arg-type]
    if not isinstance(levels, int) or levels > deepest or (levels < 0 and freeze is not None):
        raise MmptValueError(
            f"freeze is {freeze!r}, expected 'backbone', 'embeddings', a number of levels in 0..{deepest}, or null"
        )
    for name, parameter in model.named_parameters():
        whole = freeze == "backbone" and name.startswith(BACKBONE)
        if whole or depth_of(name, depths) <= levels:
            parameter.requires_grad_(False)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
