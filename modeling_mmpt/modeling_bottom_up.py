# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Bottom-up attention's detector: from pixels to the regions that released models were trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from mmpt.configuration.configuration_bottom_up import BottomUpConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.self_contained import SelfContained
from mmpt.modeling_mmpt.bottom_up_layers import BottomUpConvolution, BottomUpStage, FrozenNorm
from mmpt.modeling_mmpt.bottom_up_selection import (
    Chosen,
    select_maxnms,
    select_nms_filter,
    select_perclass,
    select_tsv,
)
from mmpt.modeling_mmpt.box_geometry import (
    GEOMETRIES,
    Geometry,
    centred_anchors,
    clip_boxes,
    decode_boxes,
    propose,
    rounded_anchors,
)
from mmpt.modeling_mmpt.roi_pooling import POOLERS, split_phases

SMALLEST_SIDE = 3
"""Pixels below which the stem has no output."""


@dataclass
class BottomUpOutput(ModelOutput):
    """The regions of each image: a tuple with a tensor an image, since images differ in their numbers of regions.

    Args:
        features: (regions, feature), the mean of res5 over the region's proposal.
        boxes: (regions, 4), x1 y1 x2 y2 in pixels of the original image: the proposals ("tsv", "nms_filter") or what
            the detector made of them ("maxnms", "perclass").
        class_probs: (regions, 1 + classes), the background first.
        labels: (regions,), the class that the selection chose, without the background: from 0 on.
        scores: (regions,), the probability of that class.
        attribute_probs: (regions, 1 + attributes), "no attribute" first; with `cut_no_attribute` (regions, attributes).
        attribute_labels: (regions,), the best attribute: from 0 on.
        attribute_scores: (regions,), its probability.
        kept_indices: (regions,), the place of each region among the proposals.
        proposals: (proposals, 4), in pixels of the resized image, the best first; with given boxes these.
        objectness: (proposals,), their logits; None with given boxes.
    """

    features: tuple[Tensor, ...] | None = None
    boxes: tuple[Tensor, ...] | None = None
    class_probs: tuple[Tensor, ...] | None = None
    labels: tuple[Tensor, ...] | None = None
    scores: tuple[Tensor, ...] | None = None
    attribute_probs: tuple[Tensor, ...] | None = None
    attribute_labels: tuple[Tensor, ...] | None = None
    attribute_scores: tuple[Tensor, ...] | None = None
    kept_indices: tuple[Tensor, ...] | None = None
    proposals: tuple[Tensor, ...] | None = None
    objectness: tuple[Tensor, ...] | None = None


class BottomUpBackbone(nn.Module):
    """The network up to res4, 16 pixels a cell."""

    def __init__(self, config: BottomUpConfig) -> None:
        super().__init__()
        self.stem = BottomUpConvolution(config, 3, config.stem_width, 7, 2)
        # Caffe pools without padding and rounds up; with the usual padding every cell would be shifted.
        ceil = config.stem_pool_ceil
        self.pool = nn.MaxPool2d(3, stride=2, padding=0 if ceil else 1, ceil_mode=ceil)
        self.res2 = BottomUpStage(config, 0, config.stem_width, 1)
        self.res3 = BottomUpStage(config, 1, config.stage_widths[0], 2)
        self.res4 = BottomUpStage(config, 2, config.stage_widths[1], 2)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return (images, stage_widths[2], rows, columns).

        The norms stay apart, as in the original: which anchors become proposals is decided by numbers that are close to
        each other, and is nearer to the original's choice so.
        """
        hidden = self.pool(F.relu(self.stem(pixel_values)))
        return self.res4(self.res3(self.res2(hidden)))


class BottomUpProposals(nn.Module):
    """The region proposal network."""

    def __init__(self, config: BottomUpConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(config.stage_widths[2], config.rpn_width, 3, padding=1)
        self.objectness = nn.Conv2d(config.rpn_width, config.num_anchors, 1)
        self.deltas = nn.Conv2d(config.rpn_width, 4 * config.num_anchors, 1)
        self.register_buffer("rounded_anchors", rounded_anchors(config.anchor_sizes, config.anchor_ratios))
        self.register_buffer("centred_anchors", centred_anchors(config.anchor_sizes, config.anchor_ratios))
        self._sizes, self._ratios = config.anchor_sizes, config.anchor_ratios

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (images, rows, columns, anchors) and deltas (images, rows, columns, anchors, 4), in float32."""
        hidden = F.relu(self.conv(hidden), inplace=True)
        logits = self.objectness(hidden).permute(0, 2, 3, 1)
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).unflatten(-1, (-1, 4))
        return logits.float(), deltas.float()

    def anchors(self, geometry: Geometry) -> Tensor:
        """Return the anchors (anchors, 4) of a geometry."""
        return (self.rounded_anchors if geometry.rounded_anchors else self.centred_anchors).float()  # type: ignore[operator]

    def reset_anchors(self) -> None:
        """Give the anchors their values by formula."""
        init.copy_(self.rounded_anchors, rounded_anchors(self._sizes, self._ratios))  # type: ignore[arg-type]
        init.copy_(self.centred_anchors, centred_anchors(self._sizes, self._ratios))  # type: ignore[arg-type]


