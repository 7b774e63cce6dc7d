"""Embeddings of text tokens and of image regions."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.dropout import MmptDropout
from mmpt.modeling_mmpt.input_checks import values_are_known


class MmptTextEmbeddings(nn.Module):
    """Word + position + token type, LayerNorm, dropout; 12-in-1 puts a task embedding behind [CLS]."""

    def __init__(self, config: MmptConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.task_embeddings = nn.Embedding(config.num_task_tokens, size) if config.num_task_tokens else None
        self.layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = MmptDropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        task_ids: Tensor | None = None,
    ) -> Tensor:
        """Return (batch, tokens, hidden), one token longer where `task_ids` (batch,) are given.

        Raises:
            ValueError: if the text is longer than the table of positions, or task ids meet a model without tasks.
        """
        embeds: Tensor = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        batch, tokens, _ = embeds.shape
        positions = self.position_embeddings.num_embeddings
        if tokens > positions:
            raise MmptValueError(
                f"the text has {tokens} tokens, the model has {positions} positions (max_position_embeddings); "
                f"truncate with truncation=True, max_length={positions}"
            )
        if position_ids is None:
            position_ids = torch.arange(tokens, device=embeds.device)[None]
        if token_type_ids is None:
            token_type_ids = torch.zeros((batch, tokens), dtype=torch.long, device=embeds.device)
        embedded = embeds + self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        if task_ids is not None:
            if self.task_embeddings is None:
                raise MmptValueError("task_ids were given but the model has no task embeddings; set num_task_tokens")
            task = self.task_embeddings(task_ids)[:, None]
            embedded = torch.cat([embedded[:, :1], task, embedded[:, 1:]], dim=1)
        return self.dropout(self.layer_norm(embedded))


class MmptFeatureProjection(nn.Linear):
    """The projection of region features; a class of its own because its bias is initialised in its own way."""


class MmptTiedFeatureProjection(nn.Module):
    """The projection of region features where the head that regresses them reads the same weight.

    Both directions are this module's forward, so whatever gathers, loads or replaces weights sees both. It is no
    `nn.Linear`: libraries that adapt or quantise those know one direction only, and would leave the other behind.
    """

    def __init__(self, projection: MmptFeatureProjection) -> None:
        super().__init__()
        self.weight, self.bias = projection.weight, projection.bias
        # What transformers has initialised is not drawn anew.
        self._is_hf_initialized = getattr(projection, "_is_hf_initialized", False)

    def forward(self, input: Tensor, decoder_bias: Tensor | None = None) -> Tensor:
        """Return (..., size); with the bias of a decoder, (..., feature) by the weight transposed."""
        if decoder_bias is not None:
            return nn.functional.linear(input, self.weight.t(), decoder_bias)
        return nn.functional.linear(input, self.weight, self.bias)


@dataclass(frozen=True)
class SharedTextModules:
    """Modules of the text that regions share. Not a module itself: hooks move modules among a forward's inputs."""

    token_type_embeddings: nn.Module
    layer_norm: nn.Module


