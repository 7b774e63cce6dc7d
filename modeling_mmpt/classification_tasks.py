"""Tasks whose decision is read from pooled vectors, so that both modalities, or each by itself, can decide.

Answers to questions, classes of an image and a text, classes of two images and a text, and the right one of many texts.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.dropout import apply_dropout
from mmpt.modeling_mmpt.fusion import DECISIONS, LATE_DECISIONS, MmptDecisionFusion, is_of_regions
from mmpt.modeling_mmpt.heads import MmptPredictionHead
from mmpt.modeling_mmpt.label_checks import check_vectors
from mmpt.modeling_mmpt.modeling_base import MmptModelOutput, text_mask
from mmpt.modeling_mmpt.objectives import IGNORED, is_labelled
from mmpt.modeling_mmpt.pair_attention import MmptPairAttention, joint_mask
from mmpt.modeling_mmpt.task_base import Inputs, MmptTaskModel, MmptTaskOutput, views_of

DECISIONS_OF = {"early": ("joint",), "late": LATE_DECISIONS, "hybrid": DECISIONS}
SAVED_NAME = "classifiers"
"""What the classifiers are called in files of weights, in every version of mmpt."""


class MmptClassifiers(nn.Module):
    """The classifier of each decision. One module, so that PEFT can train and save all of them as the head."""

    def __init__(self, classifiers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, module in classifiers.items():
            self.add_module(name, module)

    def __getitem__(self, name: str) -> nn.Module:
        return self.get_submodule(name)

    def forward(self, pooled: Tensor, name: str) -> Tensor:
        """Return the logits of the decision `name`."""
        return self[name](pooled)


class MmptAnswerClassifiers(nn.Module):
    """The same under the name of the answering head as well: PEFT looks for `qa_outputs` with `QUESTION_ANS`."""

    def __init__(self, classifiers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.qa_outputs = MmptClassifiers(classifiers)

    def forward(self, pooled: Tensor, name: str) -> Tensor:
        """Return the logits of the decision `name`."""
        return self.qa_outputs(pooled, name)


class MmptDecisionModel(MmptTaskModel):
    """One classifier for each that decides, and the combination of what they say.

    With late or hybrid fusion the loss is that of the combined decision plus the mean of the losses of the single
    ones, so that each is a decision that stands by itself.

    The classifiers are the module `classifier`, the name by which PEFT finds the head of a model. Files of weights call
    it `SAVED_NAME`: transformers renames when it loads and saves, `load_state_dict` takes either name.

    Args:
        head_class: the module that holds the classifiers.
        head_name: where the classifiers are in the model.
    """

    has_class_loss = True
    head_class: type[nn.Module] = MmptClassifiers
    head_name = "classifier"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        renaming = WeightRenaming(f"^{SAVED_NAME}.", f"{cls.head_name}.")
        register_checkpoint_conversion_mapping(cls.__name__, [renaming], overwrite=True)

    @property
    def classifiers(self) -> Any:
        """The classifiers by the name of the decision."""
        return self.get_submodule(self.head_name)

    def saved_state_dict(self) -> dict[str, Tensor]:
        own = f"{self.head_name}."
        return {
            f"{SAVED_NAME}.{name.removeprefix(own)}" if name.startswith(own) else name: weight
            for name, weight in self.state_dict().items()
        }

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = f"{prefix}{SAVED_NAME}."
        for name in [name for name in state_dict if name.startswith(saved)]:
            state_dict[f"{prefix}{self.head_name}.{name.removeprefix(saved)}"] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def decides_answers(self) -> bool:
        """Whether each class is a question of its own."""
        return False

    @property
    def reads_states(self) -> bool:
        """Whether a decision is read from other states than the pooled ones."""
        return False

    @property
    def reads(self) -> dict[str, bool]:
        return {**super().reads, "text": self.reads_states, "pooled": not self.reads_states}

    def add_head(self) -> None:
        config = self.config
        names = DECISIONS_OF[config.fusion]
        self.classifier = self.head_class({name: self.build_classifier() for name in names})
        self.fusion = None
        if config.fusion != "early":
            self.fusion = MmptDecisionFusion(config.late_fusion, config.fusion == "hybrid", self.decides_answers)

    @property
    def num_classes(self) -> int:
        """How many classes or answers there are."""
        return self.config.num_labels or 0

    def build_classifier(self) -> nn.Module:
        """Return a new classifier of one vector."""
        return classifier(self, self.pooled_size, self.num_classes)

    def decide(self, inputs: Inputs, labels: Tensor | None, **kwargs: Any) -> MmptTaskOutput:
        logits, views = self.decisions(inputs, **kwargs)
        return self.combine(logits, labels, views)

    def decisions(self, inputs: Inputs, **kwargs: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the logits by the name of who decides, and the states that they were read from."""
        logits, views = {}, {}
        encode = partial(self.backbone, **inputs) if self.reads_states else partial(self.encode_to_pool, inputs)
        if self.config.fusion != "late":
            states = encode(late=False, **kwargs)
            views = views_of(states)
            logits["joint"] = self.classify("joint", states.pooler_output, states, inputs)
        if self.config.fusion != "early":
            states = encode(late=True, **kwargs)
            views = views or views_of(states)
            for name, pooled in (("text", states.text_pooler_output), ("regions", states.region_pooler_output)):
                if pooled is not None:
                    logits[name] = self.classify(name, pooled, states, inputs)
        return logits, views

    def combine(self, logits: dict[str, Tensor], labels: Tensor | None, views: dict[str, Any]) -> MmptTaskOutput:
        """Return what the decisions, (batch, classes) each, say together, with the loss."""
        if self.fusion is None:
            loss = None if labels is None else self.loss(logits["joint"], labels)
            return MmptTaskOutput(loss=loss, logits=logits["joint"], **views)
        fused = self.fusion(logits)
        loss = None
        if labels is not None:
            own = torch.stack([self.loss(decision, labels) for decision in logits.values()]).mean()
            loss = self.loss(fused.logits, labels) + own
        joint, text, regions = map(logits.get, DECISIONS)
        return MmptTaskOutput(loss, fused.logits, joint, text, regions, fused.weights, **views)

    def classify(self, name: str, pooled: Tensor | None, states: MmptModelOutput, inputs: Inputs) -> Tensor:
        """Return the logits of one decision, (batch, classes)."""
        if pooled is None:
            raise MmptValueError(
                f"{type(self).__name__} got no text, and this model has no pooled vector of regions alone; give "
                "input_ids, or choose fusion 'late' or 'hybrid', or pooled_fusion 'mul' or 'sum'"
            )
        return self.classifier(apply_dropout(pooled, self.config.pooled_dropout_prob, self.training), name)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of one decision."""
        return self.class_loss(logits, labels)

    def loss_denominator(self, labels: Tensor) -> float:
        weights = self.config.class_weights
        if not self.has_class_loss or weights is None:
            return super().loss_denominator(labels)
        return sum(weights[label] for label in labels.tolist() if label != IGNORED)


class MmptForQuestionAnswering(MmptDecisionModel):
    """Visual question answering over a list of answers. Labels: (batch, answers), soft scores in 0..1.

    The loss sums over the answers and is a mean over the rows, as in UNITER and ViLBERT; with `answer_loss="kl"` it
    is VisualBERT's divergence from the scores divided by their sum. A row of -100 has no label.
    """

    auto_name = "AutoModelForVisualQuestionAnswering"
    has_class_loss = False
    head_class = MmptAnswerClassifiers
    head_name = "classifier.qa_outputs"

    @property
    def decides_answers(self) -> bool:
        return self.config.answer_loss == "bce"

    @property
    def reads_states(self) -> bool:
        return self.config.answer_reads == "second_last_token"

    def unread_modules(self) -> Iterable[nn.Module]:
        yield from super().unread_modules()
        if self.reads_states and self.backbone.text_pooler is not None:
            yield self.backbone.text_pooler

    def classify(self, name: str, pooled: Tensor | None, states: MmptModelOutput, inputs: Inputs) -> Tensor:
        if self.config.answer_reads == "second_last_token" and name != "regions":
            has_task = inputs.get("task_ids") is not None
            pooled = second_last_token(states.text_last_hidden_state, inputs.get("attention_mask"), has_task)
        return super().classify(name, pooled, states, inputs)

    def build_classifier(self) -> nn.Module:
        if self.config.answer_reads == "second_last_token" and self.pooled_size != self.config.hidden_size:
            raise MmptValueError(
                f"answer_reads='second_last_token' needs pooler_size {self.pooled_size} to be hidden_size "
                f"{self.config.hidden_size}; leave pooler_size out"
            )
        return super().build_classifier()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_vectors(self, "labels", labels, logits.shape, "score for each answer", bounded=True)
        logits, labels = logits.float(), labels.float()
        labelled = is_labelled(labels)
        labels = labels.masked_fill(~labelled[:, None], 0.0)
        count = labelled.sum().clamp(min=1)
        if self.decides_answers:
            losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1)
            return losses.masked_fill(~labelled, 0.0).sum() / count
        total = labels.sum(-1, keepdim=True)
        # A question none of whose answers is in the list has no distribution to learn.
        targets = labels / total.clamp(min=torch.finfo(labels.dtype).tiny)
        return F.kl_div(logits.log_softmax(-1), targets, reduction="sum") / count


class MmptForSequenceClassification(MmptDecisionModel):
    """Any number of classes of an image and a text: entailment, statements that are true or false. Labels: (batch,)."""

    auto_name = "AutoModelForSequenceClassification"


class MmptForImagesAndTextClassification(MmptDecisionModel):
    """Classes of a text about two images (NLVR2). Labels: (batch,).

    Regions have an axis of images behind that of the batch: region_features (batch, 2, regions, feature), and so on.
    """

    images = 2

    def axes(self, inputs: Inputs) -> tuple[tuple[str | int, ...], tuple[str | int, ...]]:
        for name, value in inputs.items():
            if is_of_regions(name) and isinstance(value, Tensor) and value.shape[1:2] != (self.images,):
                raise MmptValueError(
                    f"{name} is {tuple(value.shape)}, expected (batch, {self.images}, regions, ...): two images a text"
                )
        return ("batch",), ("batch", self.images)

    @property
    def reads_states(self) -> bool:
        return self.pair_attention is not None

    def add_head(self) -> None:
        super().add_head()
        self.pair_attention = None
        if self.config.image_pair == "pair_attention":
            self.refuse_other_fusion("attention between the two pairs reads both modalities")
            self.pair_attention = MmptPairAttention(self.config)
        if self.config.image_pair == "triplet" or self.config.image_pair_types:
            self._check_region_types()

    def build_classifier(self) -> nn.Module:
        size = {
            "pair": 2 * self.pooled_size,
            "triplet": self.pooled_size,
            "pair_attention": 2 * self.config.hidden_size,
        }
        return classifier(self, size[self.config.image_pair], self.num_classes)

    def decide(self, inputs: Inputs, labels: Tensor | None, **kwargs: Any) -> MmptTaskOutput:
        if self.config.image_pair == "triplet" or self.config.image_pair_types:
            inputs = number_images(inputs)
        if self.config.image_pair == "triplet":
            return super().decide(one_sequence(inputs), labels, **kwargs)
        logits, views = self.decisions(one_pair_a_row(inputs), **kwargs)
        return self.combine(logits, labels, views)

    def classify(self, name: str, pooled: Tensor | None, states: MmptModelOutput, inputs: Inputs) -> Tensor:
        if self.pair_attention is not None:
            mask = joint_mask(states, inputs)
            pooled = self.pair_attention(states.last_hidden_state, mask)
        elif self.config.image_pair == "pair" and pooled is not None:
            pooled = pooled.unflatten(0, (-1, self.images)).flatten(1)  # (batch, 2 * pooled)
        return super().classify(name, pooled, states, inputs)

    def _check_region_types(self) -> None:
        config = self.config
        rows = {"none": 0, "own": config.region_type_vocab_size, "shared": config.type_vocab_size}
        if rows[config.region_type_embedding] < config.region_token_type_id + self.images:
            setting = "image_pair='triplet'" if config.image_pair == "triplet" else "image_pair_types=True"
            raise MmptValueError(
                f"{setting} tells two images apart by their region types, but region_type_embedding is "
                f"{config.region_type_embedding!r} with {rows[config.region_type_embedding]} rows, expected "
                f"{config.region_token_type_id + self.images} or more; set region_type_embedding='own' and "
                f"region_type_vocab_size={config.region_token_type_id + self.images}"
            )


class MmptForMultipleChoice(MmptDecisionModel):
    """The right one of several texts about an image (VCR). Labels: (batch,), the number of the choice.

    Texts have an axis of choices: input_ids (batch, choices, tokens), and so on. Regions are given once a row, or with
    that axis as well.
    """

    auto_name = "AutoModelForMultipleChoice"

    def axes(self, inputs: Inputs) -> tuple[tuple[str | int, ...], tuple[str | int, ...]]:
        text, dimensions = inputs.get("input_ids", inputs.get("inputs_embeds")), 3 if "input_ids" in inputs else 4
        if text is None or (isinstance(text, Tensor) and text.dim() != dimensions):
            got = "none" if text is None else tuple(text.shape)
            raise MmptValueError(f"the texts are {got}, expected (batch, choices, tokens): some texts for each image")
        features = inputs.get("region_features")
        of_choices = isinstance(features, Tensor) and features.dim() == 4
        return ("batch", "choices"), ("batch", "choices") if of_choices else ("batch",)

    def build_classifier(self) -> nn.Module:
        return classifier(self, self.pooled_size, 1)

    def decide(self, inputs: Inputs, labels: Tensor | None, **kwargs: Any) -> MmptTaskOutput:
        text: Any = inputs.get("input_ids", inputs.get("inputs_embeds"))
        choices = text.shape[1]
        regions = inputs.get("region_features")
        shared = regions is not None and regions.dim() == 3
        flat: Inputs = {
            name: value.repeat_interleave(choices, 0) if shared and is_of_regions(name) else value.flatten(0, 1)
            for name, value in inputs.items()
            if value is not None
        }
        logits, views = self.decisions(flat, **kwargs)
        return self.combine({name: scores.view(-1, choices) for name, scores in logits.items()}, labels, views)


def classifier(model: MmptTaskModel, input_size: int, outputs: int) -> nn.Module:
    """Return the classifier that the configuration names."""
    config = model.config
    if config.classifier_head == "linear":
        return nn.Linear(input_size, outputs)
    size = config.classifier_hidden_size or 2 * model.pooled_size
    return MmptPredictionHead(
        config, input_size, size, outputs, act=config.classifier_act, layer_norm=config.classifier_layer_norm
    )


def second_last_token(text: Tensor | None, attention_mask: Tensor | None, has_task: bool = False) -> Tensor | None:
    """Return (batch, hidden), the state of the token before the last of each text, which VisualBERT reads.

    Args:
        has_task: whether `text` has a task embedding behind its first token.
    """
    if text is None:
        return None
    if text.shape[1] < 2:
        raise MmptValueError("the text has one token, expected two or more: answers are read from the one before last")
    if attention_mask is None:
        return text[:, -2]
    places = torch.arange(text.shape[1], device=text.device)
    last = (text_mask(attention_mask, text, has_task) * places).amax(1)
    return text[torch.arange(text.shape[0], device=text.device), (last - 1).clamp(min=0)]


def one_pair_a_row(inputs: Inputs) -> Inputs:
    """Return a batch with a row for each image, the text of an example with each of its images."""
    return {
        name: value.flatten(0, 1) if is_of_regions(name) else value.repeat_interleave(2, 0)
        for name, value in inputs.items()
        if value is not None
    }


def one_sequence(inputs: Inputs) -> Inputs:
    """Return a batch with the regions of both images in one row."""
    return {
        name: value.flatten(1, 2) if is_of_regions(name) else value
        for name, value in inputs.items()
        if value is not None
    }


def number_images(inputs: Inputs) -> Inputs:
    """Return a batch where the type of a region is the number of its image, unless types are given."""
    features = inputs.get("region_features")
    if features is None or inputs.get("region_type_ids") is not None:
        return inputs
    numbers = torch.arange(features.shape[1], device=features.device)[:, None]
    return {**inputs, "region_type_ids": numbers.expand(features.shape[:3])}
