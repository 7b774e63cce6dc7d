"""The models that are measured side by side: ours, and LXMERT and VisualBERT of transformers at equal size.

A contender is named `model/precision`. Ours: `single` and `dual` deal each row to one objective's corruption,
`single-joint` and `dual-joint` do every objective on every row; they collate from memory in each step. transformers'
models get their padded batch ready made: LXMERT with all six losses, VisualBERT with MLM and matching. All drop out
0.1, clip gradients and use the fused AdamW.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LxmertConfig, LxmertForPreTraining, VisualBertConfig, VisualBertForPreTraining

from benchmarks.flops import attention, layer, prediction, step_flops
from benchmarks.measuring import now
from benchmarks.workload import CLASSES, FEATURE_DIM, SIZES, VOCABULARY, make_tokenizer
from mmpt import (
    MmptDataCollator,
    MmptDualStreamConfig,
    MmptDualStreamForPreTraining,
    MmptImageProcessor,
    MmptProcessor,
    MmptSingleStreamConfig,
    MmptSingleStreamForPreTraining,
)
from mmpt.modeling_mmpt import heads, modeling_base, modeling_dual_stream, modeling_pretraining, modeling_single_stream
from mmpt.modeling_mmpt.objectives import IGNORED

PARTS = ("collate", "forward", "backward", "optimiser")
OURS = ("single", "dual", "single-joint", "dual-joint")
PEERS = ("lxmert", "visual_bert")
OBJECTS, ATTRIBUTES, ANSWERS = 1_600, 400, 9_500


def make_config(stream: str, size: str, **overrides: Any) -> MmptSingleStreamConfig | MmptDualStreamConfig:
    """Return the configuration of one of our models: UNITER's architecture, or LXMERT's with the five objectives."""
    hidden, heads, intermediate, layers, (text, region, joined) = SIZES[size]
    common: dict[str, Any] = dict(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        region_feature_dim=FEATURE_DIM,
        num_region_classes=CLASSES,
    )
    if stream == "single":
        return MmptSingleStreamConfig.uniter(**(common | {"num_hidden_layers": layers} | overrides))
    dual = dict(
        num_hidden_layers=text + joined,
        region_num_hidden_layers=region + joined,
        text_co_attention_layers=list(range(text, text + joined)),
        region_co_attention_layers=list(range(region, region + joined)),
        num_region_attributes=0,
        num_qa_labels=0,
        region_background_class=0,
        confidence_weighted_classes=False,
        objective_weights=dict.fromkeys(("mlm", "mrc", "mrc_kl", "mrfr", "itm"), 1.0),
    )
    return MmptDualStreamConfig.lxmert(**(common | dual | overrides))


def make_model(name: str, size: str, attention: str = "sdpa") -> Any:
    """Return a model in training mode, by its name without policy and precision."""
    hidden, heads, intermediate, layers, (text, region, joined) = SIZES[size]
    common: dict[str, Any] = dict(
        vocab_size=VOCABULARY, hidden_size=hidden, num_attention_heads=heads, intermediate_size=intermediate
    )
    if name in ("single", "dual"):
        config = make_config(name, size, attn_implementation=attention)
        model_class: Any = MmptSingleStreamForPreTraining if name == "single" else MmptDualStreamForPreTraining
        return model_class(config).train()
    if name == "lxmert":
        return LxmertForPreTraining(LxmertConfig(**common, l_layers=text, r_layers=region, x_layers=joined)).train()
    config = VisualBertConfig(**common, num_hidden_layers=layers, visual_embedding_dim=FEATURE_DIM, pad_token_id=0)
    return VisualBertForPreTraining(config).train()


class CheckTimer:
    """The seconds that the models' checks of their inputs take; they are part of the forward pass.

    Entered, it stands in front of the functions that the models call.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = False
        self._replaced: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> "CheckTimer":
        for module in (heads, modeling_pretraining, modeling_base, modeling_single_stream, modeling_dual_stream):
            for name in ("check_inputs", "check_objective_labels", "check_keywords", "refuse_unknown_inputs"):
                if (check := getattr(module, name, None)) is not None:
                    self._replaced.append((module, name, check))
                    setattr(module, name, self._timed(check))
        return self

    def __exit__(self, *_: object) -> None:
        for module, name, check in self._replaced:
            setattr(module, name, check)
        self._replaced.clear()

    def _timed(self, check: Any) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return check(*args, **kwargs)
            self._inside, begin = True, now(torch.device("cpu"))
            try:
                return check(*args, **kwargs)
            finally:
                self.seconds += now(torch.device("cpu")) - begin
                self._inside = False

        return timed