class MmptRegionEmbeddings(nn.Module):
    """Feature projection + box projection (+ type, + position), norms and dropout as the configuration says.

    UNITER: LN(LN(W f) + LN(V b) + type). VisualBERT: LN_text(W f + type + position). LXMERT: (LN(W f) + LN(V b)) / 2.
    ViLBERT: LN(W f + V b). Oscar: W f + V b.

    Args:
        size: width of the region stream.
    """

    def __init__(self, config: MmptConfig, size: int) -> None:
        super().__init__()
        self.config = config
        self.feature_projection: nn.Module = MmptFeatureProjection(config.region_feature_dim, size)
        box_size = config.region_box_dim * (1 + 2 * config.region_box_octaves)
        self.box_projection = nn.Linear(box_size, size) if box_size else None
        projections_norm = config.region_projection_layer_norm
        self.feature_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps) if projections_norm else None
        has_box_norm = projections_norm and self.box_projection is not None
        self.box_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps) if has_box_norm else None
        own_type = config.region_type_embedding == "own"
        self.token_type_embeddings = nn.Embedding(config.region_type_vocab_size, size) if own_type else None
        has_position = config.region_position_embedding
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size) if has_position else None
        has_mask = config.region_mask_embedding
        self.mask_embedding = nn.Parameter(torch.zeros(config.region_feature_dim)) if has_mask else None
        own_norm = config.region_embedding_layer_norm == "own"
        self.layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps) if own_norm else None
        self.dropout = MmptDropout(config.hidden_dropout_prob)

    def forward(
        self,
        region_features: Tensor,
        region_boxes: Tensor | None,
        region_attention_mask: Tensor,
        region_type_ids: Tensor | None,
        masked_regions: Tensor | None,
        text: SharedTextModules | MmptTextEmbeddings | None,
    ) -> Tensor:
        """Return (batch, regions, size).

        A row of `region_attention_mask` without any valid region gets one whole-image region of zeros in its first
        place; the caller must attend to it (`attend_to_some_region`).

        Args:
            text: whose type table and LayerNorm are read where the configuration shares them.

        Raises:
            ValueError: if features or boxes have another shape than the configuration says.
        """
        config = self.config
        self._check(region_features, region_boxes, region_type_ids)
        # Of the first weight that is a number: a quantised one is stored as integers.
        dtype = next(weight.dtype for weight in self.parameters() if weight.is_floating_point())
        unread = ~region_attention_mask.bool()
        if region_boxes is not None:
            region_boxes = _finite_where_unread(region_boxes, unread)
        unread = unread if masked_regions is None else unread | masked_regions
        region_features = _finite_where_unread(region_features, unread)
        empty_first = _first_of_empty(region_attention_mask)[..., None]  # (batch, regions, 1)
        projected = self.feature_projection(region_features.to(dtype))
        blank = region_features.new_zeros(1, config.region_feature_dim, dtype=dtype)
        if self.mask_embedding is None:
            bias = self.feature_projection(blank)
        else:
            # W (f + m) = W f + W m: the mask vector is projected once instead of added to every feature.
            bias, masked = self.feature_projection(torch.cat([blank, self.mask_embedding[None]])).split(1)
            if masked_regions is not None:
                projected = projected + masked_regions[..., None] * (masked - bias)
            elif self.training:
                projected = projected + 0 * masked  # each weight has a gradient, for which DDP waits
        projected = torch.where(empty_first, bias, projected)
        if self.feature_layer_norm is not None:
            projected = self.feature_layer_norm(projected)
        if self.box_projection is not None and region_boxes is not None:
            whole = region_boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
            boxes = torch.where(empty_first, whole, region_boxes)
            encoded = encode_boxes(boxes, config.region_box_dim, config.region_box_octaves)
            boxes = self.box_projection(encoded.to(dtype))
            if self.box_layer_norm is not None:
                boxes = self.box_layer_norm(boxes)
            projected = projected + boxes
            if config.region_embedding_reduction == "mean":
                projected = projected / 2
        if config.region_type_embedding != "none":
            table = self.token_type_embeddings
            if table is None:
                assert text is not None
                table = text.token_type_embeddings
            groups = region_attention_mask.new_zeros(()) if region_type_ids is None else region_type_ids
            projected = projected + table((groups + config.region_token_type_id).long())
        if self.position_embeddings is not None:
            projected = projected + self.position_embeddings(torch.zeros_like(region_attention_mask[:1, :1]).long())
        if self.layer_norm is not None:
            projected = self.layer_norm(projected)
        elif config.region_embedding_layer_norm == "shared":
            assert text is not None
            projected = text.layer_norm(projected)
        return self.dropout(projected)

    def _check(self, features: Tensor, boxes: Tensor | None, type_ids: Tensor | None) -> None:
        config = self.config
        if features.dim() != 3 or features.shape[1] < 1:
            raise MmptValueError(
                f"region_features has shape {tuple(features.shape)}, expected (batch, regions, feature) with one "
                "region or more; the processor gives an image without regions one whole-image region"
            )
        if features.shape[-1] != config.region_feature_dim:
            raise MmptValueError(
                f"region_features are {features.shape[-1]} numbers wide, the model expects region_feature_dim "
                f"{config.region_feature_dim}. Were the features extracted with the detector this model was made for?"
            )
        if self.box_projection is not None and boxes is None:
            raise MmptValueError("region_boxes are missing: the model embeds boxes; pass (batch, regions, 4) in 0..1")
        if boxes is not None and boxes.shape != (*features.shape[:2], 4):
            raise MmptValueError(
                f"region_boxes has shape {tuple(boxes.shape)}, expected {(*features.shape[:2], 4)}: x1 y1 x2 y2 in "
                "0..1; further numbers such as the area are computed by the model"
            )
        if type_ids is not None and config.region_type_embedding == "none":
            raise MmptValueError(
                "region_type_ids were given but region_type_embedding is 'none'; set it to 'own' or 'shared', or "
                "leave region_type_ids out"
            )


def attend_to_some_region(region_attention_mask: Tensor) -> Tensor:
    """Return the mask with the first place of each empty row switched on, so that no row is fully masked."""
    return region_attention_mask.bool() | _first_of_empty(region_attention_mask)


def encode_boxes(boxes: Tensor, numbers: int, octaves: int = 0) -> Tensor:
    """Return (batch, regions, numbers * (1 + 2 * octaves)) from boxes (batch, regions, 4), x1 y1 x2 y2 in 0..1.

    4: x1 y1 x2 y2. 5: with the area (ViLBERT). 6: with width and height (Oscar). 7: with width, height, area (UNITER).
    Octave k appends sin and cos of pi * 2^k times each number.
    """
    width, height = boxes[..., 2:3] - boxes[..., 0:1], boxes[..., 3:4] - boxes[..., 1:2]
    extra = {4: (), 5: (width * height,), 6: (width, height), 7: (width, height, width * height)}[numbers]
    plain = torch.cat([boxes, *extra], dim=-1)
    if not octaves:
        return plain
    scales = math.pi * 2.0 ** torch.arange(octaves, device=boxes.device, dtype=boxes.dtype)
    angles = (plain[..., None] * scales).flatten(-2)  # (batch, regions, numbers * octaves)
    return torch.cat([plain, angles.sin(), angles.cos()], dim=-1)


def _finite_where_unread(vectors: Tensor, unread: Tensor) -> Tensor:
    """Return vectors (batch, regions, width) with 0 for those of `unread` (batch, regions) that are NaN or infinite.

    Nothing reads padding, nor a feature that is masked, but NaN would spread through products with zero.
    """
    wrong = unread & ~torch.isfinite(vectors.sum(-1))
    if values_are_known(wrong) and not wrong.any():
        return vectors
    return vectors.masked_fill(wrong[..., None], 0)


def _first_of_empty(mask: Tensor) -> Tensor:
    """Return (batch, regions), True at the first place of each row of `mask` that has no valid place."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return first & ~mask.bool().any(dim=1, keepdim=True)
