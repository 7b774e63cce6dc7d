"""The pre-training heads."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.modeling_mmpt.dropout import apply_dropout
from mmpt.modeling_mmpt.objectives import OBJECTIVES


class MmptTransform(nn.Module):
    """Linear, activation and, unless switched off, LayerNorm: the hidden layer of a prediction head."""

    def __init__(
        self, config: MmptConfig, input_size: int, size: int, act: str | None = None, layer_norm: bool = True
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(input_size, size)
        self.activation = ACT2FN[act or config.hidden_act]
        self.layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps) if layer_norm else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.layer_norm(self.activation(self.dense(hidden)))


class MmptPredictionHead(nn.Module):
    """A transform and a decoder; `transform` is None where the heads of regions share one."""

    def __init__(
        self,
        config: MmptConfig,
        input_size: int,
        size: int,
        outputs: int,
        own_transform: bool = True,
        act: str | None = None,
        layer_norm: bool = True,
    ) -> None:
        super().__init__()
        self.transform = MmptTransform(config, input_size, size, act, layer_norm) if own_transform else None
        self.decoder = nn.Linear(size, outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.decoder(hidden if self.transform is None else self.transform(hidden))


Decode = Callable[[Tensor, Tensor], Tensor]
"""The input projection transposed, of (..., hidden) and a bias. A function: hooks move modules among inputs."""


class MmptTiedFeatureHead(nn.Module):
    """UNITER's feature regression: the input projection transposed, with a bias of its own."""

    def __init__(self, config: MmptConfig, size: int, own_transform: bool) -> None:
        super().__init__()
        self.transform = MmptTransform(config, size, size) if own_transform else None
        self.bias = nn.Parameter(torch.zeros(config.region_feature_dim))

    def forward(self, hidden: Tensor, decode: Decode) -> Tensor:
        """Return (selected, feature)."""
        return decode(hidden if self.transform is None else self.transform(hidden), self.bias)


class PreTrainingHeads(nn.ModuleDict):
    """One head for each that the configured objectives read, by its name in the table of objectives."""

    def __init__(self, config: MmptConfig, region_hidden_size: int) -> None:
        super().__init__()
        needed = {OBJECTIVES[name].head for name in config.objective_weights}
        size, region_size, pooled_size = (
            config.hidden_size,
            region_hidden_size,
            config.pooler_size or config.hidden_size,
        )
        own = not config.share_region_head_transform
        if "token" in needed:
            self["token"] = MmptPredictionHead(config, size, size, config.vocab_size)
        for name, outputs in (
            ("region_class", config.num_region_classes),
            ("region_attribute", config.num_region_attributes),
        ):
            if name in needed:
                self[name] = MmptPredictionHead(config, region_size, region_size, outputs, own)
        if "region_feature" in needed and config.tie_region_feature_decoder:
            self["region_feature"] = MmptTiedFeatureHead(config, region_size, own)
        elif "region_feature" in needed:
            self["region_feature"] = MmptPredictionHead(
                config, region_size, region_size, config.region_feature_dim, own
            )
        if "matching" in needed:
            self["matching"] = nn.Linear(pooled_size, config.num_matching_classes)
        if "answer" in needed:
            self["answer"] = MmptPredictionHead(config, pooled_size, 2 * pooled_size, config.num_qa_labels)
        if not own and any(name.startswith("region_") for name in needed):
            self["region_transform"] = MmptTransform(config, region_size, region_size)
        self.pooled_dropout_prob = config.pooled_dropout_prob

    def forward(self, reads: str, hidden: Tensor, names: set[str], decode: Decode) -> dict[str, Tensor]:
        """Return the predictions of the heads in `names`, all of which read `reads`; hidden: (..., width).

        Args:
            decode: for a tied feature head.
        """
        if reads == "pair":
            hidden = apply_dropout(hidden, self.pooled_dropout_prob, self.training)
        elif reads == "regions" and "region_transform" in self:
            hidden = self["region_transform"](hidden)
        predictions = {}
        for name in sorted(names.intersection(self)):
            head = self[name]
            tied = isinstance(head, MmptTiedFeatureHead)
            predictions[name] = head(hidden, decode) if tied else head(hidden)
        return predictions
