"""What both backbones share: their output, their inputs' checks, and the transformers conventions they follow."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.utils import ModelOutput

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.self_contained import SelfContained, saved_class, travels
from mmpt.modeling_mmpt.embeddings import (
    MmptFeatureProjection,
    MmptRegionEmbeddings,
    MmptTextEmbeddings,
    attend_to_some_region,
)
from mmpt.modeling_mmpt.packing import Packing


@dataclass
class MmptModelOutput(ModelOutput):
    """What a backbone returns, the same for both streams; a modality that was not given is None.

    Args:
        last_hidden_state: the joint view: the whole sequence, text first, in the single stream; the text stream in the
            dual. (batch, tokens [+ regions], hidden).
        pooler_output: (batch, pooler_size), what matching reads: the text's pooled vector, or its product or sum with
            the regions' (`pooled_fusion`).
        text_last_hidden_state: (batch, tokens, hidden).
        region_last_hidden_state: (batch, regions, region hidden).
        text_pooler_output: (batch, pooler_size).
        region_pooler_output: (batch, pooler_size), only where `pooled_fusion`, late or hybrid fusion, or a contrastive
            head reads it.
        hidden_states: embeddings and every layer's output of the joint view.
        attentions: weights of every layer of the joint view, (batch, heads, length, length); eager attention only.
        text_hidden_states: embeddings and every layer's output of the text.
        region_hidden_states: the same of the regions.
        text_attentions: text to text, a tensor a layer, (batch, heads, tokens, tokens). In the single stream this and
            the next three are blocks of `attentions`, whose rows sum to 1 only together.
        region_attentions: regions to regions.
        text_to_region_attentions: text queries, region keys (in the dual stream a tensor a co-attention layer).
        region_to_text_attentions: region queries, text keys.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    text_last_hidden_state: Tensor | None = None
    region_last_hidden_state: Tensor | None = None
    text_pooler_output: Tensor | None = None
    region_pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    text_hidden_states: tuple[Tensor, ...] | None = None
    region_hidden_states: tuple[Tensor, ...] | None = None
    text_attentions: tuple[Tensor, ...] | None = None
    region_attentions: tuple[Tensor, ...] | None = None
    text_to_region_attentions: tuple[Tensor, ...] | None = None
    region_to_text_attentions: tuple[Tensor, ...] | None = None


