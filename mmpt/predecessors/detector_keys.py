"""Keys of the published detectors: bottom-up attention's in two layouts, and VinVL's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mmpt.configuration.configuration_bottom_up import BottomUpConfig
from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.modeling_mmpt.box_geometry import centred_anchors, rounded_anchors
from mmpt.predecessors.key_map import WHOLE, KeyMap, Part
from mmpt.predecessors.source_checkpoint import SourceCheckpoint
from mmpt.recipe.values import read_yaml

STAGES = ("res2", "res3", "res4", "res5")
CONVOLUTIONS = ("conv1", "conv2", "conv3", "shortcut")
DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # what detectron2 and maskrcnn-benchmark divide the deltas of a box by
ANCHOR_SIZES = {12: [64, 128, 256, 512], 15: [32, 64, 128, 256, 512]}
SAME_ANCHOR = 0.01  # pixels
ROUNDED, CENTRED = "rpn.rounded_anchors", "rpn.centred_anchors"
IGNORED = {
    "num_batches_tracked": "a counter of training",
    "pixel_mean": "in the image processor",
    "pixel_std": "always 1",
}
TWIN = ("attribute.feature_extractor.head.", "roi_heads.box.feature_extractor.head.")  # VinVL saves res5 twice


@dataclass(frozen=True)
class DetectorNames:
    """The names and conventions of one layout.

    Args:
        layout: "detectron2" (unc-nlp/frcnn-vg-finetuned, faster_rcnn_from_caffe*.pkl), "caffe" (bua-caffe-frcn-*.pth)
            or "vinvl".
        rpn: prefix of the proposal network.
        objectness: name of its scores.
        deltas: name of its deltas.
        head: prefix of classes and boxes.
        attributes: prefix of the class embedding and the attributes.
        attribute_names: embedding, first and second layer.
        anchors: key of the anchors.
    """

    layout: Literal["detectron2", "caffe", "vinvl"]
    rpn: str = "proposal_generator.rpn_head"
    objectness: str = "objectness_logits"
    deltas: str = "anchor_deltas"
    head: str = "roi_heads.box_predictor"
    attributes: str = "roi_heads.box_predictor"
    attribute_names: tuple[str, str, str] = ("cls_embedding", "fc_attr", "attr_score")
    anchors: str = "proposal_generator.anchor_generator.cell_anchors.0"

    def stem(self) -> tuple[str, str]:
        """Return the prefixes of the stem's convolution and norm."""
        if self.layout == "vinvl":
            return "backbone.body.stem.conv1", "backbone.body.stem.bn1"
        return "backbone.stem.conv1", "backbone.stem.conv1.norm"

    def stage(self, stage: str) -> str:
        """Return the prefix of a stage."""
        if self.layout == "vinvl":
            number = int(stage[-1]) - 1
            return f"{'roi_heads.box.feature_extractor.head' if stage == 'res5' else 'backbone.body'}.layer{number}"
        return f"roi_heads.{stage}" if stage == "res5" else f"backbone.{stage}"

    def convolution(self, stage: str, block: int, name: str) -> tuple[str, str]:
        """Return the prefixes of a block's convolution and norm."""
        prefix = f"{self.stage(stage)}.{block}"
        if self.layout != "vinvl":
            return f"{prefix}.{name}", f"{prefix}.{name}.norm"
        if name == "shortcut":
            return f"{prefix}.downsample.0", f"{prefix}.downsample.1"
        return f"{prefix}.{name}", f"{prefix}.{name.replace('conv', 'bn')}"


DETECTRON2 = DetectorNames("detectron2")
CAFFE = DetectorNames("caffe", attribute_names=("cls_embed", "attr_linear1", "attr_linear2"))
VINVL = DetectorNames(
    "vinvl",
    rpn="rpn.head",
    objectness="cls_logits",
    deltas="bbox_pred",
    head="roi_heads.box.predictor",
    attributes="attribute.predictor",
    anchors="rpn.anchor_generator.cell_anchors.0",
)


def read_detector(
    source: SourceCheckpoint, labels: str | Path | None, overrides: dict[str, Any]
) -> tuple[BottomUpConfig, KeyMap] | None:
    """Return the configuration of a detector and what becomes of its keys; None if the checkpoint is no detector's.

    Args:
        labels: the vocabulary of the classes, a name a line; `objects_vocab.txt` beside the weights by default. That of
            the attributes is `attributes_vocab.txt` beside it.
        overrides: fields of our configuration, in place of those found.

    Raises:
        ValueError: for keys that are missing, rows that do not fit each other, and foreign anchors.
    """
    names = _names_of(source)
    if names is None:
        return None
    _check_yaml(source)
    values: dict[str, Any] = _sizes(source, names) | _vocabularies(source, labels)
    make: Any = BottomUpConfig.x152_c4 if names is VINVL else BottomUpConfig
    config = make(**(values | overrides))
    return config, _key_map(source, names, config)


