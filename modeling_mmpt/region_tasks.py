"""Tasks that score regions for a text: referring expressions, and the phrases of a caption."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.dropout import MmptDropout
from mmpt.modeling_mmpt.heads import MmptPredictionHead
from mmpt.modeling_mmpt.input_checks import values_are_known
from mmpt.modeling_mmpt.label_checks import check_padding, check_positions, check_vectors
from mmpt.modeling_mmpt.objectives import IGNORED, is_labelled
from mmpt.modeling_mmpt.task_base import Inputs, MmptTaskModel, MmptTaskOutput, views_of

APART = "a region alone does not tell which text is meant, nor a text alone which region"


class MmptForGrounding(MmptTaskModel):
    """Which region an expression means: a score for each region. Labels: (batch, regions), overlap (IoU) in 0..1.

    Regions that are padding, or that no expression can mean, are labelled -100 and are not part of the loss. "bce" sums
    over regions and is a mean over the batch, as in ViLBERT; with "cross_entropy" a row without any overlap counts for
    nothing. Logits of padding are the lowest number there is.
    """

    reads_pooled = False

    @property
    def reads(self) -> dict[str, bool]:
        return {"text": False, "regions": True, "pooled": False}

    def add_head(self) -> None:
        self.refuse_other_fusion(APART)
        self.dropout = MmptDropout(self.config.pooled_dropout_prob)
        config, size = self.config, self.region_size
        self.region_scorer = (
            MmptPredictionHead(
                config, size, size, 1, act=config.classifier_act, layer_norm=config.classifier_layer_norm
            )
            if config.grounding_head == "mlp"
            else nn.Linear(size, 1)
        )

    def decide(self, inputs: Inputs, labels: Tensor | None, **kwargs: Any) -> MmptTaskOutput:
        self.refuse_one_modality(inputs)
        states = self.backbone(**inputs, **kwargs)
        logits = self.region_scorer(self.dropout(states.region_last_hidden_state)).squeeze(-1).float()
        logits = _hide_padding(logits, inputs.get("region_attention_mask"))
        loss = None
        if labels is not None:
            check_vectors(self, "labels", labels, logits.shape, "overlap a region", bounded=True, by_row=False)
            check_padding(self, "labels", labels, inputs.get("region_attention_mask"))
            loss = self._loss(logits, labels.float())
        return MmptTaskOutput(loss=loss, logits=logits, **views_of(states))

    def loss_denominator(self, labels: Tensor) -> float:
        if self.config.grounding_loss == "bce":
            return super().loss_denominator(labels)
        return int((labels > 0).any(1).sum())

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        counts = labels != IGNORED
        if self.config.grounding_loss == "bce":
            # A hidden logit is a huge number, and would be one in a gradient too.
            logits, labels = logits.masked_fill(~counts, 0), labels.masked_fill(~counts, 0)
            losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            return losses.masked_fill(~counts, 0).sum() / len(labels)
        best = labels.masked_fill(~counts, 0.0).max(1)
        found = best.values > 0
        logits = logits.masked_fill(~counts, torch.finfo(logits.dtype).min)
        losses = F.cross_entropy(logits, best.indices.masked_fill(~found, IGNORED), reduction="sum")
        return losses / found.sum().clamp(min=1)


class MmptForRegionToPhraseAlignment(MmptTaskModel):
    """Which regions a phrase of a caption means (Flickr30k Entities; VisualBERT).

    `phrase_positions`: (batch, phrases), the last token of each phrase, -100 where there is none. Labels: (batch,
    phrases, regions), how likely each region is meant, rows that sum to 1, or are -100 where nothing is known. Scores
    are products of a query of the token and a key of the region; the loss is their divergence from the labels, summed
    over phrases, a mean over the batch. Labels may be wider than the batch's regions, as a loop needs that gathers
    several batches; logits are then as wide, and the lowest number there is behind the regions.
    """

    reads_pooled = False
    further_inputs = ("phrase_positions",)

    @property
    def reads(self) -> dict[str, bool]:
        return {"text": True, "regions": True, "pooled": False}

    def add_head(self) -> None:
        self.refuse_other_fusion(APART)
        size = self.config.alignment_size or self.config.hidden_size
        self.query = nn.Linear(self.config.hidden_size, size)
        self.key = nn.Linear(self.region_size, size)

    def decide(
        self, inputs: Inputs, labels: Tensor | None, phrase_positions: Tensor | None = None, **kwargs: Any
    ) -> MmptTaskOutput:
        self.refuse_one_modality(inputs)
        if phrase_positions is None:
            raise MmptValueError(
                "got no phrase_positions, expected (batch, phrases): the last token of each phrase, -100 for none"
            )
        text: Any = inputs.get("input_ids", inputs.get("inputs_embeds"))
        check_positions(self, "phrase_positions", phrase_positions, text.shape[:2])
        states = self.backbone(**inputs, **kwargs)
        text = states.text_last_hidden_state
        # The task embedding behind [CLS] moves every later token by one.
        places = phrase_positions.clamp(min=0) + (1 if inputs.get("task_ids") is not None else 0)
        phrases = text.gather(1, places[:, :, None].expand(-1, -1, text.shape[-1]))  # (batch, phrases, hidden)
        scores = self.query(phrases) @ self.key(states.region_last_hidden_state).transpose(1, 2)
        logits = scores.float() / math.sqrt(self.query.out_features)
        mask = inputs.get("region_attention_mask")
        logits = _hide_padding(logits, None if mask is None else mask[:, None])
        loss = None
        if labels is not None:
            regions, wider = logits.shape[-1], 0
            # The collator pads labels for gathering. Looked at on a CPU alone, for a GPU would have to be waited for.
            if isinstance(labels, Tensor) and labels.dim() == logits.dim() and labels.is_floating_point():
                beyond = labels[..., regions:]
                if not values_are_known(beyond) or not (beyond > 0).any():
                    labels, wider = labels[..., :regions], beyond.shape[-1]
                if labels.shape[:-1] == phrase_positions.shape:  # what stands where there is no phrase is not read
                    labels = labels.masked_fill((phrase_positions < 0)[..., None], float(IGNORED))
            what = "share of (batch, phrases, regions)"
            check_vectors(self, "labels", labels, logits.shape, what, bounded=True, distributions=True)
            check_padding(self, "labels", labels, None if mask is None else mask[:, None])
            labelled = is_labelled(labels.float()) & (phrase_positions >= 0)
            targets = labels.float().masked_fill(~labelled[..., None], 0)
            loss = F.kl_div(logits.log_softmax(-1), targets, reduction="sum") / len(labels)
            logits = F.pad(logits, (0, wider), value=torch.finfo(logits.dtype).min) if wider else logits
        return MmptTaskOutput(loss=loss, logits=logits, **views_of(states))


def _hide_padding(logits: Tensor, mask: Tensor | None) -> Tensor:
    return logits if mask is None else logits.masked_fill(~mask.bool(), torch.finfo(logits.dtype).min)
