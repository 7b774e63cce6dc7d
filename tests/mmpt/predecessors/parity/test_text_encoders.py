"""Text encoders of transformers as a start: the text part computes what they compute, the rest is named as missing."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from mmpt.predecessors.conversion import from_predecessor, plan_conversion

SIZES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
TYPES = ("Bert", "Roberta", "XLMRoberta", "Camembert", "Data2VecText", "Ernie", "Electra", "DistilBert")


def encoder(name: str, tmp_path: Path, suffix: str = "ForMaskedLM") -> Any:
    sizes = SIZES | ({"embedding_size": 32} if name == "Electra" else {})
    sizes["hidden_dim" if name == "DistilBert" else "intermediate_size"] = 64
    model = getattr(transformers, name + suffix)(getattr(transformers, f"{name}Config")(**sizes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "theirs")
    return model


@pytest.mark.parametrize("name", TYPES)
def test_text_alone_gives_the_encoders_states_and_logits(name: str, tmp_path: Path):
    theirs = encoder(name, tmp_path)
    ours = from_predecessor(tmp_path / "theirs", family="bert")
    ids = torch.randint(5, 100, (2, 7), generator=torch.Generator().manual_seed(0))
    # Padding on the right: RoBERTa counts positions of what is no padding.
    ids[1, 4:] = theirs.config.pad_token_id
    mask = (ids != theirs.config.pad_token_id).long()
    states = theirs.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    logits = theirs(input_ids=ids, attention_mask=mask).logits
    valid = mask.bool()
    found = ours.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[valid], states[valid], **CLOSE)
    torch.testing.assert_close(ours(input_ids=ids, attention_mask=mask).mlm_logits[valid], logits[valid], **CLOSE)


def test_what_is_left_random_is_reported(tmp_path: Path):
    encoder("Bert", tmp_path, "ForPreTraining")
    report = plan_conversion(tmp_path / "theirs", family="bert", preset="uniter").report
    missing = {key.ours for key in report.of("missing")}
    assert "heads.matching.weight" in missing
    assert "backbone.region_embeddings.feature_projection.weight" in missing
    assert not any(key.startswith("backbone.layers.") for key in missing if key)
    assert {key.theirs for key in report.of("dropped")} == {"cls.seq_relationship.weight", "cls.seq_relationship.bias"}


def test_both_streams_start_from_one_encoder(tmp_path: Path):
    encoder("Bert", tmp_path)
    weights = load_file(tmp_path / "theirs/model.safetensors")
    ours = from_predecessor(
        tmp_path / "theirs", family="bert", preset="vilbert", region_hidden_size=32, region_num_attention_heads=4
    )
    state = ours.state_dict()
    for number in range(2):
        theirs = weights[f"bert.encoder.layer.{number}.output.dense.weight"]
        assert torch.equal(state[f"backbone.text_layers.{number}.feed_forward.down.weight"], theirs)
    missing = {key.ours for key in ours.conversion_report.of("missing")}
    assert "backbone.text_layers.2.feed_forward.down.weight" in missing  # ViLBERT has twelve layers, this encoder two
    assert "backbone.region_layers.0.attention.query.weight" in missing
    assert all(torch.isfinite(value).all() for value in state.values())


def test_visual_bert_starts_types_and_positions_of_regions_as_those_of_text(tmp_path: Path):
    encoder("Bert", tmp_path)
    weights = load_file(tmp_path / "theirs/model.safetensors")
    state = from_predecessor(tmp_path / "theirs", family="bert", preset="visual_bert").state_dict()
    for name in ("token_type", "position"):
        theirs = weights[f"bert.embeddings.{name}_embeddings.weight"]
        assert torch.equal(state[f"backbone.region_embeddings.{name}_embeddings.weight"], theirs)


def test_layers_beyond_those_of_the_text_stream_are_dropped(tmp_path: Path):
    encoder("Bert", tmp_path)
    report = plan_conversion(tmp_path / "theirs", family="bert", num_hidden_layers=1).report
    dropped = {key.theirs for key in report.of("dropped")}
    assert "bert.encoder.layer.1.output.dense.weight" in dropped
    assert not any(key.startswith("bert.encoder.layer.0.") for key in dropped if key)


def test_other_encoders_are_refused(tmp_path: Path):
    encoder("MPNet", tmp_path)
    with pytest.raises(
        ValueError, match=r"this encoder does not have BERT's architecture\. Supported are BERT, RoBERTa"
    ):
        plan_conversion(tmp_path / "theirs", family="bert")
    with pytest.raises(ValueError, match=r"of no known family: .*mpnet\.encoder\.relative_attention_bias"):
        plan_conversion(tmp_path / "theirs")
    path = tmp_path / "narrow.safetensors"
    names = ("embeddings.position_embeddings", "embeddings.token_type_embeddings", "embeddings.word_embeddings")
    layer = {
        f"encoder.layer.0.{name}.weight": torch.ones(8, 8) for name in ("attention.self.query", "intermediate.dense")
    }
    save_file({f"{name}.weight": torch.ones(9, 4) for name in names} | layer, path)
    with pytest.raises(ValueError, match="embeddings have width 4 and layers width 8"):
        plan_conversion(path)
    with pytest.raises(ValueError, match="unknown preset 'bart', expected one of uniter"):
        plan_conversion(path, preset="bart")
