"""The dual-stream model: one encoder a modality, joined by co-attention (ViLBERT, LXMERT)."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig
from mmpt.modeling_mmpt.embeddings import MmptRegionEmbeddings, MmptTextEmbeddings
from mmpt.modeling_mmpt.heads import MmptForPreTraining
from mmpt.modeling_mmpt.input_checks import check_keywords
from mmpt.modeling_mmpt.layers import MmptAttention, MmptCoAttentionLayer, MmptLayer, run_layers
from mmpt.modeling_mmpt.modeling_base import (
    MmptBackbone,
    MmptModelOutput,
    MmptPooler,
    pack_sequences,
    pools_regions,
)


class MmptDualStreamModel(MmptBackbone):
    """The backbone without heads. With one modality alone, or late fusion, the streams run without co-attention.

    A model with `fusion="late"` has no co-attention layers at all.
    """

    config: MmptDualStreamConfig
    _can_record_outputs = {
        "hidden_states": [
            OutputRecorder(MmptTextEmbeddings, capture_initial_hidden_state=False),
            OutputRecorder(MmptLayer, layer_name="text_layers", capture_initial_hidden_state=False),
        ],
        "region_hidden_states": [
            OutputRecorder(MmptRegionEmbeddings),
            OutputRecorder(MmptLayer, layer_name="region_layers"),
        ],
        "attentions": OutputRecorder(MmptAttention, index=1, layer_name="text_layers"),
        "region_attentions": OutputRecorder(MmptAttention, index=1, layer_name="region_layers"),
        "text_to_region_attentions": OutputRecorder(MmptCoAttentionLayer, index=2),
        "region_to_text_attentions": OutputRecorder(MmptCoAttentionLayer, index=3),
    }

    def __init__(self, config: MmptDualStreamConfig) -> None:
        super().__init__(config)
        size, region_size = config.hidden_size, config.region_hidden_size or config.hidden_size
        region_heads = config.region_num_attention_heads or config.num_attention_heads
        region_intermediate_size = config.region_intermediate_size or config.intermediate_size
        self.text_embeddings = MmptTextEmbeddings(config)
        self.region_embeddings = MmptRegionEmbeddings(config, region_size)
        self.text_layers = nn.ModuleList(
            MmptLayer(config, size, config.num_attention_heads, config.intermediate_size)
            for _ in range(config.num_hidden_layers)
        )
        self.region_layers = nn.ModuleList(
            MmptLayer(config, region_size, region_heads, region_intermediate_size)
            for _ in range(config.region_num_hidden_layers)
        )
        joints = [] if config.fusion == "late" else config.text_co_attention_layers
        self.co_attention_layers = nn.ModuleList(MmptCoAttentionLayer(config) for _ in joints)
        self.text_pooler = MmptPooler(config, size)
        self.region_pooler = MmptPooler(config, region_size) if pools_regions(config) else None
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
        read_tokens: Tensor | None = None,
        read_regions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> MmptModelOutput:
        """Encode text, regions or both. Inputs and errors are those of `MmptSingleStreamModel.forward`."""
        states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        weights = self.config.output_attentions if output_attentions is None else output_attentions
        check_keywords(self, kwargs, late)
        kwargs["return_dict"] = True
        # One flag of the user switches on every stream and direction; the library knows only the first of each.
        flags: dict[str, Any] = dict(
            output_hidden_states=states,
            output_region_hidden_states=bool(states),
            output_attentions=weights,
            output_region_attentions=weights,
            output_text_to_region_attentions=weights,
            output_region_to_text_attentions=weights,
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
        late = self.config.fusion == "late" or late
        output = self._encode(inputs, late, (read_tokens, read_regions), **flags, **kwargs)
        output.text_hidden_states = output.hidden_states
        output.text_attentions = output.attentions
        return output

    def _unread_by_regions(self) -> Iterable[nn.Module]:
        if not self.co_attention_layers:
            return [*self._text_alone(), *self.text_layers]
        return [*self.text_layers[self.config.text_co_attention_layers[-1] :], *self._last_co_attention().of_text()]

    def _unread_by_text(self) -> Iterable[nn.Module]:
        if not self.co_attention_layers:
            return [self.region_embeddings, *self.region_layers]
        after = self.region_layers[self.config.region_co_attention_layers[-1] :]
        return [*after, *self._last_co_attention().of_regions()]

    def _last_co_attention(self) -> MmptCoAttentionLayer:
        layer = self.co_attention_layers[-1]
        assert isinstance(layer, MmptCoAttentionLayer)
        return layer

    @capture_outputs
    def _encode(
        self,
        inputs: dict[str, Tensor | None],
        late: bool,
        read: tuple[Tensor | None, Tensor | None],
        **kwargs: Any,
    ) -> MmptModelOutput:
        config = self.config
        embedded_text, embedded_regions = self._embed(**inputs)
        has_task = inputs["task_ids"] is not None
        read, firsts = self._read_also_firsts(embedded_text, embedded_regions, read, has_task)
        given = zip((embedded_text, embedded_regions), read, strict=True)
        if any(part is not None and places is None for part, places in given):
            read = (None, None)
        text = regions = text_mask = region_mask = text_keys = region_keys = None
        text_packing = region_packing = text_read = region_read = None
        if embedded_text is not None:
            text, text_mask, text_packing, text_read = pack_sequences(config, *embedded_text, read[0])
        if embedded_regions is not None:
            regions, region_mask, region_packing, region_read = pack_sequences(config, *embedded_regions, read[1])
        if text_packing is not None and region_packing is not None:
            text_keys, region_keys = text_mask, region_mask
        elif embedded_text is not None and embedded_regions is not None:
            (text, text_valid), (regions, region_valid) = embedded_text, embedded_regions
            region_keys = create_bidirectional_mask(config, text, region_valid, encoder_hidden_states=regions)
            text_keys = create_bidirectional_mask(config, regions, text_valid, encoder_hidden_states=text)

        text_done = region_done = 0
        stops = zip(config.text_co_attention_layers, config.region_co_attention_layers, strict=True)
        for number, (text_stop, region_stop) in enumerate(stops):
            text = _run(self.text_layers[text_done:text_stop], text, text_mask, text_packing, **kwargs)
            regions = _run(self.region_layers[region_done:region_stop], regions, region_mask, region_packing, **kwargs)
            text_done, region_done = text_stop, region_stop
            if text is not None and regions is not None and not late:
                text, regions, *_ = self.co_attention_layers[number](
                    text, regions, text_keys, region_keys, text_packing, region_packing, **kwargs
                )
        text = _run(self.text_layers[text_done:], text, text_mask, text_packing, text_read, **kwargs)
        regions = _run(self.region_layers[region_done:], regions, region_mask, region_packing, region_read, **kwargs)

        text_pooled, region_pooled, joined = self._pool(text, regions, *firsts)
        return MmptModelOutput(
            last_hidden_state=text if text is not None else regions,
            pooler_output=joined,
            text_last_hidden_state=text,
            region_last_hidden_state=regions,
            text_pooler_output=text_pooled,
            region_pooler_output=region_pooled,
        )


class MmptDualStreamForPreTraining(MmptForPreTraining):
    """The dual-stream backbone with the pre-training heads."""

    config: MmptDualStreamConfig

    def __init__(self, config: MmptDualStreamConfig) -> None:
        super().__init__(config)
        self.backbone = MmptDualStreamModel(config)
        self.add_heads(region_hidden_size=config.region_hidden_size or config.hidden_size)
        self.post_init()


def _run(layers: nn.ModuleList, hidden: Tensor | None, *arguments: Any, **kwargs: Any) -> Tensor | None:
    """Return `hidden` after the layers of its stream; None stays None."""
    return None if hidden is None else run_layers(layers, hidden, *arguments, **kwargs)