class BottomUpPreTrainedModel(SelfContained, PreTrainedModel):
    """Loading, saving and initialisation by transformers' conventions; a saved model carries its code."""

    config: BottomUpConfig
    config_class = BottomUpConfig
    base_model_prefix = "detector"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    _no_split_modules = ["BottomUpBlock"]
    _keep_in_fp32_modules_strict = ["norm"]  # a variance of the stem is about 1e4

    def hub_classes(self) -> dict[str, type]:
        return {"AutoConfig": type(self.config), "AutoModel": BottomUpDetector}

    def saved_state_dict(self) -> dict[str, Tensor]:
        """Return the weights by the names that they have in files."""
        return self.state_dict()

    def set_auto_map(self, auto_map: dict[str, str]) -> None:
        config: Any = self.config
        config.auto_map = auto_map

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, FrozenNorm):
            for name, buffer in module.named_buffers():
                init.constant_(buffer, float(name in ("weight", "running_var")))
        if isinstance(module, BottomUpProposals):
            module.reset_anchors()


class BottomUpDetector(BottomUpPreTrainedModel):
    """The detector: regions with features, classes and attributes.

    Images of a batch have one size and are never padded; each is computed by itself, so that its regions are those
    that it would have alone, bit by bit.

    Example:

    ```python
    >>> from mmpt import BottomUpConfig, BottomUpDetector

    >>> detector = BottomUpDetector(BottomUpConfig())
    ```
    """

    def __init__(self, config: BottomUpConfig) -> None:
        super().__init__(config)
        width = config.stage_widths[3]
        self.backbone = BottomUpBackbone(config)
        self.rpn = BottomUpProposals(config)
        self.res5 = BottomUpStage(config, 3, config.stage_widths[2], config.res5_stride)
        self.classifier = nn.Linear(width, config.num_classes + 1)
        self.box_regressor = nn.Linear(width, 4 * config.num_classes)
        if config.num_attributes:
            self.class_embedding = nn.Embedding(config.num_classes + 1, config.class_embedding_size)
            self.attribute_dense = nn.Linear(width + config.class_embedding_size, config.attribute_hidden_size)
            self.attribute_classifier = nn.Linear(config.attribute_hidden_size, config.num_attributes + 1)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        resize_factors: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
        return_dict: bool | None = None,
    ) -> BottomUpOutput | tuple[Any, ...]:
        """Return the regions of each image.

        Args:
            pixel_values: (images, 3, height, width), blue, green, red less their means (`BottomUpImageProcessor`).
            resize_factors: (images, 2), pixels of the resized image for one of the original, y and x; 1 by default.
            boxes: one (regions, 4) an image, x1 y1 x2 y2 in pixels of the resized image: their features are returned
                in this order, and nothing is detected.

        Raises:
            ValueError: if pixels, factors and boxes do not fit each other, or an image is too small.
        """
        _check_inputs(pixel_values, resize_factors, boxes)
        if resize_factors is None:
            resize_factors = pixel_values.new_ones(len(pixel_values), 2)
        images = [
            self._regions(image[None], factors.float(), None if boxes is None else boxes[row])
            for row, (image, factors) in enumerate(zip(pixel_values, resize_factors, strict=True))
        ]
        names = images[0].keys()
        output = BottomUpOutput(**{name: tuple(image[name] for image in images) for name in names})
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def res4(self, pixel_values: Tensor) -> Tensor:
        """Return the map that proposals and regions are read from, (images, channels, rows, columns)."""
        return self.backbone(pixel_values.to(self.dtype))

    def propose(self, res4: Tensor, size: tuple[int, int], factor: float) -> tuple[Tensor, Tensor]:
        """Return the proposals (proposals, 4) of one image in its pixels, and their logits; the best first.

        Args:
            res4: (1, channels, rows, columns).
            size: height and width of the resized image.
            factor: its pixels for one of the original.
        """
        geometry = GEOMETRIES[self.config.geometry]
        logits, deltas = self.rpn(res4)
        return propose(
            logits[0],
            deltas[0],
            self.rpn.anchors(geometry),
            geometry,
            size=size,
            factor=factor,
            num_candidates=self.config.num_candidates,
            num_proposals=self.config.num_proposals,
            threshold=self.config.rpn_nms_threshold,
        )

    def pool(self, res4: Tensor, boxes: Tensor) -> Tensor:
        """Return the features (regions, feature) of boxes (regions, 4) in pixels of the resized image, in float32."""
        config = self.config
        pooler = POOLERS[config.roi_pooling](res4[0], config.roi_resolution)
        chunks = boxes.float().split(config.region_chunk) if len(boxes) else ()
        features = [res4.new_zeros(0, config.stage_widths[3], dtype=torch.float32)]
        with self.res5.folded():
            for chunk in chunks:
                maps = split_phases(pooler(chunk), config.res5_dilation).permute(0, 3, 1, 2)  # channels last in memory
                means = self.res5(maps).mean((2, 3), dtype=torch.float32)
                features.append(means.view(len(chunk), -1, means.shape[-1]).mean(1))
        return torch.cat(features)

    def attribute_logits(self, features: Tensor, classes: Tensor) -> Tensor:
        """Return (regions, 1 + attributes), "no attribute" first; classes count the background as 0."""
        hidden = torch.cat([features, self.class_embedding(classes)], dim=-1)
        return self.attribute_classifier(F.relu(self.attribute_dense(hidden))).float()

    def _regions(self, image: Tensor, factors: Tensor, given: Tensor | None) -> dict[str, Tensor]:
        size = (image.shape[2], image.shape[3])
        res4 = self.res4(image)
        objectness: dict[str, Tensor] = {}
        if given is None:
            proposals, objectness["objectness"] = self.propose(res4, size, float(factors[0]))
        else:
            proposals = given.to(image.device, torch.float32)
        features = self.pool(res4, proposals)
        logits = self.classifier(features.to(self.dtype)).float()
        probs = logits.softmax(-1)
        scale = factors[[1, 0, 1, 0]]
        if given is None:
            chosen, boxes = self._choose(features, probs, proposals, scale, size)
        else:
            scores, labels = probs[:, 1:].max(1)
            chosen = Chosen(torch.arange(len(probs), device=probs.device), labels, scores)
            boxes = proposals
        kept = chosen.indices
        classes = chosen.labels + 1 if self.config.selection == "nms_filter" else logits[kept].argmax(1)
        return {
            "features": features[kept],
            "boxes": boxes / scale,
            "class_probs": probs[kept],
            "labels": chosen.labels,
            "scores": chosen.scores,
            **self._attributes(features[kept], classes),
            "kept_indices": kept,
            "proposals": proposals,
            **objectness,
        }

    def _choose(
        self, features: Tensor, probs: Tensor, proposals: Tensor, scale: Tensor, size: tuple[int, int]
    ) -> tuple[Chosen, Tensor]:
        """Return the regions of an image and their boxes in pixels of the resized image."""
        config, geometry = self.config, GEOMETRIES[self.config.geometry]
        scores = probs[:, 1:]
        limits: dict[str, Any] = {"least": config.min_regions, "most": config.max_regions, "extra": geometry.extra}
        if config.selection in ("tsv", "nms_filter"):
            select = select_tsv if config.selection == "tsv" else select_nms_filter
            limits |= {"threshold": config.nms_thresholds[0], "score": config.score_threshold}
            chosen = select(proposals / scale, scores, **limits)
            return chosen, proposals[chosen.indices]
        limits["thresholds"] = config.nms_thresholds
        deltas = self.box_regressor(features.to(self.dtype)).float().unflatten(-1, (-1, 4))
        if config.selection == "maxnms":
            best = scores.argmax(1)
            deltas = deltas[torch.arange(len(best), device=best.device), best]
            boxes = clip_boxes(decode_boxes(proposals, deltas, geometry), *size, geometry)
            chosen = select_maxnms(boxes, scores, **limits)
            return chosen, boxes[chosen.indices]
        boxes = clip_boxes(decode_boxes(proposals[:, None], deltas, geometry), *size, geometry)
        chosen = select_perclass(boxes, scores, score=config.score_threshold, **limits)
        return chosen, boxes[chosen.indices, chosen.labels]

    def _attributes(self, features: Tensor, classes: Tensor) -> dict[str, Tensor]:
        if not self.config.num_attributes:
            return {}
        logits = self.attribute_logits(features.to(self.dtype), classes)
        probs = (logits[:, 1:] if self.config.cut_no_attribute else logits).softmax(-1)
        scores, labels = (probs if self.config.cut_no_attribute else probs[:, 1:]).max(1)
        return {"attribute_probs": probs, "attribute_labels": labels, "attribute_scores": scores}


def _check_inputs(pixels: Tensor, factors: Tensor | None, boxes: Sequence[Tensor] | None) -> None:
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise MmptValueError(f"pixel_values have shape {tuple(pixels.shape)}, expected (images, 3, height, width)")
    if min(pixels.shape[2:]) < SMALLEST_SIDE or not len(pixels):
        raise MmptValueError(
            f"pixel_values have shape {tuple(pixels.shape)}, expected an image with sides of {SMALLEST_SIDE} or more"
        )
    if factors is not None and (factors.shape != (len(pixels), 2) or not bool((factors > 0).all())):
        raise MmptValueError(
            f"resize_factors are {factors!r:.200}, expected ({len(pixels)}, 2) positive numbers: y and x of each image"
        )
    for row, given in enumerate(boxes or ()):
        if given.ndim != 2 or given.shape[1] != 4 or not bool(given.isfinite().all()):
            raise MmptValueError(
                f"boxes of image {row} have shape {tuple(given.shape)}, expected (regions, 4) finite pixels"
            )
    if boxes is not None and len(boxes) != len(pixels):
        raise MmptValueError(f"got boxes of {len(boxes)} images and {len(pixels)} images, expected one each")
