"""What the models of all downstream tasks share: their output, their inputs, and how they read a backbone."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.fusion import MmptWeightedMean, is_of_regions
from mmpt.modeling_mmpt.input_checks import NOT_FOR_THE_MODEL, check_inputs, refuse_unknown_inputs
from mmpt.modeling_mmpt.label_checks import check_class_numbers
from mmpt.modeling_mmpt.modeling_base import MmptBackbone, MmptModelOutput, MmptPreTrainedModel
from mmpt.modeling_mmpt.objectives import IGNORED

Inputs = dict[str, Tensor | None]


@dataclass
class MmptTaskOutput(ModelOutput):
    """What a model of a downstream task returns.

    Args:
        loss: with labels in the batch, the task's loss.
        logits: of the decision that counts; with late or hybrid fusion the combined one.
        joint_logits: what both modalities say together; hybrid fusion only.
        text_logits: what the text alone says; late and hybrid fusion only, as the next two.
        region_logits: what the image alone says.
        decision_weights: (batch, decisions), the weight that each of the last three got, in this order without those
            that there are not; a row sums to 1.
        hidden_states: the backbone's, as the next ones; see `MmptModelOutput`. Of the joint encoding where there are
            two; with a row for each choice, or each image of a pair, where these are encoded by themselves.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    joint_logits: Tensor | None = None
    text_logits: Tensor | None = None
    region_logits: Tensor | None = None
    decision_weights: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    text_hidden_states: tuple[Tensor, ...] | None = None
    region_hidden_states: tuple[Tensor, ...] | None = None
    text_attentions: tuple[Tensor, ...] | None = None
    region_attentions: tuple[Tensor, ...] | None = None
    text_to_region_attentions: tuple[Tensor, ...] | None = None
    region_to_text_attentions: tuple[Tensor, ...] | None = None


