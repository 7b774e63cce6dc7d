# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Configuration fields for fusion and downstream tasks."""

import math
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.value_bounds import AT_LEAST_ONE, NOT_NEGATIVE, Bounds

TASK_BOUNDS: dict[str, Bounds] = {
    "label_smoothing": Bounds(0, 1, open_high=True),
    "retrieval_margin": NOT_NEGATIVE,
    "retrieval_negatives": AT_LEAST_ONE,
    "contrastive_size": NOT_NEGATIVE,  # 0 disables it
    "alignment_size": AT_LEAST_ONE,
    "classifier_hidden_size": AT_LEAST_ONE,
}
"""Allowed range of each numeric field."""


@strict
class MmptTaskConfig(PreTrainedConfig):
    """Configure the fusion of modalities, and the head and loss of each downstream task.

    The number of classes or answers is `num_labels`, and their names are `id2label`, as everywhere in transformers.

    Args:
        fusion: where the modalities are combined. "early": in the representation (every predecessor). "late": only in
            the predictions, each modality having its own encoder and prediction. "hybrid": both, the early and the
            late predictions being combined with learned weights.
        late_fusion: how late predictions are combined: the "mean", "max" or "product" of their probabilities, or a
            mean with "learned" weights (Kittler et al. 1998, On combining classifiers).
        classifier_head: "mlp", a hidden layer of twice the pooled width (VQA in UNITER, LXMERT, ViLBERT), or "linear"
            (VisualBERT; NLVR2 in UNITER; entailment in ViLBERT 12-in-1).
        classifier_act: activation of a head's hidden layer ("relu" in UNITER's VCR); None means `hidden_act`.
        classifier_hidden_size: width of that hidden layer (VOLTA, Oscar); None means twice the pooled width.
        classifier_layer_norm: apply a LayerNorm after that activation; False in Oscar.
        answer_loss: "bce", binary cross-entropy of every answer with its soft score (UNITER, LXMERT, ViLBERT), or
            "kl", the KL divergence from the distribution of the scores (VisualBERT).
        answer_reads: what the answer head reads: the "pooled" vector, or the "second_last_token" of the text
            (VisualBERT, which puts a [MASK] there).
        label_smoothing: fraction of a class label that is spread over all classes.
        class_weights: weight of each class in the loss, or None.
        image_pair: how two images of one text are encoded. "pair": each with the text, pooled vectors concatenated
            (UNITER, LXMERT, ViLBERT). "triplet": all in one sequence, distinguished by region type (UNITER,
            VisualBERT). "pair_attention": a pair whose states attend to each other (UNITER).
        image_pair_types: use the number of the image as region type in a pair too (UNITER). A triplet always does.
        retrieval_loss: "margin", a hinge on the sigmoid of the scores (UNITER), or "cross_entropy" of the true pair
            against its negatives (ViLBERT).
        retrieval_margin: margin of that hinge.
        retrieval_negatives: in-batch negatives per true pair in each direction.
        contrastive_size: width of the text-only and image-only embeddings, which select hard negatives and are
            searched by an index; 0 disables them.
        grounding_loss: "bce" of each region with its overlap as target (ViLBERT), or "cross_entropy" over all regions
            with the region of highest overlap as target (UNITER).
        grounding_head: "linear", or "mlp" with a hidden layer as wide as the region states (UNITER's RefCOCO+).
        alignment_size: width of the space in which phrases and regions are compared (an attention head's width in
            VisualBERT); None means `hidden_size`.
    """

    fusion: Literal["early", "late", "hybrid"] = "early"
    late_fusion: Literal["mean", "max", "product", "learned"] = "mean"
    classifier_head: Literal["mlp", "linear"] = "mlp"
    classifier_act: str | None = None
    classifier_hidden_size: int | None = None
    classifier_layer_norm: bool = True
    answer_loss: Literal["bce", "kl"] = "bce"
    answer_reads: Literal["pooled", "second_last_token"] = "pooled"
    label_smoothing: float | int = 0.0
    class_weights: list[float] | None = None
    image_pair: Literal["pair", "triplet", "pair_attention"] = "pair"
    image_pair_types: bool = False
    retrieval_loss: Literal["margin", "cross_entropy"] = "margin"
    retrieval_margin: float | int = 0.2
    retrieval_negatives: int = 1
    contrastive_size: int = 0
    grounding_loss: Literal["bce", "cross_entropy"] = "bce"
    grounding_head: Literal["linear", "mlp"] = "linear"
    alignment_size: int | None = None

    def validate_task_losses(self) -> None:
        weights = self.class_weights
        if weights is not None and not all(math.isfinite(weight) and weight >= 0 for weight in weights):
            raise MmptValueError(f"class_weights is {weights}, expected numbers of 0 or more")
        if weights and not any(weights):
            raise MmptValueError(f"class_weights is {weights}, expected one above 0")
