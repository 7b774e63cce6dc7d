# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Configuration of bottom-up attention's detector and of VinVL's, and what the released models saw of them."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.value_bounds import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Bounds, check_bounds

GeometryName = Literal["caffe", "detectron2", "maskrcnn"]
SelectionName = Literal["tsv", "maxnms", "perclass", "nms_filter"]
ResizeRule = Literal["opencv", "interpolate", "pillow"]
Background = Literal["first", "none"]

BOUNDS: dict[str, Bounds] = {
    **dict.fromkeys(("stem_width", "groups", "res5_stride", "res5_dilation", "roi_resolution"), AT_LEAST_ONE),
    **dict.fromkeys(("rpn_width", "num_classes", "class_embedding_size", "attribute_hidden_size"), AT_LEAST_ONE),
    **dict.fromkeys(("num_candidates", "num_proposals", "min_regions", "max_regions"), AT_LEAST_ONE),
    "num_attributes": NOT_NEGATIVE,
    "rpn_nms_threshold": SHARE,
    "score_threshold": SHARE,
    "norm_eps": NOT_NEGATIVE,
    "initializer_range": POSITIVE,
}


@dataclass(frozen=True)
class BottomUpPreset:
    """What the regions of a released model were made with.

    Args:
        geometry: how boxes are counted (`BottomUpConfig`).
        selection: which boxes are kept (`BottomUpConfig`).
        min_regions: the fewest of an image, as far as there are proposals.
        max_regions: the most.
        nms_thresholds: tried in turn until `min_regions` are left.
        cut_no_attribute: whether "no attribute" leaves the softmax.
        shortest_edge: pixels of the short side.
        longest_edge: the most pixels of the long side.
        resize_rule: how images are resized (`BottomUpImageProcessor`).
        background: class probabilities with the background as column 0, or without it.
    """

    geometry: GeometryName = "caffe"
    selection: SelectionName = "tsv"
    min_regions: int = 10
    max_regions: int = 100
    nms_thresholds: tuple[float, ...] = (0.3,)
    cut_no_attribute: bool = False
    shortest_edge: int = 600
    longest_edge: int = 1000
    resize_rule: ResizeRule = "opencv"
    background: Background = "first"

    @property
    def of_model(self) -> dict[str, Any]:
        """The fields that `BottomUpConfig` has."""
        values = asdict(self) | {"nms_thresholds": list(self.nms_thresholds)}
        return {name: value for name, value in values.items() if name in BottomUpConfig.preset_fields}


PRESETS: dict[str, BottomUpPreset] = {
    "uniter": BottomUpPreset(),
    "lxmert": BottomUpPreset(min_regions=36, max_regions=36, background="none"),
    "visual_bert": BottomUpPreset(),
    "oscar": BottomUpPreset(),
    "volta": BottomUpPreset(min_regions=36, max_regions=36),
    "volta_flickr": BottomUpPreset(
        geometry="detectron2",
        selection="maxnms",
        min_regions=36,
        max_regions=36,
        nms_thresholds=(0.5, 0.6, 0.7, 0.8, 0.9),
        cut_no_attribute=True,
        shortest_edge=800,
        longest_edge=1333,
        resize_rule="pillow",
    ),
    "vinvl": BottomUpPreset(geometry="maskrcnn", selection="nms_filter", resize_rule="pillow"),
}
"""By the name of the released model; docs/released-features.md has the sources."""


