# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Configurations of the single-stream and the dual-stream model, and the names of the objectives."""

import difflib
from dataclasses import field, fields
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.utils import logging

from mmpt.configuration.configuration_tasks import MmptTaskConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.model_bounds import LIBRARY_KEYS, MODEL_BOUNDS
from mmpt.configuration.predecessor_fields import (
    LXMERT,
    OSCAR,
    UNITER,
    VILBERT,
    VISUAL_BERT,
    VOLTA_LXMERT,
    VOLTA_UNITER,
    VOLTA_VILBERT,
    VOLTA_VISUAL_BERT,
)
from mmpt.configuration.value_bounds import NOT_NEGATIVE, check_bounds

logger = logging.get_logger(__name__)

OBJECTIVE_NAMES = ("mlm", "mrc", "mrc_kl", "mrfr", "itm")
"""The five objectives: masked language modelling (MLM), masked region classification with hard labels (MRC), the same
with KL divergence (MRC-KL), masked region feature regression (MRFR) and image-text matching (ITM)."""

OPTIONAL_OBJECTIVE_NAMES = ("mrc_attribute", "qa")
"""LXMERT's two additional objectives: attribute classification of masked regions and question answering."""

CLASS_OBJECTIVE_NAMES = ("mrc", "mrc_kl")
"""Objectives that need region classes."""