class Contender:
    """A model that takes training steps, and the work that they are worth.

    Args:
        name: `model/precision`.
        optimiser: of the model; both may be shared by contenders that differ in policy or precision only.
    """

    def __init__(
        self, name: str, model: Any, optimiser: torch.optim.Optimizer, processor: MmptProcessor, device: torch.device
    ) -> None:
        self.kind, self.precision = name.split("/")
        self.check_seconds = 0.0  # of the last step's forward pass, for the checks of its inputs
        self.model, self.optimiser, self.device = model, optimiser, device
        self.ours = self.kind in OURS
        config = getattr(model, "_orig_mod", model).config if self.ours else make_config("single", "tiny")
        policy = "joint" if self.kind.endswith("-joint") or not self.ours else "conditional"
        self.collator = MmptDataCollator(processor=processor, config=config, policy=policy)

    def step(self, examples: Sequence[Any]) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Take a step and return the seconds of its parts and the batch that the collator made of the examples."""
        batch, inputs = {}, {}
        if not self.ours:
            batch = self.collator(examples)
            inputs = self._to_device(PEER_INPUTS[self.kind](batch))
        marks = [now(self.device)]
        if self.ours:
            batch = self.collator(examples)
            inputs = self._to_device(batch)
        marks.append(now(self.device))
        with CheckTimer() as checks, torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.model(**inputs).loss
        marks.append(now(self.device))
        loss.backward()
        marks.append(now(self.device))
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        marks.append(now(self.device))
        self.check_seconds = checks.seconds
        return {part: end - begin for part, begin, end in zip(PARTS, marks[:-1], marks[1:], strict=True)}, batch

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Return the useful FLOPs of the step."""
        if self.ours:
            return step_flops(self.collator.config, batch)
        return 3 * PEER_FLOPS[self.kind](self.model.config, batch)

    def _to_device(self, values: Any) -> Any:
        if isinstance(values, Tensor):
            return values.to(self.device, non_blocking=True)
        if isinstance(values, dict):
            return {name: self._to_device(value) for name, value in values.items()}
        return tuple(map(self._to_device, values))


def make_contenders(
    names: Sequence[str], size: str, device: torch.device, attention: str = "sdpa", compiled: bool = False
) -> dict[str, Contender]:
    """Return contenders by name; those of one model share its weights and its optimiser, which saves memory."""
    processor = MmptProcessor(MmptImageProcessor(), make_tokenizer())
    models: dict[str, tuple[Any, torch.optim.Optimizer]] = {}
    contenders = {}
    for name in names:
        kind = name.split("/")[0].removesuffix("-joint")
        if kind not in models:
            model = make_model(kind, size, attention).to(device)
            optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
            models[kind] = (torch.compile(model) if compiled and kind in OURS else model, optimiser)
        contenders[name] = Contender(name, *models[kind], processor, device)
    return contenders


def _lxmert_inputs(batch: dict[str, Tensor]) -> dict[str, Any]:
    masked = batch["masked_regions"].float()
    classes = batch["mrc_labels"].clamp(min=0)
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "visual_feats": batch["region_features"],
        "visual_pos": batch["region_boxes"],
        "visual_attention_mask": batch["region_attention_mask"],
        "labels": batch["mlm_labels"],
        "obj_labels": {
            "obj": (classes % OBJECTS, masked),
            "attr": (classes % ATTRIBUTES, masked),
            "feat": (batch["region_features"], masked),
        },
        "matched_label": batch["itm_labels"],
        "ans": batch["input_ids"][:, 1] % ANSWERS,
    }


def _visual_bert_inputs(batch: dict[str, Tensor]) -> dict[str, Any]:
    mask = batch["region_attention_mask"]
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "visual_embeds": batch["region_features"],
        "visual_attention_mask": mask,
        "visual_token_type_ids": torch.ones_like(mask),
        "labels": torch.cat([batch["mlm_labels"], torch.full_like(mask, IGNORED)], dim=1),
        "sentence_image_labels": batch["itm_labels"],
    }


def _lxmert_flops(config: Any, batch: dict[str, Tensor]) -> float:
    size, text, regions = config.hidden_size, batch["attention_mask"].sum(1), batch["region_attention_mask"].sum(1)
    work = (config.l_layers + config.x_layers) * layer(text, size, config.intermediate_size)
    work += (config.r_layers + config.x_layers) * layer(regions, size, config.intermediate_size)
    work += config.x_layers * (attention(text, regions, size, size, size) + attention(regions, text, size, size, size))
    work += 2.0 * float(regions.sum()) * (FEATURE_DIM + 4) * size
    masked = batch["masked_regions"].sum()
    work += prediction(masked, size, OBJECTS + ATTRIBUTES + FEATURE_DIM)
    work += prediction((batch["mlm_labels"] != IGNORED).sum(), size, VOCABULARY) + prediction(len(text), size, 2)
    return work + len(text) * (2.0 * size * 2 * size + 2.0 * 2 * size * ANSWERS)


def _visual_bert_flops(config: Any, batch: dict[str, Tensor]) -> float:
    size, text, regions = config.hidden_size, batch["attention_mask"].sum(1), batch["region_attention_mask"].sum(1)
    work = config.num_hidden_layers * layer(text + regions, size, config.intermediate_size)
    work += 2.0 * float(regions.sum()) * FEATURE_DIM * size
    return work + prediction((batch["mlm_labels"] != IGNORED).sum(), size, VOCABULARY) + prediction(len(text), size, 2)


PEER_INPUTS = {"lxmert": _lxmert_inputs, "visual_bert": _visual_bert_inputs}
PEER_FLOPS = {"lxmert": _lxmert_flops, "visual_bert": _visual_bert_flops}