class MmptTaskModel(MmptPreTrainedModel):
    """A backbone with the head of one task. A concrete class names its backbone, and so its stream."""

    # The losses are means already; without this the stock Trainer takes them for sums to be divided by a count.
    accepts_loss_kwargs = False
    _keys_to_ignore_on_load_unexpected = [r"^heads\.", r"^backbone\.(text|region)_pooler\."]
    backbone_class: type[MmptBackbone]
    reads_pooled = True
    further_inputs: tuple[str, ...] = ()
    """What `decide` reads beside the backbone's inputs and labels."""
    has_class_loss = False
    """Whether the loss is `class_loss`, which has label smoothing and class weights."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.backbone = self.backbone_class(config)
        if not self.reads_pooled:
            self.backbone.text_pooler = self.backbone.region_pooler = None
        self.add_head()
        self.post_init()

    def add_head(self) -> None:
        """Build what lies behind the backbone."""
        raise NotImplementedError

    def decide(self, inputs: Inputs, labels: Tensor | None, **kwargs: Any) -> MmptTaskOutput:
        """Return decisions, and the loss where there are labels."""
        raise NotImplementedError

    def loss_denominator(self, labels: Tensor) -> float:
        """Return what the loss of a batch with these labels is divided by: examples, where nothing else is said."""
        return labels.shape[0]

    @property
    def reads(self) -> dict[str, bool]:
        """Which outputs of the backbone the loss reads, as `unread_parts` takes them."""
        return {"text": False, "regions": False, "pooled": True, "alone": self.config.fusion != "early"}

    def unread_modules(self) -> Iterable[nn.Module]:
        return self.backbone.unread_parts(**self.reads)

    @property
    def pooled_size(self) -> int:
        """Width of the pooled vectors."""
        return self.config.pooler_size or self.config.hidden_size

    @property
    def region_size(self) -> int:
        """Width of the regions' states."""
        return getattr(self.config, "region_hidden_size", None) or self.config.hidden_size

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        super()._init_weights(module)
        if isinstance(module, MmptWeightedMean):
            init.zeros_(module.weight_logits)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        region_features: Tensor | None = None,
        region_boxes: Tensor | None = None,
        region_attention_mask: Tensor | None = None,
        region_type_ids: Tensor | None = None,
        masked_regions: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        task_ids: Tensor | None = None,
        labels: Tensor | None = None,
        phrase_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> MmptTaskOutput:
        """Decide, and compute the loss where `labels` are given.

        The inputs are the backbone's; the class says what shape `labels` have, and which inputs differ. Only the phrase
        task reads `phrase_positions`, which is named here because tracing takes its inputs from the signature.

        Raises:
            ValueError: if what the task needs is not given, if labels do not fit, and as the backbone does.
        """
        inputs: Inputs = dict(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            region_features=region_features,
            region_boxes=region_boxes,
            region_attention_mask=region_attention_mask,
            region_type_ids=region_type_ids,
            masked_regions=masked_regions,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            task_ids=task_ids,
        )
        for name in NOT_FOR_THE_MODEL:
            kwargs.pop(name, None)
        if phrase_positions is not None:
            kwargs["phrase_positions"] = phrase_positions
        more = {name: value for name, value in kwargs.items() if name not in self.further_inputs}
        refuse_unknown_inputs(self, more, (*inputs, "labels", *self.further_inputs))
        kwargs["return_dict"] = True
        given: Inputs = {name: value for name, value in inputs.items() if value is not None}
        check_inputs(self, given, *self.axes(given), values=False)
        return self.decide(given, labels, **kwargs)

    def axes(self, inputs: Inputs) -> tuple[tuple[str | int, ...], tuple[str | int, ...]]:
        """Return the first axes of the text's inputs and of the regions'."""
        return ("batch",), ("batch",)

    def encode_to_pool(self, inputs: Inputs, **kwargs: Any) -> Any:
        """Return the backbone's output for its pooled vectors: the last layer is computed in their places alone."""
        return self.backbone(**inputs, reads="pooled", **kwargs)

    def refuse_other_fusion(self, reason: str) -> None:
        """Raise unless fusion is early.

        Raises:
            ValueError: with the reason why the task is not defined otherwise.
        """
        if self.config.fusion != "early":
            raise MmptValueError(
                f"{type(self).__name__} has no fusion {self.config.fusion!r}: {reason}; set fusion='early'"
            )

    def refuse_one_modality(self, inputs: Inputs) -> None:
        """Raise unless text and regions are given.

        Raises:
            ValueError: naming what is missing.
        """
        has_text = "input_ids" in inputs or "inputs_embeds" in inputs
        for name, given in (("input_ids", has_text), ("region_features", "region_features" in inputs)):
            if not given:
                raise MmptValueError(f"{type(self).__name__} got no {name}, expected text and regions together")

    def class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of class numbers, (batch,), with the configuration's smoothing and class weights.

        The mean over the rows with a label, 0 where there are none.
        """
        weights = self.config.class_weights
        if weights is not None and len(weights) != logits.shape[-1]:
            raise MmptValueError(
                f"class_weights has {len(weights)} entries, expected one for each of {logits.shape[-1]}"
            )
        check_class_numbers(self, "labels", labels, logits.shape[:1], logits.shape[-1])
        weight = None if weights is None else logits.new_tensor(weights, dtype=torch.float)
        smoothing = self.config.label_smoothing
        total = F.cross_entropy(logits.float(), labels, weight=weight, reduction="sum", label_smoothing=smoothing)
        counts = (labels != IGNORED).float()
        if weight is not None:
            counts = counts * weight[labels.clamp(min=0)]
        count = counts.sum()
        # A batch without a label, or whose classes all have weight 0, has loss 0: a mean would divide by 0.
        return total / count.masked_fill(count == 0, 1)


def views_of(states: MmptModelOutput) -> dict[str, Any]:
    """Return the hidden states and attentions of a backbone's output, by their names."""
    return {name: value for name, value in states.items() if name.endswith(("hidden_states", "attentions"))}


def select_rows(inputs: Inputs, text_rows: Tensor, region_rows: Tensor) -> Inputs:
    """Return a batch of the texts of some rows with the regions of some rows, both (rows,)."""
    return {
        name: None if value is None else value[region_rows if is_of_regions(name) else text_rows]
        for name, value in inputs.items()
    }
