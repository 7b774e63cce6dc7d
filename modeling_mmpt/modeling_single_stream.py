"""The single-stream model: text and regions concatenated, one encoder (UNITER, VisualBERT, Oscar)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from mmpt.configuration.configuration_mmpt import MmptSingleStreamConfig
from mmpt.modeling_mmpt.embeddings import MmptRegionEmbeddings, MmptTextEmbeddings
from mmpt.modeling_mmpt.input_checks import check_keywords
from mmpt.modeling_mmpt.layers import MmptAttention, MmptLayer, run_last_layers
from mmpt.modeling_mmpt.modeling_base import (
    MmptBackbone,
    MmptModelOutput,
    MmptPooler,
    Reads,
    first_places,
    key_mask,
    pools_regions,
    take_layout,
)
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.unpadding import PooledPlaces, layout_of, pooled_places


class MmptSingleStreamModel(MmptBackbone):
    """The backbone without heads. With text alone it is BERT; with late fusion, one encoder that each passes alone."""

    config: MmptSingleStreamConfig
    _can_record_outputs = {"hidden_states": MmptLayer, "attentions": MmptAttention}

    def __init__(self, config: MmptSingleStreamConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.text_embeddings = MmptTextEmbeddings(config)
        self.region_embeddings = MmptRegionEmbeddings(config, size)
        self.layers = nn.ModuleList(
            MmptLayer(config, size, config.num_attention_heads, config.intermediate_size)
            for _ in range(config.num_hidden_layers)
        )
        self.text_pooler = MmptPooler(config, size)
        self.region_pooler = MmptPooler(config, size) if pools_regions(config) else None
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
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
        late: bool = False,
        reads: Reads = "all",
        **kwargs: Any,
    ) -> MmptModelOutput:
        """Encode text, regions or both.

        Args:
            input_ids: (batch, tokens).
            attention_mask: (batch, tokens), 1 where there is a token; all by default.
            token_type_ids: (batch, tokens); 0 by default.
            region_features: (batch, regions, feature); masked regions are zero vectors.
            region_boxes: (batch, regions, 4), x1 y1 x2 y2 as shares of the image.
            region_attention_mask: (batch, regions), 1 where there is a region; all by default. A row without any gets
                one whole-image region.
            region_type_ids: (batch, regions), group, panel or image number, from 0.
            masked_regions: (batch, regions), True where the feature was masked; read by UNITER's mask embedding.
            position_ids: (batch, tokens); 0, 1, 2 ... by default.
            inputs_embeds: (batch, tokens, hidden), instead of `input_ids`.
            task_ids: (batch,), the task embedding that is put behind [CLS]; text outputs are one token longer.
            late: encode each modality by itself, as a model with `fusion="late"` does always.
            reads: where the last states are read, which are computed there alone; states elsewhere say nothing.
                "pooled": in the places that are pooled. "labelled": in these and at the labels that the layout knows
                of; without a layout, everywhere.
            kwargs: the layout of the batch, if a collator made one (`unpadding.py`): nothing is computed in padding.
                Neither has an effect where hidden states or attentions of every layer are returned.

        Raises:
            ValueError: if no input or two texts are given, or a shape does not fit the configuration.
        """
        check_keywords(self, kwargs, late)
        text, regions = self._embed(
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
        has_task = task_ids is not None
        layout, reads = take_layout(self.config, kwargs, reads, has_task)
        kwargs["return_dict"] = True
        given = {name: part for name, part in (("text", text), ("regions", regions)) if part is not None}
        firsts = {name: first_places(part[1], has_task and name == "text") for name, part in given.items()}
        late = self.config.fusion == "late" or late
        if late and len(given) == 2:
            # The numbers of a block mask without its empty blocks, and with any attention backend.
            parts = []
            for name, (hidden, valid) in given.items():
                pooled = pooled_places([hidden], [firsts[name]]) if reads == "pooled" else None
                parts.append(self._encode(name, hidden, valid, layout, reads, pooled, **kwargs))
            output = _join(parts)
        else:
            joint, valid = (torch.cat(each, dim=1) for each in zip(*given.values(), strict=True))
            pooled = None
            if reads == "pooled":
                pooled = pooled_places([hidden for hidden, _ in given.values()], list(firsts.values()))
            name = "joint" if len(given) == 2 else next(iter(given))
            output = self._encode(name, joint, valid, layout, reads, pooled, **kwargs)
        tokens = 0 if text is None else text[0].shape[1]
        return self._split(output, tokens, regions is not None, firsts.get("text"), firsts.get("regions"))

    def _unread_by_regions(self) -> Iterable[nn.Module]:
        return () if self._is_joint() else self._text_alone()

    def _unread_by_text(self) -> Iterable[nn.Module]:
        return () if self._is_joint() else (self.region_embeddings,)

    def _is_joint(self) -> bool:
        """Return whether text and regions attend to each other."""
        return self.config.fusion != "late" and len(self.layers) > 0

    @capture_outputs
    def _encode(
        self,
        name: str,
        hidden: Tensor,
        valid: Tensor,
        given: dict[str, Tensor],
        reads: Reads,
        pooled: PooledPlaces | None,
        **kwargs: Any,
    ) -> MmptModelOutput:
        layout = layout_of(name, given, valid, reads == "all")
        mask = key_mask(self.config, hidden, valid if layout is None else layout.attended)
        if layout is not None:
            hidden = layout.pack(hidden)
        return MmptModelOutput(last_hidden_state=run_last_layers(self.layers, hidden, mask, layout, pooled, **kwargs))

    def _split(
        self, output: MmptModelOutput, tokens: int, has_regions: bool, *firsts: Tensor | None
    ) -> MmptModelOutput:
        """Add the views of text and regions to the joint output; they share its memory."""
        hidden: Tensor = output["last_hidden_state"]
        text = hidden[:, :tokens] if tokens else None
        regions = hidden[:, tokens:] if has_regions else None
        text_pooled, region_pooled, joined = self._pool(text, regions, *firsts)
        views: dict[str, tuple[Tensor, ...]] = {}
        states, weights = output.hidden_states, output.attentions
        if tokens and states is not None:
            views["text_hidden_states"] = tuple(state[:, :tokens] for state in states if state is not None)
        if has_regions and states is not None:
            views["region_hidden_states"] = tuple(state[:, tokens:] for state in states if state is not None)
        if weights is not None and tokens:
            views["text_attentions"] = tuple(weight[:, :, :tokens, :tokens] for weight in weights)
        if weights is not None and has_regions:
            views["region_attentions"] = tuple(weight[:, :, tokens:, tokens:] for weight in weights)
        if weights is not None and tokens and has_regions:
            views["text_to_region_attentions"] = tuple(weight[:, :, :tokens, tokens:] for weight in weights)
            views["region_to_text_attentions"] = tuple(weight[:, :, tokens:, :tokens] for weight in weights)
        return MmptModelOutput(
            last_hidden_state=hidden,
            pooler_output=joined,
            text_last_hidden_state=text,
            region_last_hidden_state=regions,
            text_pooler_output=text_pooled,
            region_pooler_output=region_pooled,
            hidden_states=states,
            attentions=weights,
            **views,
        )


class MmptSingleStreamForPreTraining(MmptForPreTraining):
    """The single-stream backbone with the pre-training heads."""

    config: MmptSingleStreamConfig

    def __init__(self, config: MmptSingleStreamConfig) -> None:
        super().__init__(config)
        self.backbone = MmptSingleStreamModel(config)
        self.add_heads(region_hidden_size=config.hidden_size)
        self.post_init()


def _join(parts: list[MmptModelOutput]) -> MmptModelOutput:
    """Return the joint view of text and regions that were encoded each by itself; no weight joins them."""
    text, regions = parts
    joined = MmptModelOutput(last_hidden_state=torch.cat([text["last_hidden_state"], regions["last_hidden_state"]], 1))
    if text.hidden_states is not None and regions.hidden_states is not None:
        states = zip(text.hidden_states, regions.hidden_states, strict=True)
        # A layer that was not asked for is None, in transformers' own outputs too.
        cat: Any = (None if pair[0] is None else torch.cat(pair, dim=1) for pair in states)
        joined.hidden_states = tuple(cat)
    if text.attentions is not None and regions.attentions is not None:
        weights = zip(text.attentions, regions.attentions, strict=True)
        joined.attentions = tuple(_block_diagonal(*pair) for pair in weights)
    return joined


def _block_diagonal(text: Tensor, regions: Tensor) -> Tensor:
    """Return (batch, heads, tokens + regions, tokens + regions) with zeros between the modalities."""
    upper = nn.functional.pad(text, (0, regions.shape[-1]))
    lower = nn.functional.pad(regions, (text.shape[-1], 0))
    return torch.cat([upper, lower], dim=2)