@strict
class BottomUpConfig(PreTrainedConfig):
    """Bottom-up attention's Faster R-CNN (Anderson et al. 2018, arXiv 1707.07998), and VinVL's (`x152_c4`).

    Args:
        stage_depths: blocks of res2 to res5.
        stem_width: channels behind the first convolution.
        stage_widths: channels behind res2 to res5; the last is the width of a feature.
        inner_widths: channels inside their blocks.
        groups: groups of the 3 x 3 convolutions.
        stride_in_1x1: whether a stage strides in its first 1 x 1 convolution, as in Caffe, or in the 3 x 3.
        stem_pool_ceil: whether the first pooling has no padding and rounds its size up, as in Caffe, or pads by 1.
        res5_stride: stride of res5.
        res5_dilation: dilation of the 3 x 3 convolutions of res5, and their padding.
        roi_pooling: "max" (RoIPool) or "align" (RoIAlign with adaptive sampling and no half-pixel shift).
        roi_resolution: cells of a region's map in each direction.
        norm_eps: added to the variances of the frozen norms.
        rpn_width: channels of the proposal network.
        anchor_sizes: sides of the square anchors in pixels.
        anchor_ratios: height by width.
        num_classes: classes without the background.
        num_attributes: attributes without "no attribute"; 0 where the detector has none.
        class_embedding_size: width of the class embedding that attributes read.
        attribute_hidden_size: width of the layer before the attributes.
        class_names: names of the classes without the background; "object 17" where there are none.
        attribute_names: names of the attributes without "no attribute".
        geometry: "caffe" (a box holds its last pixel, shifted anchors of whole pixels, a smallest size), "detectron2"
            (continuous boxes, centred anchors) or "maskrcnn" (VinVL).
        selection: "tsv" (bottom-up attention's extraction), "maxnms" (one suppression over the regressed boxes),
            "perclass" (stock Faster R-CNN) or "nms_filter" (VinVL).
        num_candidates: anchors that take part in the suppression.
        num_proposals: proposals that it leaves.
        rpn_nms_threshold: overlap from which a proposal is suppressed.
        score_threshold: lowest score that is kept ("maxnms" reads none, as the original).
        nms_thresholds: overlaps of the selection; the first that leaves `min_regions` holds.
        min_regions: the fewest regions of an image, as far as there are proposals.
        max_regions: the most.
        cut_no_attribute: whether "no attribute" leaves the softmax before attributes are scored.
        region_chunk: regions that go through res5 at once; bounds the memory.
        initializer_range: unused by trained weights; the spread of new linear layers.

    Raises:
        ValueError: if a field is out of its range, or two contradict each other.
    """

    model_type = "bottom_up"

    stage_depths: list[int] = field(default_factory=lambda: [3, 4, 23, 3])
    stem_width: int = 64
    stage_widths: list[int] = field(default_factory=lambda: [256, 512, 1024, 2048])
    inner_widths: list[int] = field(default_factory=lambda: [64, 128, 256, 512])
    groups: int = 1
    stride_in_1x1: bool = True
    stem_pool_ceil: bool = True
    res5_stride: int = 1
    res5_dilation: int = 2
    roi_pooling: Literal["max", "align"] = "max"
    roi_resolution: int = 14
    norm_eps: float = 1e-5
    rpn_width: int = 512
    anchor_sizes: list[int] = field(default_factory=lambda: [64, 128, 256, 512])
    anchor_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    num_classes: int = 1600
    num_attributes: int = 400
    class_embedding_size: int = 256
    attribute_hidden_size: int = 512
    class_names: list[str] | None = None
    attribute_names: list[str] | None = None
    geometry: GeometryName = "caffe"
    selection: SelectionName = "tsv"
    num_candidates: int = 6000
    num_proposals: int = 300
    rpn_nms_threshold: float = 0.7
    score_threshold: float = 0.2
    nms_thresholds: list[float] = field(default_factory=lambda: [0.3])
    min_regions: int = 10
    max_regions: int = 100
    cut_no_attribute: bool = False
    region_chunk: int = 20
    initializer_range: float = 0.01

    preset_fields: ClassVar[tuple[str, ...]] = (
        "geometry",
        "selection",
        "min_regions",
        "max_regions",
        "nms_thresholds",
        "cut_no_attribute",
    )
    """What a preset sets."""

    @classmethod
    def x152_c4(cls, **overrides: Any) -> "BottomUpConfig":
        """VinVL's ResNeXt-152 32x8d (Zhang et al. 2021, arXiv 2101.00529; microsoft/scene_graph_benchmark)."""
        values: dict[str, Any] = dict(
            stage_depths=[3, 8, 36, 3],
            inner_widths=[256, 512, 1024, 2048],
            groups=32,
            stride_in_1x1=False,
            stem_pool_ceil=False,
            res5_stride=2,
            res5_dilation=1,
            roi_pooling="align",
            norm_eps=0.0,
            rpn_width=1024,
            anchor_sizes=[32, 64, 128, 256, 512],
            num_classes=1594,
            num_attributes=524,
        )
        return cls(**(values | PRESETS["vinvl"].of_model | overrides))

    @property
    def num_anchors(self) -> int:
        """Anchors of a cell."""
        return len(self.anchor_sizes) * len(self.anchor_ratios)

    @property
    def of_vinvl(self) -> bool:
        """Whether the detector is VinVL's, which other presets do not fit."""
        return self.roi_pooling == "align"

    def names_of(self, kind: Literal["class", "attribute"]) -> list[str]:
        """Return the names of the classes or attributes, made up as "object 17" where the configuration has none."""
        names, count, word = (
            (self.class_names, self.num_classes, "object")
            if kind == "class"
            else (self.attribute_names, self.num_attributes, "attribute")
        )
        return [f"{word} {number}" for number in range(count)] if names is None else list(names)

    def validate_bottom_up(self) -> None:
        """Check what the types cannot."""
        check_bounds(vars(self), BOUNDS)
        for name in ("stage_depths", "stage_widths", "inner_widths"):
            if len(getattr(self, name)) != 4 or min(getattr(self, name)) < 1:
                raise MmptValueError(f"{name} is {getattr(self, name)}, expected four positive numbers (res2 to res5)")
        for name in ("anchor_sizes", "anchor_ratios"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise MmptValueError(f"{name} is {getattr(self, name)}, expected positive numbers")
        if self.region_chunk < 1 or self.min_regions > self.max_regions or not self.nms_thresholds:
            raise MmptValueError(
                f"region_chunk is {self.region_chunk}, min_regions {self.min_regions}, max_regions {self.max_regions}, "
                f"nms_thresholds {self.nms_thresholds}; expected region_chunk >= 1, min_regions <= max_regions and at "
                "least one threshold"
            )
        if self.roi_resolution % max(self.res5_dilation, self.res5_stride):
            raise MmptValueError(
                f"roi_resolution is {self.roi_resolution}, expected a multiple of res5_dilation {self.res5_dilation} "
                f"and res5_stride {self.res5_stride}"
            )
        for name, count in (("class_names", self.num_classes), ("attribute_names", self.num_attributes)):
            names = getattr(self, name)
            if names is not None and len(names) != count:
                raise MmptValueError(f"{name} has {len(names)} names, expected {count}, one a class without background")

    def use_preset(self, name: str) -> BottomUpPreset:
        """Take the settings of a preset and return it.

        Raises:
            ValueError: if there is none of that name, or it is of another detector.
        """
        if name not in PRESETS:
            raise MmptValueError(f"preset is {name!r}, expected one of {', '.join(PRESETS)}")
        if (PRESETS[name].geometry == "maskrcnn") != self.of_vinvl:
            names = ["vinvl"] if self.of_vinvl else [key for key in PRESETS if key != "vinvl"]
            detectors = ("bottom-up attention's ResNet-101", "VinVL's X152-C4")
            raise MmptValueError(
                f"preset {name!r} is of {detectors[not self.of_vinvl]}, but this is {detectors[self.of_vinvl]}; "
                f"expected {', '.join(names)}"
            )
        for key, value in PRESETS[name].of_model.items():
            setattr(self, key, value)
        return PRESETS[name]