def _names_of(source: SourceCheckpoint) -> DetectorNames | None:
    """Return the layout of a detector's checkpoint, by its keys and rows alone."""
    if f"{VINVL.rpn}.{VINVL.objectness}.weight" in source:
        return VINVL
    rows = [f"{DETECTRON2.rpn}.{name}.weight" for name in (DETECTRON2.objectness, DETECTRON2.deltas)]
    if not all(row in source for row in rows):
        return None
    scores, anchors = source.shape(rows[0])[0], source.shape(rows[1])[0] // 4
    if scores not in (anchors, 2 * anchors):
        raise MmptValueError(
            f"{source.path} has {scores} rows of objectness for {anchors} anchors, expected {anchors} (one an anchor) "
            f"or {2 * anchors} (background and foreground)"
        )
    return DETECTRON2 if scores == anchors else CAFFE


def _sizes(source: SourceCheckpoint, names: DetectorNames) -> dict[str, Any]:
    """Return the fields of the configuration that the shapes of the weights show."""
    anchors = source.shape(f"{names.rpn}.{names.deltas}.weight")[0] // 4
    if anchors not in ANCHOR_SIZES:
        raise MmptValueError(f"{source.path} has {anchors} anchors a cell, expected 12 (ResNet-101) or 15 (VinVL)")
    inner = [source.shape(f"{names.convolution(stage, 0, 'conv2')[0]}.weight") for stage in STAGES]
    values: dict[str, Any] = {
        "stem_width": source.shape(f"{names.stem()[0]}.weight")[0],
        "stage_depths": [source.count(names.stage(stage)) for stage in STAGES],
        "stage_widths": [source.shape(f"{names.convolution(s, 0, 'conv3')[0]}.weight")[0] for s in STAGES],
        "inner_widths": [shape[0] for shape in inner],
        "groups": inner[0][0] // inner[0][1],
        "rpn_width": source.shape(f"{names.rpn}.conv.weight")[0],
        "anchor_sizes": ANCHOR_SIZES[anchors],
        "num_classes": source.shape(f"{names.head}.cls_score.weight")[0] - 1,
        "num_attributes": 0,
    }
    embedding, dense, score = (f"{names.attributes}.{name}.weight" for name in names.attribute_names)
    if score in source:
        values |= {
            "num_attributes": source.shape(score)[0] - 1,
            "class_embedding_size": source.shape(embedding)[1],
            "attribute_hidden_size": source.shape(dense)[0],
        }
    return values


def _vocabularies(source: SourceCheckpoint, labels: str | Path | None) -> dict[str, list[str]]:
    """Return the names of classes and attributes: the first of the words that stand, with commas, in each line."""
    folder = source.folder if labels is None else Path(labels).parent
    found = {}
    for field, name, word in (
        ("class_names", "objects_vocab.txt", "object"),
        ("attribute_names", "attributes_vocab.txt", "attribute"),
    ):
        path = folder / name if labels is None or word == "attribute" else Path(labels)
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            found[field] = [line.split(",")[0].strip().lower() for line in lines if line.strip()]
        elif labels is not None and word == "object":
            raise MmptFileNotFoundError(f"{path} is not there, expected a text file with the name of a class in a line")
        else:
            source.assumptions.append(f'names are "{word} 17" and so on: there is no {name} beside the weights')
    return found


def _check_yaml(source: SourceCheckpoint) -> None:
    """Refuse a configuration (config.yaml of unc-nlp/frcnn-vg-finetuned) of another network than the released one."""
    path = source.folder / "config.yaml"
    if source.path.is_file() or not path.is_file():
        return
    said = read_yaml(path.read_text(encoding="utf-8"), str(path))
    for section, name, expected in (("model", "max_pool", True), ("roi_box_head", "res5halve", False)):
        values = said.get(section) if isinstance(said, dict) else None
        if isinstance(values, dict) and values.get(name, expected) is not expected:
            raise MmptValueError(
                f"{path} says {section}.{name} = {values[name]!r}, expected {expected} as in the released detector"
            )


def _key_map(source: SourceCheckpoint, names: DetectorNames, config: BottomUpConfig) -> KeyMap:
    keys = KeyMap()
    _map_convolution(keys, names.stem(), "backbone.stem")
    for number, stage in enumerate(STAGES):
        ours = "res5" if stage == "res5" else f"backbone.{stage}"
        for block in range(config.stage_depths[number]):
            for name in CONVOLUTIONS[: 4 if block == 0 else 3]:
                _map_convolution(keys, names.convolution(stage, block, name), f"{ours}.{block}.{name}")
    order = _anchor_order(source, names, config)
    columns = [4 * anchor + number for anchor in order for number in range(4)]
    keys.module(f"{names.rpn}.conv", "rpn.conv")
    keys.module(f"{names.rpn}.{names.objectness}", "rpn.objectness", _objectness(order, names))
    keys.module(f"{names.rpn}.{names.deltas}", "rpn.deltas", Part(_reordered(order), lambda rows: rows[columns]))
    background = Part("the background comes first", _last_first) if names is DETECTRON2 else WHOLE
    keys.module(f"{names.head}.cls_score", "classifier", background)
    keys.module(f"{names.head}.bbox_pred", "box_regressor", _box_rows(names))
    if config.num_attributes:
        embedding, dense, score = (f"{names.attributes}.{name}" for name in names.attribute_names)
        keys.tensor(f"{embedding}.weight", "class_embedding.weight", background)
        keys.module(dense, "attribute_dense")
        none_first = Part('"no attribute" comes first', _last_first)
        keys.module(score, "attribute_classifier", none_first if names is DETECTRON2 else WHOLE)
    _map_anchors(keys, source, names, config, order)
    for key in source:
        reason = IGNORED.get(key.rpartition(".")[2])
        if reason is not None:
            keys.drop([key], reason)
        elif key.startswith(TWIN[0]) and key.replace(*TWIN) in source:
            keys.tie(key, key.replace(*TWIN))
    return keys


