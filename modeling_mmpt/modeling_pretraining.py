"""The pre-training model: a backbone, and every objective whose labels are in the batch."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.self_contained import saved_class
from mmpt.modeling_mmpt.embeddings import MmptTiedFeatureProjection
from mmpt.modeling_mmpt.heads import PreTrainingHeads
from mmpt.modeling_mmpt.input_checks import LAYOUT_INPUTS, check_inputs, refuse_unknown_inputs
from mmpt.modeling_mmpt.label_checks import check_objective_labels
from mmpt.modeling_mmpt.modeling_base import HEADS, MmptBackbone, MmptModelOutput, MmptPreTrainedModel
from mmpt.modeling_mmpt.objectives import IGNORED, OBJECTIVES, is_labelled, mean_over, smooth_l1, squared_error
from mmpt.modeling_mmpt.unpadding import places_of_labels

logger = logging.getLogger(__name__)


@dataclass
class MmptForPreTrainingOutput(ModelOutput):
    """Losses, logits, counts and metrics by objective, and the backbone's states.

    With labels, logits hold the selected elements only, (selected, classes) in row-major order of the batch. With a
    layout in the batch, a few elements without a label are among them. With `align_logits`, logits stand at the
    positions of their labels, (batch, tokens or regions, classes) or (batch, classes), and -100 stands at the others.
    Without labels every head runs everywhere, and logits have those shapes. An objective that is disabled or has no
    labels in the batch is None.

    Args:
        loss: weighted sum of the objectives' losses.
        mlm_loss: and so on; the mean over the selected elements, 0 where there are none.
        mlm_count: and so on; how many elements were selected.
        mlm_accuracy: and so on; the mean of the objective's metric over the selected elements, 0 where there are none.
        mrc_logits: of the region classifier, read by MRC and MRC-KL.
        mrfr_prediction: (selected, feature), the regressed features.
    """

    loss: Tensor | None = None
    mlm_loss: Tensor | None = None
    mrc_loss: Tensor | None = None
    mrc_kl_loss: Tensor | None = None
    mrfr_loss: Tensor | None = None
    itm_loss: Tensor | None = None
    mrc_attribute_loss: Tensor | None = None
    qa_loss: Tensor | None = None
    mlm_logits: Tensor | None = None
    mrc_logits: Tensor | None = None
    mrfr_prediction: Tensor | None = None
    itm_logits: Tensor | None = None
    mrc_attribute_logits: Tensor | None = None
    qa_logits: Tensor | None = None
    mlm_count: Tensor | None = None
    mrc_count: Tensor | None = None
    mrc_kl_count: Tensor | None = None
    mrfr_count: Tensor | None = None
    itm_count: Tensor | None = None
    mrc_attribute_count: Tensor | None = None
    qa_count: Tensor | None = None
    mlm_accuracy: Tensor | None = None
    mrc_accuracy: Tensor | None = None
    mrc_kl_agreement: Tensor | None = None
    mrfr_cosine: Tensor | None = None
    itm_accuracy: Tensor | None = None
    mrc_attribute_accuracy: Tensor | None = None
    qa_accuracy: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    text_hidden_states: tuple[Tensor, ...] | None = None
    region_hidden_states: tuple[Tensor, ...] | None = None
    text_attentions: tuple[Tensor, ...] | None = None
    region_attentions: tuple[Tensor, ...] | None = None
    text_to_region_attentions: tuple[Tensor, ...] | None = None
    region_to_text_attentions: tuple[Tensor, ...] | None = None


PRETRAINING_INPUTS = (
    *("region_scores", "region_attribute_scores", "loss_denominators"),
    *(f"{name}_labels" for name in OBJECTIVES),
)
"""What the pre-training models read beside the backbone's inputs."""


