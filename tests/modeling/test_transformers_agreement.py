"""Our models compute what transformers' BERT, LXMERT and VisualBERT compute, with random weights copied over."""

import re

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForPreTraining,
    LxmertConfig,
    LxmertForPreTraining,
    VisualBertConfig,
    VisualBertForPreTraining,
)

from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining
from tests.factories.models import BATCH, CLASSES, FEATURE, HIDDEN, REGIONS, SIZES, TOKENS, VOCABULARY, tiny_batch

ATTRIBUTES, ANSWERS = 5, 9
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}

# Our names to theirs, applied in order; the first rows are BERT's, which all three have.
LAYER = [
    (r"\battention\.(query|key|value)", r"attention.self.\1"),
    (r"\battention\.output", "attention.output.dense"),
    (r"attention_layer_norm", "attention.output.LayerNorm"),
    (r"feed_forward\.up", "intermediate.dense"),
    (r"feed_forward\.down", "output.dense"),
    (r"feed_forward\.layer_norm", "output.LayerNorm"),
]
BERT = [
    (r"^backbone\.text_embeddings\.layer_norm", "bert.embeddings.LayerNorm"),
    (r"^backbone\.text_embeddings", "bert.embeddings"),
    (r"^backbone\.layers", "bert.encoder.layer"),
    (r"^backbone\.text_pooler", "bert.pooler"),
    (r"^heads\.token\.transform\.dense", "cls.predictions.transform.dense"),
    (r"^heads\.token\.transform\.layer_norm", "cls.predictions.transform.LayerNorm"),
    (r"^heads\.token\.decoder\.weight", "cls.predictions.decoder.weight"),
    (r"^heads\.token\.decoder\.bias", "cls.predictions.bias"),
    (r"^heads\.matching", "cls.seq_relationship"),
    *LAYER,
]
VISUAL_BERT = [
    (r"^backbone\.region_embeddings\.feature_projection", "visual_bert.embeddings.visual_projection"),
    (r"^backbone\.region_embeddings\.token_type", "visual_bert.embeddings.visual_token_type"),
    (r"^backbone\.region_embeddings\.position", "visual_bert.embeddings.visual_position"),
    *((ours, theirs.replace("bert.", "visual_bert.")) for ours, theirs in BERT),
]
# LXMERT's cross-modality layer k is our shared co-attention k and one ordinary layer of either stream behind it.
LXMERT = [
    (r"^backbone\.region_embeddings\.feature_projection", "lxmert.encoder.visn_fc.visn_fc"),
    (r"^backbone\.region_embeddings\.box_projection", "lxmert.encoder.visn_fc.box_fc"),
    (r"^backbone\.region_embeddings\.feature_layer_norm", "lxmert.encoder.visn_fc.visn_layer_norm"),
    (r"^backbone\.region_embeddings\.box_layer_norm", "lxmert.encoder.visn_fc.box_layer_norm"),
    (r"^backbone\.co_attention_layers\.(\d)\.text_layer_norm", r"x_layers.\1.visual_attention.output.LayerNorm"),
    (
        r"^backbone\.co_attention_layers\.(\d)\.text_attention\.output",
        r"x_layers.\1.visual_attention.output.dense",
    ),
    (r"^backbone\.co_attention_layers\.(\d)\.text_attention", r"x_layers.\1.visual_attention.att"),
    (r"^backbone\.text_layers\.([01])", r"lxmert.encoder.layer.\1"),
    (r"^backbone\.region_layers\.0", "lxmert.encoder.r_layers.0"),
    (r"^backbone\.text_layers\.2\.", "x_layers.0.lang_"),
    (r"^backbone\.text_layers\.3\.", "x_layers.1.lang_"),
    (r"^backbone\.region_layers\.1\.", "x_layers.0.visn_"),
    (r"^backbone\.region_layers\.2\.", "x_layers.1.visn_"),
    (r"(lang|visn)_attention\.(query|key|value)", r"\1_self_att.self.\2"),
    (r"(lang|visn)_attention\.output", r"\1_self_att.output.dense"),
    (r"(lang|visn)_attention_layer_norm", r"\1_self_att.output.LayerNorm"),
    (r"(lang|visn)_feed_forward\.up", r"\1_inter.dense"),
    (r"(lang|visn)_feed_forward\.down", r"\1_output.dense"),
    (r"(lang|visn)_feed_forward\.layer_norm", r"\1_output.LayerNorm"),
    (r"^x_layers", "lxmert.encoder.x_layers"),
    (r"^heads\.region_transform\.dense", "obj_predict_head.transform.dense"),
    (r"^heads\.region_transform\.layer_norm", "obj_predict_head.transform.LayerNorm"),
    (r"^heads\.region_class\.decoder", "obj_predict_head.decoder_dict.obj"),
    (r"^heads\.region_attribute\.decoder", "obj_predict_head.decoder_dict.attr"),
    (r"^heads\.region_feature\.decoder", "obj_predict_head.decoder_dict.feat"),
    (r"^heads\.answer\.transform\.dense", "answer_head.logit_fc.0"),
    (r"^heads\.answer\.transform\.layer_norm", "answer_head.logit_fc.2"),
    (r"^heads\.answer\.decoder", "answer_head.logit_fc.3"),
    *((ours, theirs.replace("bert.", "lxmert.")) for ours, theirs in BERT),
]