def _map_anchors(
    keys: KeyMap, source: SourceCheckpoint, names: DetectorNames, config: BottomUpConfig, order: list[int]
) -> None:
    """Take the file's anchors for the kind that they are; the other kind has its formula."""
    tables = _anchor_tables(config)
    keys.made.update(tables)
    if names.anchors not in source:
        return
    found = source[names.anchors].float()
    if tuple(found.shape) != (config.num_anchors, 4):
        raise MmptValueError(
            f"{source.path}: {names.anchors} has shape {tuple(found.shape)}, expected ({config.num_anchors}, 4)"
        )
    differences = {name: float((found[order] - table).abs().max()) for name, table in tables.items()}
    ours = next((name for name, difference in differences.items() if difference <= SAME_ANCHOR), None)
    if ours is None and names is not DETECTRON2:
        raise MmptValueError(
            f"{source.path} has anchors that its detector was not trained with: {found[0].tolist()}, ..., expected "
            f"{tables[ROUNDED][0].tolist()}, ... (Caffe's). Is it the file of another detector?"
        )
    if ours is None:
        ours = CENTRED
        source.assumptions.append(
            f"anchors are {found[0].tolist()}, ..., not {tables[CENTRED][0].tolist()}, ... as in the released file: "
            'they are taken for the geometry "detectron2", and "caffe" keeps its own'
        )
    del keys.made[ours]
    keys.tensor(names.anchors, ours, Part(_reordered(order), lambda rows: rows[order]))


def _anchor_tables(config: BottomUpConfig) -> dict[str, Tensor]:
    sizes, ratios = config.anchor_sizes, config.anchor_ratios
    return {ROUNDED: rounded_anchors(sizes, ratios), CENTRED: centred_anchors(sizes, ratios)}


def _anchor_order(source: SourceCheckpoint, names: DetectorNames, config: BottomUpConfig) -> list[int]:
    """Return which of their anchors is each of ours: by the file's anchors, or in Caffe's order (ratios outermost)."""
    count, sizes, ratios = config.num_anchors, len(config.anchor_sizes), len(config.anchor_ratios)
    if names.anchors in source and source.shape(names.anchors) == (count, 4):
        found = source[names.anchors].float()
        for table in _anchor_tables(config).values():
            far = (found[None] - table[:, None]).abs().amax(-1)  # (ours, theirs)
            if bool((far.amin(1) <= SAME_ANCHOR).all()):
                return far.argmin(1).tolist()
    if names is DETECTRON2:
        return list(range(count))
    return [number % ratios * sizes + number // ratios for number in range(count)]


def _reordered(order: list[int]) -> str:
    return "" if order == sorted(order) else "anchors of one size stand together"


def _objectness(order: list[int], names: DetectorNames) -> Part:
    count = len(order)
    if names is CAFFE:  # 12 background, then 12 foreground; the softmax of a pair is a function of this
        return Part("foreground less background", lambda rows: (rows[count:] - rows[:count])[order])
    return Part(_reordered(order), lambda rows: rows[order])


def _box_rows(names: DetectorNames) -> Part:
    def undo(rows: Tensor) -> Tensor:
        weights = torch.tensor(DELTA_WEIGHTS, device=rows.device).view(1, 4, *[1] * (rows.ndim - 1))
        return (rows.unflatten(0, (-1, 4)) / weights).flatten(0, 1)

    if names is DETECTRON2:
        return Part("divided by 10, 10, 5, 5", undo)
    if names is CAFFE:
        return Part("without the background's rows", lambda rows: rows[4:])
    return Part("without the background's rows, divided by 10, 10, 5, 5", lambda rows: undo(rows[4:]))


def _map_convolution(keys: KeyMap, theirs: tuple[str, str], ours: str) -> None:
    keys.tensor(f"{theirs[0]}.weight", f"{ours}.conv.weight")
    for name in ("weight", "bias", "running_mean", "running_var"):
        keys.tensor(f"{theirs[1]}.{name}", f"{ours}.norm.{name}")


def _last_first(rows: Tensor) -> Tensor:
    return torch.cat([rows[-1:], rows[:-1]])
