"""What both backbones share: their output, their inputs' checks, and the transformers conventions they follow."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    create_bidirectional_mask,
    eager_mask,
    flash_attention_mask,
    sdpa_mask,
)
from transformers.utils import ModelOutput

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.self_contained import SelfContained, saved_class, travels
from mmpt.modeling_mmpt.embeddings import (
    MmptFeatureProjection,
    MmptRegionEmbeddings,
    MmptTextEmbeddings,
    MmptTiedFeatureProjection,
    SharedTextModules,
    attend_to_some_region,
)
from mmpt.modeling_mmpt.input_checks import LAYOUT_INPUTS, check_inputs, values_are_known
from mmpt.modeling_mmpt.unpadding import without_layout

Reads = Literal["all", "pooled", "labelled"]
"""Where a backbone's last states are read: everywhere, in the places that are pooled, or there and at labels."""


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
    """Linear and activation on the first valid position of a stream."""

    def __init__(self, config: MmptConfig, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, config.pooler_size or config.hidden_size)
        self.activation = ACT2FN[config.pooler_act]

    def forward(self, hidden: Tensor, firsts: Tensor | None = None) -> Tensor:
        """Return (batch, pooler_size).

        Args:
            firsts: (batch,), the first valid position of each row; 0 by default.
        """
        first = hidden[:, 0] if firsts is None else hidden[torch.arange(hidden.shape[0], device=hidden.device), firsts]
        return self.activation(self.dense(first))


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
    # Only what is read through its own forward: FSDP splits these. Embeddings are read by heads and by each other.
    _no_split_modules = ["MmptLayer", "MmptCoAttentionLayer"]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if getattr(self, "_is_replica", False):
            # torch's DataParallel chunks the flat tensors of a layout, which then belong to no rows.
            kwargs = without_layout(kwargs)
        return super().__call__(*args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # The library calls this only for modules with parameters of their own.
        if isinstance(module, MmptRegionEmbeddings) and module.mask_embedding is not None:
            init.normal_(module.mask_embedding, std=self.config.initializer_range)
        if isinstance(module, MmptTiedFeatureProjection):
            init.normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)
        projections = (MmptFeatureProjection, MmptTiedFeatureProjection)
        if isinstance(module, projections) and self.config.region_projection_layer_norm:
            # A masked region is a zero vector, so its projection is the bias; at BERT's bias of zero the LayerNorm
            # behind it would multiply gradients by 1 / sqrt(eps), a million.
            init.normal_(module.bias, std=self.config.initializer_range)

    def post_init(self) -> None:
        super().post_init()
        # accelerate looks for each of these classes in the model and stops where one is not there.
        self._no_split_modules = set(self._no_split_modules or ()) & {
            type(module).__name__ for module in self.modules()
        }

    def unread_modules(self) -> Iterable[nn.Module]:
        """Return the modules whose weights no loss of this model depends on."""
        return ()

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Tie the weights as transformers does, after building and after loading, and freeze what no loss reads.

        A weight without a gradient stops DDP, which waits for it, and one with a gradient of zeros would decay.
        """
        super().tie_weights(*args, **kwargs)
        for module in self.unread_modules():
            module.requires_grad_(False)

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

    def unread_parts(self, text: bool, regions: bool, pooled: bool, alone: bool = False) -> list[nn.Module]:
        """Return what no output depends on, where some are read.

        Args:
            text: the states of the text are read, or its pooled vector.
            regions: those of the regions.
            pooled: the joined pooled vector is read.
            alone: each modality is encoded by itself as well, and its pooled vector read.
        """
        pools_both = pooled and self.config.pooled_fusion != "text"
        poolers = [None if pooled else self.text_pooler, None if pools_both else self.region_pooler]
        parts: list[nn.Module] = [pooler for pooler in poolers if pooler is not None]
        if not (text or pooled):
            parts += self._unread_by_regions()
        if not (regions or pools_both):
            parts += self._unread_by_text()
        joining = set(getattr(self, "co_attention_layers", nn.Module()).modules())
        return [part for part in parts if part in joining] if alone else parts

    def _unread_by_regions(self) -> Iterable[nn.Module]:
        """Return what the last states of the regions do not depend on."""
        raise NotImplementedError

    def _unread_by_text(self) -> Iterable[nn.Module]:
        """Return what the last states of the text do not depend on."""
        raise NotImplementedError

    def _text_alone(self) -> list[nn.Module]:
        """Return the parts of the text's embeddings that regions do not share."""
        text, config = self.text_embeddings, self.config
        shared = [text.token_type_embeddings] if config.region_type_embedding == "shared" else []
        shared += [text.layer_norm] if config.region_embedding_layer_norm == "shared" else []
        return [part for part in text.children() if part not in shared]

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
        given = dict(
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
        check_inputs(self, given)
        if input_ids is not None and inputs_embeds is not None:
            raise MmptValueError("got input_ids and inputs_embeds, expected one of them: they say the same")
        if input_ids is None and inputs_embeds is None and region_features is None:
            raise MmptValueError("got no input, expected input_ids (or inputs_embeds), region_features, or both")
        text = regions = None
        if input_ids is not None or inputs_embeds is not None:
            firsts = None if attention_mask is None or position_ids is not None else first_places(attention_mask)
            if firsts is not None and attention_mask is not None:
                # Padding on the left moves no token: the first one has position 0.
                places = torch.arange(attention_mask.shape[1], device=firsts.device)
                position_ids = (places - firsts[:, None]).clamp(min=0)
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
                SharedTextModules(self.text_embeddings.token_type_embeddings, self.text_embeddings.layer_norm),
            )
            regions = (embedded, attend_to_some_region(region_attention_mask))
        return text, regions

    def _pool(
        self,
        text: Tensor | None,
        regions: Tensor | None,
        text_firsts: Tensor | None = None,
        region_firsts: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the pooled vectors of text, of regions, and what matching reads; each (batch, pooler_size)."""
        text_pooled = region_pooled = None
        if text is not None and self.text_pooler is not None:
            text_pooled = self.text_pooler(text, text_firsts)
        if regions is not None and self.region_pooler is not None:
            region_pooled = self.region_pooler(regions, region_firsts)
        if text_pooled is None or region_pooled is None or self.config.pooled_fusion == "text":
            return text_pooled, region_pooled, region_pooled if text_pooled is None else text_pooled
        joined = text_pooled * region_pooled if self.config.pooled_fusion == "mul" else text_pooled + region_pooled
        return text_pooled, region_pooled, joined


def key_mask(config: MmptConfig, queries: Tensor, valid: Tensor, context: Tensor | None = None) -> Any:
    """Return the mask of keys as the attention implementation takes it, for any number of queries; None for no mask.

    transformers' own is made after a look at its numbers, for which a GPU has to be waited for.

    Args:
        queries: (batch, queries, size).
        valid: (batch, keys), True where keys are attended to.
        context: (batch, keys, size), if the queries are not of the same sequence.
    """
    makes: Any = ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation or "eager"]
    if makes not in (eager_mask, sdpa_mask, flash_attention_mask):
        return create_bidirectional_mask(config, queries, valid, encoder_hidden_states=context)
    if values_are_known(valid) and bool(valid.all()):
        return None
    if makes is flash_attention_mask:
        return valid
    mask = valid[:, None, None]
    if makes is sdpa_mask:
        return mask
    lowest = torch.finfo(queries.dtype).min
    return torch.zeros(mask.shape, dtype=queries.dtype, device=queries.device).masked_fill(~mask, lowest)


def take_layout(
    config: MmptConfig, flags: dict[str, Any], reads: Reads, has_task: bool
) -> tuple[dict[str, Tensor], Reads]:
    """Take the layout of the batch out of `flags`; return what of it is used, and where states are read.

    Hidden states and attentions of every layer are padded and whole, flex attention's mask is made for every query,
    and no layout knows of a task embedding.
    """
    given = {name: flags.pop(name) for name in LAYOUT_INPUTS if name in flags}
    if reads not in ("all", "pooled", "labelled"):
        raise MmptValueError(f"reads is {reads!r}, expected 'all', 'pooled' or 'labelled'")
    if returns_states(config, flags) or config._attn_implementation == "flex_attention":
        return {}, "all"
    return {} if has_task else given, reads


def pools_regions(config: MmptConfig) -> bool:
    """Return whether anything reads a pooled vector of the regions."""
    return config.pooled_fusion != "text" or config.fusion != "early" or config.contrastive_size > 0


def returns_states(config: MmptConfig, flags: dict[str, Any]) -> bool:
    """Return whether hidden states or attentions of every layer are asked for, by the call or the configuration.

    Where they are not, nothing need be computed where no head reads it.
    """
    names = ("output_hidden_states", "output_attentions")
    return any(getattr(config, name, False) if flags.get(name) is None else flags[name] for name in names)


def text_mask(attention_mask: Tensor | None, text: Tensor, has_task: bool) -> Tensor:
    """Return the (batch, tokens) mask of the embedded text, with a place for the task embedding if there is one."""
    if attention_mask is None:
        return torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    attention_mask = attention_mask.bool()
    if has_task:
        task = attention_mask.new_ones(attention_mask.shape[0], 1)
        attention_mask = torch.cat([attention_mask[:, :1], task, attention_mask[:, 1:]], dim=1)
    return attention_mask


def first_places(mask: Tensor, has_task: bool = False) -> Tensor | None:
    """Return (batch,), the first valid place of each row; None where it is known to be 0 in all rows.

    Args:
        mask: (batch, length).
        has_task: place 1 is a task embedding, which is not the first token of a text.
    """
    valid = mask.bool()
    if values_are_known(valid) and valid[:, 0].all():
        return None
    if has_task:
        valid = valid & (torch.arange(valid.shape[1], device=valid.device) != 1)
    return valid.int().argmax(1)