def randomise(model: nn.Module) -> None:
    """Fill every weight, biases and norms included; those that are tied stay so."""
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=draw)


def copy_weights(ours: nn.Module, theirs: nn.Module, names: list[tuple[str, str]]) -> set[str]:
    """Copy every weight of theirs to ours by name, and return the names of theirs that were not read."""
    source = theirs.state_dict()
    renamed = {}
    for name in ours.state_dict():
        their_name = name
        for pattern, replacement in names:
            their_name = re.sub(pattern, replacement, their_name)
        renamed[name] = their_name
    assert len(set(renamed.values())) == len(renamed)
    ours.load_state_dict({name: source[their_name] for name, their_name in renamed.items()}, strict=True)
    return set(source) - set(renamed.values())


def assert_valid_close(ours: Tensor, theirs: Tensor, mask: Tensor) -> None:
    """Compare at valid positions; what stands in padding is nobody's promise."""
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], **TOLERANCE)


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return tiny_batch()


def test_text_alone_agrees_with_bert(batch: dict[str, Tensor]):
    sizes = {name: value for name, value in SIZES.items() if "region" not in name}
    theirs = BertForPreTraining(BertConfig(**sizes)).eval()
    randomise(theirs)
    ours = MmptSingleStreamForPreTraining(
        MmptSingleStreamConfig(**SIZES, objective_weights={"mlm": 1.0, "itm": 1.0})
    ).eval()
    # What belongs to regions has no counterpart: it is read from ours.
    theirs_and_regions = nn.ModuleDict({"backbone": nn.ModuleDict()})
    theirs_and_regions["backbone"].add_module("region_embeddings", ours.backbone.region_embeddings)
    for name, module in theirs.named_children():
        theirs_and_regions.add_module(name, module)
    assert copy_weights(ours, theirs_and_regions, BERT) == {"cls.predictions.decoder.bias"}

    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    expected = theirs.bert(**inputs)
    actual = ours.backbone(**inputs)
    assert_valid_close(actual.text_last_hidden_state, expected.last_hidden_state, inputs["attention_mask"])
    torch.testing.assert_close(actual.pooler_output, expected.pooler_output, **TOLERANCE)
    logits = theirs(**inputs)
    output = ours(**inputs)
    assert_valid_close(output.mlm_logits, logits.prediction_logits, inputs["attention_mask"])
    torch.testing.assert_close(output.itm_logits, logits.seq_relationship_logits, **TOLERANCE)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_visual_bert_agrees(batch: dict[str, Tensor], attention: str):
    sizes = {name: value for name, value in SIZES.items() if "region" not in name}
    theirs = VisualBertForPreTraining(VisualBertConfig(**sizes, visual_embedding_dim=FEATURE)).eval()
    randomise(theirs)
    sizes = {name: value for name, value in SIZES.items() if name != "num_region_classes"}
    ours = MmptSingleStreamForPreTraining._from_config(
        MmptSingleStreamConfig.visual_bert(**sizes), attn_implementation=attention
    ).eval()
    unread = copy_weights(ours, theirs, VISUAL_BERT)
    assert unread <= {"cls.predictions.decoder.bias", "visual_bert.embeddings.position_ids"}

    text = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    visual = {"visual_embeds": batch["region_features"], "visual_attention_mask": batch["region_attention_mask"]}
    expected = theirs(**text, **visual, output_hidden_states=True)
    mask = torch.cat([batch["attention_mask"], batch["region_attention_mask"]], dim=1)
    actual = ours.backbone(**batch, output_hidden_states=True)
    assert len(actual.hidden_states) == len(expected.hidden_states)
    for our_state, their_state in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert_valid_close(our_state, their_state, mask)
    output = ours(**batch)
    text_logits = expected.prediction_logits[:, :TOKENS]
    assert_valid_close(output.mlm_logits, text_logits, batch["attention_mask"])
    torch.testing.assert_close(output.itm_logits, expected.seq_relationship_logits, **TOLERANCE)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_lxmert_agrees(batch: dict[str, Tensor], attention: str):
    sizes = {
        name: value
        for name, value in SIZES.items()
        if "region" not in name and name not in ("num_hidden_layers", "initializer_range")
    }
    theirs = LxmertForPreTraining(
        LxmertConfig(
            **sizes,
            l_layers=2,
            r_layers=1,
            x_layers=2,
            visual_feat_dim=FEATURE,
            visual_pos_dim=4,
            num_object_labels=CLASSES,
            num_attr_labels=ATTRIBUTES,
            num_qa_labels=ANSWERS,
        )
    ).eval()
    randomise(theirs)
    config = MmptDualStreamConfig.lxmert(
        **(SIZES | {"num_hidden_layers": 4}),
        num_region_attributes=ATTRIBUTES,
        num_qa_labels=ANSWERS,
        region_num_hidden_layers=3,
        text_co_attention_layers=[2, 3],
        region_co_attention_layers=[1, 2],
    )
    ours = MmptDualStreamForPreTraining._from_config(config, attn_implementation=attention).eval()
    assert copy_weights(ours, theirs, LXMERT) == set()

    inputs = {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "token_type_ids": batch["token_type_ids"],
        "visual_feats": batch["region_features"],
        "visual_pos": batch["region_boxes"],
        "visual_attention_mask": batch["region_attention_mask"],
    }
    expected = theirs.lxmert(**inputs)
    actual = ours.backbone(**batch)
    assert_valid_close(actual.text_last_hidden_state, expected.language_output, batch["attention_mask"])
    assert_valid_close(actual.region_last_hidden_state, expected.vision_output, batch["region_attention_mask"])
    torch.testing.assert_close(actual.pooler_output, expected.pooled_output, **TOLERANCE)

    logits = theirs(**inputs)
    output = ours(**batch)
    assert_valid_close(output.mlm_logits, logits.prediction_logits, batch["attention_mask"])
    torch.testing.assert_close(output.itm_logits, logits.cross_relationship_score, **TOLERANCE)
    torch.testing.assert_close(output.qa_logits, logits.question_answering_score, **TOLERANCE)
    by_hand = theirs.obj_predict_head(expected.vision_output)
    for our_logits, name in (
        (output.mrc_logits, "obj"),
        (output.mrc_attribute_logits, "attr"),
        (output.mrfr_prediction, "feat"),
    ):
        assert_valid_close(our_logits, by_hand[name], batch["region_attention_mask"])
    assert output.mlm_logits.shape == (BATCH, TOKENS, VOCABULARY)
    assert output.mrfr_prediction.shape == (BATCH, REGIONS, FEATURE)
    assert actual.region_last_hidden_state.shape == (BATCH, REGIONS, HIDDEN)