class MmptForPreTraining(MmptPreTrainedModel):
    """A backbone with the pre-training heads. A loss runs exactly when its labels are in the batch."""

    # The losses are means already; without this the stock Trainer takes them for sums to be divided by a count.
    accepts_loss_kwargs = False
    auto_name = "AutoModelForPreTraining"
    backbone: MmptBackbone
    heads: PreTrainingHeads

    def hub_classes(self) -> dict[str, type]:
        masked = {"AutoModelForMaskedLM": saved_class(self)} if "token" in self.heads else {}
        return super().hub_classes() | masked

    def add_heads(self, region_hidden_size: int) -> None:
        """Build the heads; called by the two pre-training classes after their backbone.

        Raises:
            ValueError: for matching with late fusion.
        """
        if self.config.fusion == "late" and "itm" in self.config.objective_weights:
            raise MmptValueError(
                "objective 'itm' is on with fusion 'late': whether text and image match cannot be told from either "
                "alone; leave 'itm' out of objective_weights, or set fusion='early'"
            )
        self.heads = PreTrainingHeads(self.config, region_hidden_size)
        if self.config.tie_region_feature_decoder and "region_feature" in self.heads:
            regions: Any = self.backbone.region_embeddings
            regions.feature_projection = MmptTiedFeatureProjection(regions.feature_projection)
        if "token" in self.heads:
            self._tied_weights_keys = {"heads.token.decoder.weight": "backbone.text_embeddings.word_embeddings.weight"}

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        super()._adjust_missing_and_unexpected_keys(loading_info)
        saved = (self.config.architectures or [""])[0]
        if not saved.startswith("Mmpt") or saved.endswith(("ForPreTraining", "Model")):
            return
        missing = {key for key in loading_info.missing_keys if key.startswith("heads.")}
        left_out = {key for key in loading_info.unexpected_keys if HEADS.match(key)}
        loading_info.missing_keys -= missing
        loading_info.unexpected_keys -= left_out
        # transformers' report is of what is left; the caller gets them back.
        self.__dict__["_keys_of_heads"] = missing, left_out
        logger.warning(
            "%s holds a %s: its backbone is loaded, and the pre-training heads %s start at random; load it as a %s to "
            "use what it was fine-tuned for",
            self.config._name_or_path or "the folder",
            saved,
            ", ".join(sorted({key.split(".")[1] for key in missing})),
            saved,
        )

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        loading_info = MmptPreTrainedModel._finalize_model_loading(model, load_config, loading_info)
        missing, left_out = model.__dict__.pop("_keys_of_heads", (set(), set()))
        loading_info.missing_keys |= missing
        loading_info.unexpected_keys |= left_out
        return loading_info

    def unread_modules(self) -> Iterable[nn.Module]:
        read = {OBJECTIVES[name].reads for name in self.config.objective_weights}
        return self.backbone.unread_parts("tokens" in read, "regions" in read, "pair" in read)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.heads.get_submodule("token.decoder") if "token" in self.heads else None

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.heads["token"].decoder = new_embeddings

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
        region_scores: Tensor | None = None,
        region_attribute_scores: Tensor | None = None,
        mlm_labels: Tensor | None = None,
        mrc_labels: Tensor | None = None,
        mrc_kl_labels: Tensor | None = None,
        mrfr_labels: Tensor | None = None,
        itm_labels: Tensor | None = None,
        mrc_attribute_labels: Tensor | None = None,
        qa_labels: Tensor | None = None,
        loss_denominators: dict[str, Tensor] | None = None,
        align_logits: bool | None = None,
        **kwargs: Any,
    ) -> MmptForPreTrainingOutput:
        """Run the backbone, then the heads on the selected elements. Inputs beside these are the backbone's.

        Args:
            region_scores: (batch, regions), the detector's confidence; read with `confidence_weighted_classes`.
            region_attribute_scores: (batch, regions), the same for the attribute.
            mlm_labels: (batch, tokens), the token's id, -100 where nothing is predicted.
            mrc_labels: (batch, regions), class numbers.
            mrc_kl_labels: (batch, regions, classes), the detector's distributions, rows of -100 where not predicted.
            mrfr_labels: (batch, regions, feature), the features before masking, rows of -100 where not predicted.
            itm_labels: (batch,), 1 matched, 0 not.
            mrc_attribute_labels: (batch, regions), attribute numbers.
            qa_labels: (batch,), answer numbers.
            loss_denominators: by objective, the number of elements that its loss is divided by, instead of those in
                this batch: counts over all micro-batches and processes of an optimiser step make its loss exact.
            align_logits: whether logits of a batch with labels have a row an example, as the loop of a Trainer needs
                that gathers them. None: in evaluation mode without gradients, which is how such a loop runs.

        Raises:
            ValueError: if labels are given whose objective is not in `objective_weights` or whose modality is not
                given, and as the backbone does.
        """
        named = dict(
            mlm=mlm_labels,
            mrc=mrc_labels,
            mrc_kl=mrc_kl_labels,
            mrfr=mrfr_labels,
            itm=itm_labels,
            mrc_attribute=mrc_attribute_labels,
            qa=qa_labels,
        )
        given = {name: named[name] if name in named else kwargs.pop(f"{name}_labels", None) for name in OBJECTIVES}
        labels = {name: values for name, values in given.items() if values is not None}
        for name in labels:
            if name not in self.config.objective_weights:
                raise MmptValueError(
                    f"{name}_labels were given but the objective is off; name {name!r} in objective_weights "
                    f"(on are {', '.join(self.config.objective_weights)}) or leave the labels out"
                )
        inputs = dict(
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
        refuse_unknown_inputs(self, kwargs, (*inputs, "late", *PRETRAINING_INPUTS))
        check_inputs(self, inputs, values=False)
        scores = {"region_scores": region_scores, "region_attribute_scores": region_attribute_scores}
        check_objective_labels(self, labels, inputs | scores, loss_denominators)
        labelled = {name: is_labelled(given) for name, given in labels.items()}
        kwargs["return_dict"] = True
        layout = {name: value for name, value in kwargs.items() if name in LAYOUT_INPUTS}
        states: MmptModelOutput = self.backbone(**inputs, reads="labelled" if labels else "all", **kwargs)
        read = {
            "tokens": _without_task_token(states.text_last_hidden_state, task_ids),
            "regions": states.region_last_hidden_state,
            "pair": states.pooler_output,
        }
        weights = {"class": region_scores, "attribute": region_attribute_scores}
        output = MmptForPreTrainingOutput(
            **{name: value for name, value in states.items() if name.endswith(("hidden_states", "attentions"))}
        )
        if not labels:
            self._predict_everywhere(read, output)
            return output
        align = not (self.training or torch.is_grad_enabled()) if align_logits is None else align_logits
        total: Tensor | None = None
        for reads, hidden in read.items():
            names = [name for name in labels if OBJECTIVES[name].reads == reads]
            if not names:
                continue
            if hidden is None:
                raise MmptValueError(f"{names[0]}_labels were given, but the backbone has no state for them")
            there = torch.stack([labelled[name] for name in names]).any(0)
            chosen = places_of_labels(reads, there, layout)
            losses = self._objective_losses(
                reads,
                _rows_at(chosen, hidden, there),
                {
                    name: (_rows_at(chosen, labels[name], there), _rows_at(chosen, labelled[name], there))
                    for name in names
                },
                {
                    name: _rows_at(chosen, score, there)
                    for name in names
                    if (score := weights.get(OBJECTIVES[name].target)) is not None
                },
                loss_denominators,
                output,
            )
            if align:
                for field in {OBJECTIVES[name].output for name in names}:
                    output[field] = _aligned(output[field], chosen, there)
            for name, loss in losses.items():
                weighted = self.config.objective_weights[name] * loss
                total = weighted if total is None else total + weighted
        output.loss = total
        return output

    def _predict_everywhere(self, read: dict[str, Tensor | None], output: MmptForPreTrainingOutput) -> None:
        for reads, hidden in read.items():
            outputs = {row.head: row.output for row in OBJECTIVES.values() if row.reads == reads}
            if hidden is not None:
                for name, logits in self.heads(reads, hidden, set(outputs), self._decode).items():
                    output[outputs[name]] = logits

    def _objective_losses(
        self,
        reads: str,
        hidden: Tensor,
        labels: dict[str, tuple[Tensor, Tensor]],
        weights: dict[str, Tensor],
        denominators: dict[str, Tensor] | None,
        output: MmptForPreTrainingOutput,
    ) -> dict[str, Tensor]:
        """Return the loss of each objective in `labels`, all of which read `hidden`, and fill in `output`.

        Args:
            hidden: (selected, size); `weights` by objective (selected,).
            labels: by objective (selected, ...), and where there is one, (selected,).
        """
        predictions = self.heads(reads, hidden, {OBJECTIVES[name].head for name in labels}, self._decode)
        losses = {}
        for name, (given, there) in labels.items():
            objective = OBJECTIVES[name]
            prediction = predictions[objective.head]
            output[objective.output] = prediction
            # What has no label counts for nothing; any number that is a label stands for it in the meantime.
            target = given.masked_fill(~there.view(-1, *(1,) * (given.dim() - 1)), 0)
            smooth = objective.loss is squared_error and self.config.region_feature_loss == "smooth_l1"
            values = (smooth_l1 if smooth else objective.loss)(prediction, target)
            if self.config.confidence_weighted_classes and name in weights:
                values = values * weights[name]
            count = there.sum()
            loss = mean_over(values.masked_fill(~there, 0), count if denominators is None else denominators[name])
            with torch.no_grad():
                metric = mean_over(objective.metric(prediction, target).masked_fill(~there, 0), count)
            output[f"{name}_loss"] = loss
            output[f"{name}_count"] = count
            output[f"{name}_{objective.metric_name}"] = metric
            losses[name] = loss
        return losses

    def _decode(self, hidden: Tensor, bias: Tensor) -> Tensor:
        return self.backbone.region_embeddings.feature_projection(hidden, bias)


def _rows_at(chosen: Tensor | None, values: Tensor, like: Tensor) -> Tensor:
    """Return (selected, ...) of (*like.shape, ...), all where None are chosen."""
    flat = values.flatten(0, like.dim() - 1)
    return flat if chosen is None else flat.index_select(0, chosen)


def _aligned(prediction: Tensor, chosen: Tensor | None, there: Tensor) -> Tensor:
    """Return (batch, ..., width), the predictions, (selected, width), at their places and -100 where no label is."""
    aligned = prediction.new_full((there.numel(), prediction.shape[-1]), IGNORED)
    aligned = prediction if chosen is None else aligned.index_copy(0, chosen, prediction)
    return aligned.unflatten(0, there.shape).masked_fill(~there[..., None], IGNORED)


def _without_task_token(text: Tensor | None, task_ids: Tensor | None) -> Tensor | None:
    """Take out the task embedding behind [CLS], so that positions are those of the labels."""
    if text is None or task_ids is None:
        return text
    return torch.cat([text[:, :1], text[:, 2:]], dim=1)