@strict
class MmptConfig(MmptTaskConfig):
    """Configure what both architectures share: BERT's fields, region embeddings, pooling, heads and objectives.

    Text fields have BERT's names and meaning. The fields of fusion and of downstream tasks are in `MmptTaskConfig`.
    The predecessors in brackets are those that need the value next to them.

    Args:
        region_feature_dim: dimension of a region feature (2048 for bottom-up attention, 256 for DETR).
        region_box_dim: dimension of the box input: 0 for no box (VisualBERT), 4 for x1 y1 x2 y2 (LXMERT), 5 with the
            area (ViLBERT, VOLTA), 6 with width and height (Oscar), 7 with width, height and area (UNITER).
        region_box_octaves: octaves of a Fourier encoding (sine and cosine of pi * 2^k * number) that is appended to
            the box input; 0 in every predecessor.
        region_projection_layer_norm: apply a LayerNorm to the feature projection and to the box projection before
            they are added (UNITER, LXMERT).
        region_embedding_reduction: how the two projections are combined; "mean" in LXMERT.
        region_embedding_layer_norm: LayerNorm on the whole region embedding: "own" (UNITER, ViLBERT, some Oscar),
            "shared" with the text (VisualBERT), "none" (LXMERT, Oscar).
        region_type_embedding: "shared" with the token types of the text (UNITER), an "own" table (VisualBERT), "none".
        region_type_vocab_size: rows of an "own" type table; unused otherwise.
        region_token_type_id: base row of a region in the type table. The `region_type_ids` of the input are added to
            it. 1 in UNITER and in transformers' VisualBERT, 0 in the original VisualBERT.
        region_position_embedding: add a position embedding to regions, always row 0 (VisualBERT).
        region_mask_embedding: add a learned vector to the (zeroed) feature of a masked region (UNITER).
        pooler_size: width of the pooled vectors; None means `hidden_size` (1024 in ViLBERT, VOLTA).
        pooler_act: "tanh" (BERT, UNITER, LXMERT) or "relu" (ViLBERT, VOLTA).
        pooled_fusion: pooled vector that image-text matching reads: "text", or the product ("mul": ViLBERT, VOLTA) or
            "sum" of the pooled text and region vectors.
        pooled_dropout_prob: dropout on that vector before the heads that read it (0.1 in ViLBERT, VOLTA).
        num_task_tokens: rows of a table of task embeddings, one of which is inserted after [CLS] (20 in 12-in-1).
        num_region_classes: logits of the region classifier, background included; 0 disables it.
        region_background_class: index of the background class (0 in 1601-way predecessors), or None.
        num_region_attributes: logits of the attribute classifier (400 in LXMERT); 0 disables it.
        confidence_weighted_classes: weight a region's class and attribute loss by the detector's confidence (LXMERT).
        tie_region_feature_decoder: regress features with the transposed input projection (UNITER).
        region_feature_loss: "l2", the squared error, or "smooth_l1" with beta 1 (LXMERT, which calls it l2).
        share_region_head_transform: share one hidden layer among the class, attribute and feature heads (LXMERT).
        num_matching_classes: logits of image-text matching; 3 in Oscar+.
        num_qa_labels: answers of the question-answering head (9500 in LXMERT); 0 disables it.
        objective_weights: weight of each objective in the total loss. Objectives without an entry are disabled.
        schema_version: version of this list of fields; older versions stay readable.

    Raises:
        ValueError: for a key that is not a field; the message names the nearest field. In a saved configuration the
            unknown key gives a warning.
        StrictDataclassError: of huggingface_hub, for a wrong type and for values that contradict each other.
    """

    # Outputs that Trainer never gathers as predictions.
    _not_predictions = (
        *(
            f"{name}_{suffix}"
            for name in OBJECTIVE_NAMES + OPTIONAL_OBJECTIVE_NAMES
            for suffix in ("loss", "count", "accuracy", "agreement", "cosine")
        ),
        *("hidden_states", "text_hidden_states", "region_hidden_states"),
        *("attentions", "text_attentions", "region_attentions"),
        *("text_to_region_attentions", "region_to_text_attentions"),
    )

    follows: ClassVar[dict[str, str]] = {"pooler_size": "hidden_size"}
    """Field -> the field whose value it takes when it is None."""

    # Auto classes with several classes per configuration iterate over this list; None would raise.
    architectures: list[str] | None = field(default_factory=list)

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True

    region_feature_dim: int = 2048
    region_box_dim: Literal[0, 4, 5, 6, 7] = 7
    region_box_octaves: int = 0
    region_projection_layer_norm: bool = True
    region_embedding_reduction: Literal["sum", "mean"] = "sum"
    region_embedding_layer_norm: Literal["own", "shared", "none"] = "own"
    region_type_embedding: Literal["none", "shared", "own"] = "none"
    region_type_vocab_size: int = 2
    region_token_type_id: int = 0
    region_position_embedding: bool = False
    region_mask_embedding: bool = False

    pooler_size: int | None = None
    pooler_act: Literal["tanh", "relu"] = "tanh"
    pooled_fusion: Literal["text", "mul", "sum"] = "text"
    pooled_dropout_prob: float | int = 0.0
    num_task_tokens: int = 0

    num_region_classes: int = 1601
    region_background_class: int | None = 0
    num_region_attributes: int = 0
    confidence_weighted_classes: bool = False
    tie_region_feature_decoder: bool = False
    region_feature_loss: Literal["l2", "smooth_l1"] = "l2"
    share_region_head_transform: bool = False
    num_matching_classes: int = 2
    num_qa_labels: int = 0
    objective_weights: dict[str, float | int] = field(default_factory=lambda: dict.fromkeys(OBJECTIVE_NAMES, 1.0))
    schema_version: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        known = {item.name for item in fields(self)}
        for key in kwargs:
            if key in known or key in LIBRARY_KEYS or key.startswith("_"):
                continue
            near = difflib.get_close_matches(key, sorted(known), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(sorted(known))}"
            message = f"{type(self).__name__} has no field {key!r}; {hint}"
            if self.transformers_version is None:
                raise MmptValueError(message)
            # Only a saved configuration has a version. Other code may have set an attribute before saving, and a
            # trained model must stay loadable in that case.
            logger.warning(message)
        for name, source in self.follows.items():
            if getattr(self, name) is None:
                setattr(self, name, getattr(self, source))
        if type(self).__module__.startswith("mmpt.") and "custom_pipelines" in kwargs:
            # mmpt registers its pipelines itself. For those of a folder, transformers would ask for trust_remote_code.
            saved = kwargs["custom_pipelines"]
            kwargs["custom_pipelines"] = {name: each for name, each in saved.items() if not name.startswith("mmpt-")}
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration from saved values and overrides, as `from_pretrained` does.

        Some fields default to the value of another field (see `follows`). If both have the same saved value, an
        override of the other field changes both: the file does not record whether the value was given or derived.
        """
        names = {item.name for item in fields(cls)} - {"dtype"}  # here dtype may still be "auto", which is not a dtype
        changes = {name: value for name, value in kwargs.items() if name in names}
        for name, source in cls.follows.items():
            if source in changes and name not in changes and config_dict.get(name) == config_dict.get(source):
                changes[name] = None
        kwargs = {name: value for name, value in kwargs.items() if value is not None or name not in cls.follows}
        # All overrides at once: they are consistent with each other, but perhaps not with the old values.
        return super().from_dict(config_dict | changes, **kwargs)

    @property
    def keys_to_ignore_at_inference(self) -> list[str]:  # type: ignore[override]
        """Outputs that a Trainer does not gather as predictions.

        Logits of tokens and regions are large. They are gathered only if no objective reads the whole pair.
        """
        reads_pair = not {"itm", "qa"}.isdisjoint(self.objective_weights)
        large = ["mlm_logits", "mrc_logits", "mrfr_prediction", "mrc_attribute_logits"] if reads_pair else []
        return [*self._not_predictions, *large]

    def validate_schema_version(self) -> None:
        if self.schema_version > 1:
            raise MmptValueError(
                f"this configuration has schema_version {self.schema_version}, this mmpt reads 1 and older; "
                "install a newer mmpt"
            )

    def validate_bounds(self) -> None:
        check_bounds(vars(self), MODEL_BOUNDS)
        padding = self.pad_token_id
        if padding is not None and padding >= self.vocab_size:
            raise MmptValueError(
                f"pad_token_id is {padding}, expected less than vocab_size, which is {self.vocab_size}"
            )

    def validate_activations(self) -> None:
        for name in ("hidden_act", "classifier_act"):
            value = getattr(self, name)
            if value is not None and value not in ACT2FN:
                near = difflib.get_close_matches(value, ACT2FN, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f": {', '.join(sorted(ACT2FN))}"
                raise MmptValueError(f"{name} is {value!r}, expected an activation of transformers{hint}")

    def validate_attention_heads(self) -> None:
        _check_divides(self.hidden_size, self.num_attention_heads, "hidden_size", "num_attention_heads")

    def validate_regions(self) -> None:
        if self.region_box_octaves and not self.region_box_dim:
            raise MmptValueError(
                f"region_box_octaves is {self.region_box_octaves} but region_box_dim is 0: there is no box to encode; "
                "set region_box_dim to 4, 5, 6 or 7"
            )
        if self.region_type_embedding != "none":
            rows = self.type_vocab_size if self.region_type_embedding == "shared" else self.region_type_vocab_size
            if not 0 <= self.region_token_type_id < rows:
                raise MmptValueError(
                    f"region_token_type_id is {self.region_token_type_id}, expected 0..{rows - 1}: the "
                    f"{self.region_type_embedding} type table has {rows} rows"
                )
        background = self.region_background_class
        if background is not None and self.num_region_classes and not 0 <= background < self.num_region_classes:
            raise MmptValueError(
                f"region_background_class is {background}, expected 0..{self.num_region_classes - 1} "
                "(num_region_classes counts every logit) or None"
            )

    def validate_objectives(self) -> None:
        names = OBJECTIVE_NAMES + OPTIONAL_OBJECTIVE_NAMES
        for name, weight in self.objective_weights.items():
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise MmptValueError(f"unknown objective {name!r}, expected some of {', '.join(names)}{hint}")
            if not NOT_NEGATIVE.hold(weight):
                raise MmptValueError(
                    f"objective_weights: the weight of objective {name!r} is {weight}, expected {NOT_NEGATIVE}"
                )
        if self.objective_weights and not any(self.objective_weights.values()):
            raise MmptValueError(
                f"objective_weights is {self.objective_weights}, expected a weight above 0 for one objective"
            )
        needs = {
            "num_region_classes": CLASS_OBJECTIVE_NAMES,
            "num_region_attributes": ("mrc_attribute",),
            "num_qa_labels": ("qa",),
        }
        for size, objectives in needs.items():
            wanted = [name for name in objectives if name in self.objective_weights]
            if wanted and getattr(self, size) < 1:
                raise MmptValueError(
                    f"objective {wanted[0]!r} is on but {size} is {getattr(self, size)}; set {size}, or leave "
                    f"{wanted[0]!r} out of objective_weights"
                )


@strict
class MmptSingleStreamConfig(MmptConfig):
    """Configure one encoder over text and regions together: UNITER, VisualBERT, Oscar and VOLTA's versions.

    Example:

    ```python
    >>> from mmpt import MmptSingleStreamConfig, MmptSingleStreamModel

    >>> model = MmptSingleStreamModel(MmptSingleStreamConfig.uniter(num_hidden_layers=2))
    ```
    """

    model_type = "mmpt_single_stream"
    base_model_fsdp_plan = {
        "text_embeddings.word_embeddings": "free_full_weight",
        "layers.*": "free_full_weight",
    }

    @classmethod
    def uniter(cls, **overrides: Any) -> "MmptSingleStreamConfig":
        """Return UNITER base with a cased vocabulary (Chen et al. 2020, arXiv 1909.11740)."""
        return cls(**(UNITER | overrides))

    @classmethod
    def visual_bert(cls, **overrides: Any) -> "MmptSingleStreamConfig":
        """Return VisualBERT (Li et al. 2019, arXiv 1908.03557).

        The region type is 1, as in transformers; the original code uses 0.
        """
        return cls(**(VISUAL_BERT | overrides))

    @classmethod
    def oscar(cls, **overrides: Any) -> "MmptSingleStreamConfig":
        """Return Oscar (Li et al. 2020, arXiv 2004.06165).

        VinVL is the same with `region_embedding_layer_norm="own"`.
        """
        return cls(**(OSCAR | overrides))

    @classmethod
    def volta_uniter(cls, **overrides: Any) -> "MmptSingleStreamConfig":
        """Return VOLTA's controlled UNITER (Bugliarello et al. 2021, arXiv 2011.15124)."""
        return cls(**(VOLTA_UNITER | overrides))

    @classmethod
    def volta_visual_bert(cls, **overrides: Any) -> "MmptSingleStreamConfig":
        """Return VOLTA's controlled VisualBERT (Bugliarello et al. 2021, arXiv 2011.15124)."""
        return cls(**(VOLTA_VISUAL_BERT | overrides))