class MmptPooler(nn.Module):
    """Linear and activation on the first position of a stream."""

    def __init__(self, config: MmptConfig, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, config.pooler_size or config.hidden_size)
        self.activation = ACT2FN[config.pooler_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (batch, pooler_size)."""
        return self.activation(self.dense(hidden[:, 0]))


class MmptPreTrainedModel(SelfContained, PreTrainedModel):
    """Loading, saving and initialisation, by transformers' conventions; a saved model carries its code.

    Args:
        auto_name: the Auto class that loads this class from a saved folder.
    """

    config: MmptConfig
    auto_name = "AutoModel"
    base_model_prefix = "backbone"
    input_modalities = ["image", "text"]
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["MmptTextEmbeddings", "MmptRegionEmbeddings", "MmptLayer", "MmptCoAttentionLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # The library calls this only for modules with parameters of their own.
        if isinstance(module, MmptRegionEmbeddings) and module.mask_embedding is not None:
            init.normal_(module.mask_embedding, std=self.config.initializer_range)
        elif isinstance(module, MmptFeatureProjection) and self.config.region_projection_layer_norm:
            # A masked region is a zero vector, so its projection is the bias; at BERT's bias of zero the LayerNorm
            # behind it would multiply gradients by 1 / sqrt(eps), a million.
            init.normal_(module.bias, std=self.config.initializer_range)

    def hub_classes(self) -> dict[str, type]:
        backbone = getattr(self, self.base_model_prefix, self)
        own = saved_class(self)
        return {"AutoConfig": type(self.config), "AutoModel": saved_class(backbone), self.auto_name: own}

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Save with the code, also that of the pipelines which the model has."""
        from mmpt.modeling_mmpt.pipelines_mmpt import custom_pipelines

        if not travels(saved_class(self)):
            return super().save_pretrained(save_directory, *args, **kwargs)
        config: Any = self.config
        known = getattr(config, "custom_pipelines", None)
        own = custom_pipelines(saved_class(self).__name__, config)
        config.custom_pipelines = {**(known or {}), **own}
        try:
            return super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            if known is None:
                del config.custom_pipelines
            else:
                config.custom_pipelines = known

    def saved_state_dict(self) -> dict[str, Tensor]:
        """Return the weights by the names that they have in files."""
        return self.state_dict()

    def set_auto_map(self, auto_map: dict[str, str]) -> None:
        config: Any = self.config
        config.auto_map = auto_map


HEADS = re.compile(r"(heads|classifiers?|fusion|pair_attention|contrastive|region_scorer|query|key)\.")
"""What the weights of the models that have a backbone begin with, beside the backbone's."""


class MmptBackbone(MmptPreTrainedModel):
    """Embeddings, checks and poolers that the two backbones share."""

    text_embeddings: MmptTextEmbeddings
    region_embeddings: MmptRegionEmbeddings
    text_pooler: MmptPooler | None
    region_pooler: MmptPooler | None

    def get_input_embeddings(self) -> nn.Module:
        return self.text_embeddings.word_embeddings

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        super()._adjust_missing_and_unexpected_keys(loading_info)
        # A backbone out of a folder with heads is as asked for. Models with heads would take over
        # `_keys_to_ignore_on_load_unexpected`, and their report must name a head that they leave out.
        loading_info.unexpected_keys = {key for key in loading_info.unexpected_keys if not HEADS.match(key)}

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.text_embeddings.word_embeddings = value

    def _embed(
        self,
        *,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        region_features: Tensor | None,
        region_boxes: Tensor | None,
        region_attention_mask: Tensor | None,
        region_type_ids: Tensor | None,
        masked_regions: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        task_ids: Tensor | None,
    ) -> tuple[tuple[Tensor, Tensor] | None, tuple[Tensor, Tensor] | None]:
        """Return the embedded text with its mask, and the regions with theirs; None for what was not given."""
        if input_ids is not None and inputs_embeds is not None:
            raise MmptValueError("got input_ids and inputs_embeds, expected one of them: they say the same")
        if input_ids is None and inputs_embeds is None and region_features is None:
            raise MmptValueError("got no input, expected input_ids (or inputs_embeds), region_features, or both")
        text = regions = None
        if input_ids is not None or inputs_embeds is not None:
            embedded = self.text_embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, task_ids)
            text = (embedded, text_mask(attention_mask, embedded, task_ids is not None))
        if region_features is not None:
            if region_attention_mask is None:
                shape, device = region_features.shape[:2], region_features.device
                region_attention_mask = torch.ones(shape, dtype=torch.bool, device=device)
            embedded = self.region_embeddings(
                region_features,
                region_boxes,
                region_attention_mask,
                region_type_ids,
                masked_regions,
                self.text_embeddings,
            )
            regions = (embedded, attend_to_some_region(region_attention_mask))
        return text, regions

    def _pool(self, text: Tensor | None, regions: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the pooled vectors of text, of regions, and what matching reads; each (batch, pooler_size)."""
        text_pooled = None if text is None or self.text_pooler is None else self.text_pooler(text)
        region_pooled = None if regions is None or self.region_pooler is None else self.region_pooler(regions)
        if text_pooled is None or region_pooled is None or self.config.pooled_fusion == "text":
            return text_pooled, region_pooled, region_pooled if text_pooled is None else text_pooled
        joined = text_pooled * region_pooled if self.config.pooled_fusion == "mul" else text_pooled + region_pooled
        return text_pooled, region_pooled, joined


def pack_sequences(
    config: MmptConfig, hidden: Tensor, valid: Tensor, read: Tensor | None
) -> tuple[Tensor, Any, Packing | None, Packing | None]:
    """Return the input of encoder layers and its attention mask; packed, with both packings, where `read` is given.

    Flex attention's mask is made for every query, so there nothing is packed.

    Args:
        hidden: (batch, length, hidden).
        valid: (batch, length), False in padding.
        read: (batch, length), True where the encoder's output is read.
    """
    if read is None or config._attn_implementation == "flex_attention":
        return hidden, create_bidirectional_mask(config, hidden, valid), None, None
    packing = Packing(valid | read)
    mask = create_bidirectional_mask(config, hidden[:, : packing.width], packing.close_up(valid))
    if mask is not None and mask.dim() == 4:
        mask = mask[:, :, :1]  # every query attends to the same keys
    return packing.pack(hidden), mask, packing, Packing(read, packing.keep)


def pools_regions(config: MmptConfig) -> bool:
    """Return whether anything reads a pooled vector of the regions."""
    return config.pooled_fusion != "text" or config.fusion != "early" or config.contrastive_size > 0


def returns_states(config: MmptConfig, flags: dict[str, Any]) -> bool:
    """Return whether hidden states or attentions of every layer are asked for, by the call or the configuration.

    Where they are not, the last layer need not be computed where nothing is read. Nor is it when compiling, because the
    number of places depends on the data.
    """
    names = ("output_hidden_states", "output_attentions")
    asked = any(getattr(config, name, False) if flags.get(name) is None else flags[name] for name in names)
    return asked or torch.compiler.is_compiling()


def text_mask(attention_mask: Tensor | None, text: Tensor, has_task: bool) -> Tensor:
    """Return the (batch, tokens) mask of the embedded text, with a place for the task embedding if there is one."""
    if attention_mask is None:
        return torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    attention_mask = attention_mask.bool()
    if has_task:
        attention_mask = torch.cat([attention_mask.new_ones(len(attention_mask), 1), attention_mask], dim=1)
    return attention_mask
