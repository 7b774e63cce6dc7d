"""Load the checkpoints of region extractors: detectors, image encoders and their image processors."""

from typing import Any

import torch
from transformers import (
    MODEL_FOR_OBJECT_DETECTION_MAPPING,
    MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING,
    AutoImageProcessor,
    AutoModel,
    AutoModelForObjectDetection,
    DetrImageProcessorPil,
)
from transformers.backbone_utils import BackboneMixin
from transformers.image_processing_base import ImageProcessingMixin

from mmpt.configuration.configuration_bottom_up import BottomUpConfig
from mmpt.configuration.errors import MmptOSError, MmptValueError
from mmpt.configuration.pretrained import load_pretrained
from mmpt.modeling_mmpt.modeling_bottom_up import BottomUpDetector


def is_detector(config: Any) -> bool:
    """Return whether a checkpoint is an object detector."""
    named = config.architectures
    return type(config) in MODEL_FOR_OBJECT_DETECTION_MAPPING and (
        not named or any(architecture.endswith("ForObjectDetection") for architecture in named)
    )


def recognise_backend(config: Any, name: str) -> str:
    """Return the default backend of a checkpoint: "detector" or "grid".

    Raises:
        ValueError: if the checkpoint is neither a detector nor an image encoder.
    """
    kind = config.model_type
    if isinstance(config, BottomUpConfig):
        return "detector"
    if type(config) in MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING:
        raise MmptValueError(
            f"{name} ({kind}) detects what a text describes, expected a detector of fixed classes or an image encoder; "
            "run it yourself and give its boxes to the backend 'boxes'"
        )
    if is_detector(config):
        return "detector"
    if hasattr(config, "vision_config") or hasattr(config, "num_channels"):
        return "grid"
    raise MmptValueError(f"{name} is of type {kind!r}, expected a detector or an image encoder")


def load_detector(name: str, *, config: Any, revision: str | None) -> Any:
    """Load a model for object detection.

    Raises:
        ValueError: if it detects text or document layout.
    """
    if config.model_type.startswith("pp_"):  # PP-DocLayoutV2 orders its queries differently from their hidden states
        raise MmptValueError(
            f"{name} ({config.model_type}) detects the layout of documents, expected a detector of objects"
        )
    return _load_weights(AutoModelForObjectDetection, name, config=config, revision=revision)


def load_bottom_up(name: str, *, config: BottomUpConfig, revision: str | None) -> BottomUpDetector:
    """Load a detector of this package."""
    return _load_weights(BottomUpDetector, name, config=config, revision=revision)


def load_encoder(name: str, *, config: Any, revision: str | None) -> Any:
    """Load an image encoder: the vision model of an image-text model, or the backbone of a detector.

    Raises:
        ValueError: if the detector has no separate backbone.
    """
    detector = is_detector(config)
    model = _load_weights(
        AutoModelForObjectDetection if detector else AutoModel, name, config=config, revision=revision
    )
    if not detector:
        return getattr(model, "vision_model", model)
    backbone = next((module for module in model.modules() if isinstance(module, BackboneMixin)), None)
    if backbone is None:
        raise MmptValueError(
            f"{name} ({config.model_type}) has no backbone, expected one whose feature map can be pooled"
        )
    return backbone


def load_image_processor(name: str, revision: str | None) -> Any:
    """Load the image processor of a checkpoint in its Pillow version, which runs on every machine.

    Raises:
        OSError: if the checkpoint has none.
    """
    where: dict[str, Any] = {"revision": revision}
    try:
        facts, _ = ImageProcessingMixin.get_image_processor_dict(name, **where)
    except OSError as error:
        raise MmptOSError(
            f"{name} has no preprocessor_config.json, expected one next to the weights: it defines resizing and "
            "normalisation. Save the image processor of the checkpoint that yours comes from into the folder: "
            'AutoImageProcessor.from_pretrained("...").save_pretrained(folder)'
        ) from error
    # RF-DETR's image processor needs torchvision; DETR's reads the same settings.
    if str(facts.get("image_processor_type")).startswith("RfDetr"):
        return load_pretrained(DetrImageProcessorPil, name, **where)
    return load_pretrained(AutoImageProcessor, name, **where, backend="pil")


def _load_weights(kind: Any, name: str, *, config: Any, revision: str | None) -> Any:
    """Load a model in float32, using only code of transformers.

    Raises:
        ValueError: if the checkpoint lacks weights, which transformers would initialise at random.
    """
    model, report = load_pretrained(
        kind,
        name,
        config=config,
        revision=revision,
        dtype=torch.float32,
        output_loading_info=True,
    )
    parameters = {key for key, _ in model.named_parameters() if "pooler" not in key}  # regions do not use the pooler
    missing = sorted(parameters & set(report["missing_keys"]))
    if missing:
        raise MmptValueError(
            f"{name} lacks {len(missing)} weights of {type(model).__name__} ({', '.join(missing[:3])}, ...), "
            "expected all. Is it a checkpoint of another head? Try another backend"
        )
    return model.eval()