@strict
class MmptDualStreamConfig(MmptConfig):
    """Configure one encoder per modality, joined by co-attention: ViLBERT, LXMERT and VOLTA's versions.

    The fields of `MmptConfig` describe the text stream (`num_hidden_layers` counts its layers). Co-attention layer k
    runs before text layer `text_co_attention_layers[k]` and before region layer `region_co_attention_layers[k]`.
    LXMERT's cross-modality layer is a shared co-attention without feed-forward, then one ordinary layer per stream.

    Args:
        region_num_hidden_layers: layers of the region stream (6 in ViLBERT, 10 in LXMERT).
        region_hidden_size: width of the region stream (1024 in ViLBERT); None means `hidden_size`.
        region_num_attention_heads: attention heads of the region stream (8 in ViLBERT); None means
            `num_attention_heads`.
        region_intermediate_size: feed-forward width of the region stream (1024 in ViLBERT); None means
            `intermediate_size`.
        text_co_attention_layers: for each co-attention layer, the text layer it runs before; ascending.
        region_co_attention_layers: the same for the region stream; both lists have the same length.
        co_attention_hidden_size: width of the co-attention (1024 in ViLBERT); None means `hidden_size`.
        co_attention_num_heads: attention heads of the co-attention (8 in ViLBERT); None means `num_attention_heads`.
        share_co_attention: use one set of weights for both directions (LXMERT).
        co_attention_feed_forward: add one feed-forward block per stream after each co-attention (ViLBERT).

    Example:

    ```python
    >>> from mmpt import MmptDualStreamConfig, MmptDualStreamModel

    >>> model = MmptDualStreamModel(MmptDualStreamConfig.lxmert(vocab_size=1000))
    ```
    """

    model_type = "mmpt_dual_stream"
    base_model_fsdp_plan = {
        "text_embeddings.word_embeddings": "free_full_weight",
        "text_layers.*": "free_full_weight",
        "region_layers.*": "free_full_weight",
        "co_attention_layers.*": "free_full_weight",
    }

    follows: ClassVar[dict[str, str]] = MmptConfig.follows | {
        "region_hidden_size": "hidden_size",
        "region_num_attention_heads": "num_attention_heads",
        "region_intermediate_size": "intermediate_size",
        "co_attention_hidden_size": "hidden_size",
        "co_attention_num_heads": "num_attention_heads",
    }

    region_projection_layer_norm: bool = False
    region_box_dim: Literal[0, 4, 5, 6, 7] = 5
    region_num_hidden_layers: int = 6
    region_hidden_size: int | None = None
    region_num_attention_heads: int | None = None
    region_intermediate_size: int | None = None
    text_co_attention_layers: list[int] = field(default_factory=lambda: [6, 7, 8, 9, 10, 11])
    region_co_attention_layers: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4, 5])
    co_attention_hidden_size: int | None = None
    co_attention_num_heads: int | None = None
    share_co_attention: bool = False
    co_attention_feed_forward: bool = True

    def validate_region_stream(self) -> None:
        for size, heads in (
            ("region_hidden_size", "region_num_attention_heads"),
            ("co_attention_hidden_size", "co_attention_num_heads"),
        ):
            if getattr(self, size) is not None and getattr(self, heads) is not None:
                _check_divides(getattr(self, size), getattr(self, heads), size, heads)
        widths = (self.hidden_size, self.region_hidden_size)
        if self.region_hidden_size is None or widths[0] == widths[1]:
            return
        if self.share_co_attention:
            raise MmptValueError(
                f"share_co_attention needs streams of one width, got hidden_size {widths[0]} and region_hidden_size "
                f"{widths[1]}; make them equal or set share_co_attention=False"
            )
        for name, shared in (
            ("region_embedding_layer_norm", "shared"),
            ("region_type_embedding", "shared"),
        ):
            if getattr(self, name) == shared:
                raise MmptValueError(
                    f"{name}='shared' needs streams of one width, got hidden_size {widths[0]} and region_hidden_size "
                    f"{widths[1]}; make them equal or set {name}='own'"
                )

    def validate_co_attention(self) -> None:
        text, region = self.text_co_attention_layers, self.region_co_attention_layers
        if len(text) != len(region):
            raise MmptValueError(
                f"text_co_attention_layers has {len(text)} entries and region_co_attention_layers {len(region)}; "
                "each co-attention layer needs one position in each stream"
            )
        for name, layers, count in (
            ("text_co_attention_layers", text, self.num_hidden_layers),
            ("region_co_attention_layers", region, self.region_num_hidden_layers),
        ):
            if layers != sorted(layers) or any(not 0 <= i <= count for i in layers):
                raise MmptValueError(
                    f"{name} is {layers}, expected ascending numbers in 0..{count} (the stream has {count} layers)"
                )

    @classmethod
    def vilbert(cls, **overrides: Any) -> "MmptDualStreamConfig":
        """Return ViLBERT base: 6 region and 6 co-attention layers (Lu et al. 2019, arXiv 1908.02265)."""
        return cls(**(VILBERT | overrides))

    @classmethod
    def lxmert(cls, **overrides: Any) -> "MmptDualStreamConfig":
        """Return LXMERT: 9 text, 5 region, 5 cross-modality layers (Tan and Bansal 2019, arXiv 1908.07490)."""
        return cls(**(LXMERT | overrides))

    @classmethod
    def volta_vilbert(cls, **overrides: Any) -> "MmptDualStreamConfig":
        """Return VOLTA's controlled ViLBERT, both streams 768 wide (Bugliarello et al. 2021, arXiv 2011.15124)."""
        return cls(**(VOLTA_VILBERT | overrides))

    @classmethod
    def volta_lxmert(cls, **overrides: Any) -> "MmptDualStreamConfig":
        """Return VOLTA's controlled LXMERT (Bugliarello et al. 2021, arXiv 2011.15124)."""
        return cls(**(VOLTA_LXMERT | overrides))


MMPT_CONFIGS = {"single": MmptSingleStreamConfig, "dual": MmptDualStreamConfig}


def _check_divides(size: int, heads: int, size_name: str, heads_name: str) -> None:
    if heads < 1 or size % heads:
        raise MmptValueError(f"{size_name} {size} cannot be split into {heads_name} {heads} equal heads")
