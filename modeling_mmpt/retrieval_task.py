"""Image-text retrieval: a joint scorer that starts as image-text matching, and embeddings of each modality alone."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.dropout import apply_dropout
from mmpt.modeling_mmpt.input_checks import values_are_known
from mmpt.modeling_mmpt.label_checks import check_class_numbers
from mmpt.modeling_mmpt.objectives import IGNORED
from mmpt.modeling_mmpt.task_base import Inputs, MmptTaskModel, MmptTaskOutput, select_rows, views_of
from mmpt.modeling_mmpt.unpadding import without_layout

MAX_SCALE = 100.0  # of the similarities, as in CLIP
SCALE = "contrastive.log_scale"


class MmptContrastiveHead(nn.Module):
    """Embeddings of texts and of images, each from its own pooled vector, in one space (CLIP; ALBEF).

    Args:
        pooled_size: width of the pooled vectors.
        size: width of the embeddings.
    """

    def __init__(self, pooled_size: int, size: int) -> None:
        super().__init__()
        self.text_projection = nn.Linear(pooled_size, size, bias=False)
        self.image_projection = nn.Linear(pooled_size, size, bias=False)
        # FSDP2 does not split a scalar; files hold one.
        self.log_scale = nn.Parameter(torch.tensor([math.log(1 / 0.07)]))

    def forward(self, text_pooled: Tensor, region_pooled: Tensor) -> Tensor:
        """Return (texts, images), scaled cosines of the embeddings of pooled vectors."""
        texts, images = self.embed_texts(text_pooled), self.embed_images(region_pooled)
        return self.log_scale.exp().clamp(max=MAX_SCALE) * (texts @ images.t())

    def embed_texts(self, pooled: Tensor) -> Tensor:
        """Return (texts, size), of length 1."""
        return F.normalize(self.text_projection(pooled).float(), dim=-1)

    def embed_images(self, pooled: Tensor) -> Tensor:
        """Return (images, size), of length 1."""
        return F.normalize(self.image_projection(pooled).float(), dim=-1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        scale = state_dict.get(f"{prefix}log_scale")
        if scale is not None and scale.ndim == 0:  # out of a file
            state_dict[f"{prefix}log_scale"] = scale.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ScalarToVector(ConversionOps):
    """Turn the scalar of a file into the (1,) weight of a module."""

    def convert(self, input_dict: dict[str, Any], source_patterns: Any, target_patterns: Any, **kwargs: Any) -> Any:
        """Return the weight by its name; (0,) in a process whose shard of it is empty."""
        values = next(iter(input_dict.values()))
        if not values:
            return {target_patterns[0]: torch.empty(0, dtype=kwargs["model"].get_parameter(SCALE).dtype)}
        return {target_patterns[0]: values[0].reshape(-1)}

    @property
    def reverse_op(self) -> ConversionOps:
        """The conversion that is done when weights are saved."""
        return VectorToScalar()


class VectorToScalar(ConversionOps):
    """Turn the (1,) weight of a module into the scalar of a file."""

    def convert(self, input_dict: dict[str, Any], source_patterns: Any, target_patterns: Any, **kwargs: Any) -> Any:
        """Return the scalar by its name."""
        values = next(iter(input_dict.values()))
        return {target_patterns[0]: (values[0] if isinstance(values, list) else values).reshape(())}

    @property
    def reverse_op(self) -> ConversionOps:
        """The conversion that is done when weights are loaded."""
        return ScalarToVector()


class MmptForImageAndTextRetrieval(MmptTaskModel):
    """Score how well a text fits an image. Logits: (batch,), the log-odds of a match, one a pair.

    Labels: (batch,), the number of each row's image. With labels every row is a true pair, and its negatives are texts
    and images of rows with another number; rows of one image are no negatives of each other. With a contrastive head
    (`contrastive_size` above 0) the negatives are those that it finds nearest, and its own symmetric loss is added;
    without it they are the next rows of the batch.

    The scorer is the pre-training head of image-text matching by the same name, so it goes on from its weights: the
    score is the matched logit less the other.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register_checkpoint_conversion_mapping(cls.__name__, [_scale_converter()], overwrite=True)

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        # transformers saves by the conversions that it made when it loaded; a new head needs its own as well.
        if SCALE in loading_info.missing_keys:
            self._weight_conversions = [*(self._weight_conversions or ()), _scale_converter()]
        super()._adjust_missing_and_unexpected_keys(loading_info)

    def add_head(self) -> None:
        self.refuse_other_fusion("whether text and image match cannot be told from either alone")
        config = self.config
        self.heads = nn.ModuleDict({"matching": nn.Linear(self.pooled_size, config.num_matching_classes)})
        self.contrastive = None
        if config.contrastive_size:
            self.contrastive = MmptContrastiveHead(self.pooled_size, config.contrastive_size)

    @property
    def reads(self) -> dict[str, bool]:
        return {**super().reads, "alone": self.config.contrastive_size > 0}

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        super()._init_weights(module)
        if isinstance(module, MmptContrastiveHead):
            init.constant_(module.log_scale, math.log(1 / 0.07))

    def decide(self, inputs: Inputs, labels: Tensor | None, **kwargs: Any) -> MmptTaskOutput:
        self.refuse_one_modality(inputs)
        if labels is None:
            states = self.encode_to_pool(inputs, **kwargs)
            return MmptTaskOutput(logits=self._scores(states.pooler_output), **views_of(states))
        text: Any = inputs.get("input_ids", inputs.get("inputs_embeds"))
        rows = text.shape[:1]
        check_class_numbers(self, "labels", labels, rows, None)
        if values_are_known(labels) and (labels == IGNORED).any() and not (labels == IGNORED).all():
            raise MmptValueError(
                f"labels are {IGNORED} in some rows, expected the number of each row's image; leave these rows out"
            )
        others = labels[:, None] != labels  # (texts, images): pairs that are negatives
        to_images = to_texts = _next_rows(others)
        contrastive_loss = None
        if self.contrastive is not None:
            alone = self.encode_to_pool(inputs, late=True, **kwargs)
            similarities = self.contrastive(alone.text_pooler_output, alone.region_pooler_output)
            contrastive_loss = _contrastive_loss(similarities, ~others) * (labels != IGNORED).any()
            to_images, to_texts = similarities.detach(), similarities.detach().t()
        # As many negatives as every row has: none where the batch shows one image only, the scorer stays in the graph.
        most = min(self.config.retrieval_negatives, len(labels) - 1)
        count = others.sum(1).min().clamp(max=most)
        false_images, false_texts = (
            near.masked_fill(~others, -math.inf).topk(most, dim=1).indices for near in (to_images, to_texts)
        )
        rows = torch.arange(len(labels), device=labels.device)
        repeated = rows.repeat_interleave(most)
        text_rows = torch.cat([rows, repeated, false_texts.flatten()])
        region_rows = torch.cat([rows, false_images.flatten(), repeated])
        states = self.encode_to_pool(select_rows(inputs, text_rows, region_rows), **without_layout(kwargs))
        true, *negatives = self._scores(states.pooler_output).split([len(rows)] + 2 * [len(repeated)])
        counts = (torch.arange(most, device=labels.device) < count).repeat(2)
        loss = self._ranking_loss(true, torch.cat([scores.view(len(rows), most) for scores in negatives], 1), counts)
        return MmptTaskOutput(loss=loss if contrastive_loss is None else loss + contrastive_loss, logits=true)

    def embed_texts(self, **inputs: Tensor) -> Tensor:
        """Return embeddings of texts alone, (batch, contrastive_size), of length 1; inputs as in `forward`.

        Raises:
            ValueError: without a contrastive head.
        """
        head = self._contrastive_head()
        states = self.encode_to_pool({**inputs}, return_dict=True)
        return head.embed_texts(states.text_pooler_output)

    def embed_images(self, **inputs: Tensor) -> Tensor:
        """Return embeddings of images alone, (batch, contrastive_size), of length 1; inputs as in `forward`.

        Raises:
            ValueError: without a contrastive head.
        """
        head = self._contrastive_head()
        return head.embed_images(self.encode_to_pool(dict(inputs), return_dict=True).region_pooler_output)

    def _contrastive_head(self) -> MmptContrastiveHead:
        if self.contrastive is None:
            raise MmptValueError(
                "this model has no contrastive head, so a text or an image alone has no embedding; fine-tune with "
                "contrastive_size above 0 (256, say)"
            )
        return self.contrastive

    def _scores(self, pooled: Tensor) -> Tensor:
        """Return (batch,), the log-odds of class 1 (matched) against the others."""
        pooled = apply_dropout(pooled, self.config.pooled_dropout_prob, self.training)
        logits = self.heads["matching"](pooled).float()
        others = torch.cat([logits[:, :1], logits[:, 2:]], 1)
        return logits[:, 1] - others.logsumexp(1)

    def _ranking_loss(self, true: Tensor, negatives: Tensor, counts: Tensor) -> Tensor:
        """Return the loss of true pairs, (batch,), against the negatives of each, (batch, negatives).

        Args:
            counts: (negatives,), False for those that are none of some row.
        """
        if self.config.retrieval_loss == "margin":
            hinges = F.relu(self.config.retrieval_margin + negatives.sigmoid() - true.sigmoid()[:, None])
            return hinges.masked_fill(~counts, 0).sum() / (counts.sum() * len(hinges)).clamp(min=1)
        scores = torch.cat([true[:, None], negatives.masked_fill(~counts, torch.finfo(negatives.dtype).min)], 1)
        return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


def _scale_converter() -> WeightConverter:
    return WeightConverter(SCALE, SCALE, [ScalarToVector()])


def _next_rows(others: Tensor) -> Tensor:
    """Return similarities (rows, rows) by which the rows that follow a row are the nearest to it."""
    rows = torch.arange(len(others), device=others.device)
    return -((rows[None] - rows[:, None]) % len(rows)).float()


def _contrastive_loss(similarities: Tensor, true: Tensor) -> Tensor:
    """Return the mean of both directions' cross-entropies; several true pairs of a row share its probability."""
    targets = true.float() / true.sum(1, keepdim=True)
    to_images = F.cross_entropy(similarities, targets)
    to_texts = F.cross_entropy(similarities.t(), targets)
    return (to_images + to_texts) / 2
