"""The dual-stream model: one encoder a modality, joined by co-attention (ViLBERT, LXMERT)."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig
from mmpt.modeling_mmpt.embeddings import MmptRegionEmbeddings, MmptTextEmbeddings
from mmpt.modeling_mmpt.input_checks import check_keywords
from mmpt.modeling_mmpt.layers import MmptAttention, MmptCoAttentionLayer, MmptLayer, run_last_layers, run_layers
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
from mmpt.modeling_mmpt.unpadding import Layout, PooledPlaces, layout_of, pooled_places


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
        reads: Reads = "all",
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> MmptModelOutput:
        """Encode text, regions or both. Inputs and errors are those of `MmptSingleStreamModel.forward`."""
        states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        weights = self.config.output_attentions if output_attentions is None else output_attentions
        check_keywords(self, kwargs, late)
        asked = dict(kwargs, output_hidden_states=states, output_attentions=weights)
        layout, reads = take_layout(self.config, asked, reads, task_ids is not None)
        kwargs = {name: value for name, value in kwargs.items() if name in asked} | {"return_dict": True}
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
        output = self._encode(inputs, late, layout, reads, **flags, **kwargs)
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
        given: dict[str, Tensor],
        reads: Reads,
        **kwargs: Any,
    ) -> MmptModelOutput:
        config, has_task = self.config, inputs["task_ids"] is not None
        embedded = {
            name: part
            for name, part in zip(("text", "regions"), self._embed(**inputs), strict=True)
            if part is not None
        }
        firsts = {name: first_places(valid, has_task and name == "text") for name, (_, valid) in embedded.items()}
        layouts = {name: layout_of(name, given, valid, reads == "all") for name, (_, valid) in embedded.items()}
        if None in layouts.values():
            layouts = dict.fromkeys(layouts)
        streams = {}
        for name, (hidden, valid) in embedded.items():
            layers = self.text_layers if name == "text" else self.region_layers
            pooled = pooled_places([hidden], [firsts[name]]) if reads == "pooled" else None
            streams[name] = _Stream(config, layers, hidden, valid, layouts[name], pooled)
        text, regions = streams.get("text"), streams.get("regions")

        if text is not None and regions is not None and not late:
            stops = zip(config.text_co_attention_layers, config.region_co_attention_layers, strict=True)
            for (text_stop, region_stop), co_attention in zip(stops, self.co_attention_layers, strict=True):
                text.run_to(text_stop, **kwargs)
                regions.run_to(region_stop, **kwargs)
                masks = text.mask_for(regions), regions.mask_for(text)
                text.hidden, regions.hidden, *_ = co_attention(
                    text.hidden, regions.hidden, *masks, text.places, regions.places, **kwargs
                )
        text_states = None if text is None else text.run_to_the_end(**kwargs)
        region_states = None if regions is None else regions.run_to_the_end(**kwargs)

        text_pooled, region_pooled, joined = self._pool(
            text_states, region_states, firsts.get("text"), firsts.get("regions")
        )
        return MmptModelOutput(
            last_hidden_state=text_states if text_states is not None else region_states,
            pooler_output=joined,
            text_last_hidden_state=text_states,
            region_last_hidden_state=region_states,
            text_pooler_output=text_pooled,
            region_pooler_output=region_pooled,
        )


class _Stream:
    """One modality on its way through its layers, unpadded where it has a layout.

    Args:
        layers: of the modality alone.
        hidden: (batch, length, size).
        valid: (batch, length), False in padding.
        pooled: where the last states are read; None for everywhere.
    """

    def __init__(
        self,
        config: MmptDualStreamConfig,
        layers: nn.ModuleList,
        hidden: Tensor,
        valid: Tensor,
        layout: Layout | None,
        pooled: PooledPlaces | None,
    ) -> None:
        self.config, self.layers, self.layout, self.pooled = config, layers, layout, pooled
        self.keys = valid if layout is None else layout.attended
        self.mask = key_mask(config, hidden, self.keys)
        self.hidden = hidden if layout is None else layout.pack(hidden)
        self.places = None if layout is None else layout.computed
        self._done = 0

    def mask_for(self, other: "_Stream") -> Any:
        """Return the mask of these keys for the queries of another stream."""
        return key_mask(self.config, other.hidden, self.keys, self.hidden)

    def run_to(self, stop: int, **kwargs: Any) -> None:
        """Run the layers before number `stop` that have not run yet."""
        self.hidden = run_layers(self.layers[self._done : stop], self.hidden, self.mask, self.layout, **kwargs)
        self._done = stop

    def run_to_the_end(self, **kwargs: Any) -> Tensor:
        """Return (batch, length, size) after all layers."""
        layers = self.layers[self._done :]
        return run_last_layers(layers, self.hidden, self.mask, self.layout, self.pooled, **kwargs)


class MmptDualStreamForPreTraining(MmptForPreTraining):
    """The dual-stream backbone with the pre-training heads."""

    config: MmptDualStreamConfig

    def __init__(self, config: MmptDualStreamConfig) -> None:
        super().__init__(config)
        self.backbone = MmptDualStreamModel(config)
        self.add_heads(region_hidden_size=config.region_hidden_size or config.hidden_size)
        self.post_init()
