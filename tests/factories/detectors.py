"""Tiny random detectors, one of each type that transformers has, and the image processors that belong to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForObjectDetection,
    ConditionalDetrConfig,
    DabDetrConfig,
    DeformableDetrConfig,
    Deimv2Config,
    DetrConfig,
    DFineConfig,
    HGNetV2Config,
    LwDetrConfig,
    LwDetrViTConfig,
    PreTrainedConfig,
    ResNetConfig,
    RfDetrConfig,
    RTDetrConfig,
    RTDetrResNetConfig,
    RTDetrV2Config,
    TableTransformerConfig,
    YolosConfig,
)
from transformers.models.conditional_detr.image_processing_pil_conditional_detr import ConditionalDetrImageProcessorPil
from transformers.models.deformable_detr.image_processing_pil_deformable_detr import DeformableDetrImageProcessorPil
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

CLASSES = {0: "cat", 1: "N/A", 2: "dog", 3: "bird", 4: "fish"}
SHORT, LONG, SQUARE = 40, 64, 64
WIDTH = 32


def _resnet() -> ResNetConfig:
    return ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip


def _last_stage() -> ResNetConfig:
    return ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 32], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )


def _detr(kind: type[PreTrainedConfig], **rest: Any) -> PreTrainedConfig:
    facts = dict(
        use_timm_backbone=False, backbone_config=_last_stage(), encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2, num_queries=7, id2label=CLASSES,
    )  # fmt: skip
    return kind(**{**facts, "d_model": WIDTH, **rest})


def _deformable(**rest: Any) -> PreTrainedConfig:
    facts = dict(backbone_config=_resnet(), num_feature_levels=3, encoder_n_points=2, decoder_n_points=2)
    return _detr(DeformableDetrConfig, **{**facts, **rest})


def _rt(kind: type[PreTrainedConfig], **rest: Any) -> PreTrainedConfig:
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic", out_indices=[2, 3, 4]
    )
    facts = dict(
        backbone_config=backbone, encoder_hidden_dim=WIDTH, encoder_in_channels=[16, 24, 32], encoder_ffn_dim=32,
        encoder_attention_heads=2, decoder_in_channels=[WIDTH] * 3, d_model=WIDTH, decoder_ffn_dim=32,
        decoder_layers=2, decoder_attention_heads=2, decoder_n_points=2, num_queries=7, num_denoising=0,
        hidden_expansion=0.5, id2label=CLASSES,
    )  # fmt: skip
    return kind(**{**facts, **rest})


def _hgnet() -> HGNetV2Config:
    return HGNetV2Config(
        stem_channels=[3, 8, 8], stage_in_channels=[8, 8, 16, 24], stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 16, 24, 32], stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[1, 1, 1, 1],
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_indices=[2, 3, 4],
    )  # fmt: skip


def _fine(kind: type[PreTrainedConfig], **rest: Any) -> PreTrainedConfig:
    return _rt(kind, backbone_config=_hgnet(), lqe_hidden_dim=8, max_num_bins=8, top_prob_values=2, **rest)


def _lw_detr() -> PreTrainedConfig:
    backbone = LwDetrViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SQUARE, pretrain_image_size=SQUARE,
        patch_size=8, num_windows=4, window_block_indices=[1], out_indices=[1, 2],
    )  # fmt: skip
    return LwDetrConfig(
        backbone_config=backbone, projector_scale_factors=[2.0, 0.5], d_model=WIDTH, decoder_ffn_dim=32,
        decoder_layers=2, decoder_self_attention_heads=2, decoder_cross_attention_heads=4, decoder_n_points=2,
        num_queries=7, group_detr=2, c2f_num_blocks=1, id2label=CLASSES,
    )  # fmt: skip


def _rf_detr() -> PreTrainedConfig:
    backbone = dict(
        model_type="rf_detr_dinov2", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2,
        image_size=SQUARE, patch_size=8, num_windows=2, out_features=["stage1", "stage2"],
    )  # fmt: skip
    return RfDetrConfig(
        backbone_config=backbone, d_model=WIDTH, decoder_ffn_dim=32, decoder_layers=2, decoder_self_attention_heads=2,
        decoder_cross_attention_heads=4, decoder_n_points=2, num_queries=7, group_detr=2, c2f_num_blocks=1,
        intermediate_size=32, id2label=CLASSES,
    )  # fmt: skip


def _yolos() -> PreTrainedConfig:
    return YolosConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, patch_size=16,
        image_size=[SQUARE, SQUARE], num_detection_tokens=7, use_mid_position_embeddings=False, id2label=CLASSES,
    )  # fmt: skip


_DIVERSE = ("class", "query", "detection_tokens")
_KEEP_ASPECT = dict(size={"shortest_edge": SHORT, "longest_edge": LONG})
_SQUARE = dict(size={"height": SQUARE, "width": SQUARE})

DETECTORS: dict[str, tuple[Callable[[], PreTrainedConfig], Any, dict[str, Any]]] = {
    "detr": (lambda: _detr(DetrConfig), DetrImageProcessorPil, _KEEP_ASPECT),
    "table-transformer": (lambda: _detr(TableTransformerConfig), DetrImageProcessorPil, _KEEP_ASPECT),
    "conditional_detr": (lambda: _detr(ConditionalDetrConfig), ConditionalDetrImageProcessorPil, _KEEP_ASPECT),
    "dab-detr": (lambda: _detr(DabDetrConfig, hidden_size=WIDTH), ConditionalDetrImageProcessorPil, _KEEP_ASPECT),
    "deformable_detr": (_deformable, DeformableDetrImageProcessorPil, _KEEP_ASPECT),
    "deformable_detr two-stage": (
        lambda: _deformable(two_stage=True, with_box_refine=True, two_stage_num_proposals=7),
        DeformableDetrImageProcessorPil,
        _KEEP_ASPECT,
    ),
    "rt_detr": (lambda: _rt(RTDetrConfig), RTDetrImageProcessorPil, _SQUARE),
    "rt_detr_v2": (lambda: _rt(RTDetrV2Config), RTDetrImageProcessorPil, _SQUARE),
    "d_fine": (lambda: _fine(DFineConfig), RTDetrImageProcessorPil, _SQUARE),
    "deimv2": (lambda: _fine(Deimv2Config), RTDetrImageProcessorPil, _SQUARE),
    "lw_detr": (_lw_detr, DeformableDetrImageProcessorPil, _SQUARE),
    "rf_detr": (_rf_detr, DetrImageProcessorPil, _SQUARE),
    "yolos": (_yolos, YolosImageProcessorPil, _SQUARE),
    "yolos keeping aspect": (_yolos, YolosImageProcessorPil, _KEEP_ASPECT),
}


def save_detector(name: str, folder: Path, **changes: Any) -> Path:
    """Save a random detector and its image processor.

    Args:
        changes: fields of the config that are other than usual.
    """
    make, processor, size = DETECTORS[name]
    config = make()
    for key, value in changes.items():
        setattr(config, key, value)
    generator = torch.Generator().manual_seed(0)
    model = AutoModelForObjectDetection.from_config(config)
    # In RT-DETR a smaller gain loses the image on its way, in D-FINE a larger one magnifies rounding.
    conv = 1.4 if config.model_type.startswith("rt_detr") else 1.2
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # A fresh model's queries all say the same, whatever the image.
            if parameter.ndim > 1:
                gain = 3.0 if any(word in key for word in _DIVERSE) else conv if parameter.ndim == 4 else 1.0
                scale = gain / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            elif key.endswith("weight"):
                parameter.fill_(1.0)  # RT-DETR draws those of its norms around zero: the image would be lost
            elif "norm" not in key and "bias" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(folder)
    processor(**size).save_pretrained(folder)
    return folder
