"""Configurations: what they refuse, and that what is saved comes back."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from mmpt.configuration.configuration_mmpt import (
    CLASS_OBJECTIVE_NAMES,
    OBJECTIVE_NAMES,
    MmptConfig,
    MmptDualStreamConfig,
    MmptSingleStreamConfig,
)
from tests.factories.models import tiny_config

PRESETS = {
    "single": MmptSingleStreamConfig(),
    "uniter": MmptSingleStreamConfig.uniter(),
    "visual_bert": MmptSingleStreamConfig.visual_bert(),
    "oscar": MmptSingleStreamConfig.oscar(),
    "volta_uniter": MmptSingleStreamConfig.volta_uniter(),
    "volta_visual_bert": MmptSingleStreamConfig.volta_visual_bert(),
    "dual": MmptDualStreamConfig(),
    "vilbert": MmptDualStreamConfig.vilbert(),
    "lxmert": MmptDualStreamConfig.lxmert(),
    "volta_vilbert": MmptDualStreamConfig.volta_vilbert(),
    "volta_lxmert": MmptDualStreamConfig.volta_lxmert(),
}


@pytest.fixture(params=PRESETS)
def preset(request: pytest.FixtureRequest) -> MmptConfig:
    return PRESETS[request.param]


def test_every_preset_is_tried_here():
    methods = {
        name
        for config_class in (MmptSingleStreamConfig, MmptDualStreamConfig)
        for name, member in vars(config_class).items()
        if isinstance(member, classmethod)
    }
    assert methods == set(PRESETS) - {"single", "dual"}


def test_a_saved_preset_comes_back_field_by_field(preset: MmptConfig, tmp_path: Path):
    preset.save_pretrained(tmp_path)
    loaded = type(preset).from_pretrained(tmp_path)
    # The version of transformers is written by saving; how attention is computed is never saved.
    for item in fields(preset):
        if item.name != "transformers_version":
            assert getattr(loaded, item.name) == getattr(preset, item.name), item.name


def test_the_saved_file_names_type_and_schema(preset: MmptConfig, tmp_path: Path):
    preset.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == preset.model_type
    assert saved["schema_version"] == 1


def test_presets_take_overrides():
    config = MmptSingleStreamConfig.uniter(hidden_size=24, num_attention_heads=4, region_box_dim=4)
    assert (config.hidden_size, config.region_box_dim, config.region_mask_embedding) == (24, 4, True)


def test_two_configurations_never_share_their_weights():
    first, second = MmptSingleStreamConfig(), MmptSingleStreamConfig()
    first.objective_weights["mlm"] = 0.5
    assert second.objective_weights["mlm"] == 1.0


def test_widths_that_are_not_given_follow_the_text_stream():
    config = MmptDualStreamConfig(hidden_size=48, num_attention_heads=3, intermediate_size=50)
    assert (config.pooler_size, config.region_hidden_size, config.co_attention_hidden_size) == (48, 48, 48)
    assert (config.region_num_attention_heads, config.region_intermediate_size) == (3, 50)


def test_unknown_key_names_the_nearest_field():
    with pytest.raises(ValueError, match=r"MmptSingleStreamConfig has no field 'hiden_size'; did you mean 'hidden_siz"):
        MmptSingleStreamConfig(hiden_size=32)


def test_unknown_key_without_a_neighbour_lists_the_fields():
    with pytest.raises(ValueError, match=r"no field 'qqqq'; its fields are .*hidden_size"):
        MmptSingleStreamConfig(qqqq=1)


def test_field_of_the_other_stream_is_refused():
    with pytest.raises(ValueError, match="no field 'text_co_attention_layers'"):
        MmptSingleStreamConfig(text_co_attention_layers=[1])


def test_attribute_that_other_code_set_does_not_make_a_saved_model_unreadable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    config = MmptSingleStreamConfig()
    config.use_cachee = False
    config.save_pretrained(tmp_path)
    monkeypatch.setattr(logging.get_logger(), "propagate", True)
    loaded = MmptSingleStreamConfig.from_pretrained(tmp_path)
    assert loaded.hidden_size == config.hidden_size
    assert "MmptSingleStreamConfig has no field 'use_cachee'" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": "32"}, r"expected int, got str \(value: '32'\)"),
        ({"hidden_dropout_prob": None}, "'hidden_dropout_prob'"),
        ({"region_box_dim": 3}, r"expected one of \(0, 4, 5, 6, 7\), got 3"),
        ({"region_embedding_layer_norm": "both"}, "expected one of"),
        ({"objective_weights": ["mlm"]}, "'objective_weights'"),
        ({"hidden_size": 30}, "hidden_size 30 cannot be split into num_attention_heads 12 equal heads"),
        ({"num_attention_heads": 0}, "num_attention_heads 0 equal heads"),
        ({"region_box_dim": 0, "region_box_octaves": 2}, "region_box_octaves is 2 but region_box_dim is 0"),
        (
            {"region_type_embedding": "shared", "region_token_type_id": 2},
            r"region_token_type_id is 2, expected 0\.\.1: the shared type table has 2 rows",
        ),
        (
            {"region_type_embedding": "own", "region_type_vocab_size": 4, "region_token_type_id": 4},
            r"expected 0\.\.3: the own type table has 4 rows",
        ),
        ({"num_region_classes": 5, "region_background_class": 5}, r"region_background_class is 5, expected 0\.\.4"),
        ({"objective_weights": {"mlmm": 1.0}}, "unknown objective 'mlmm', .*did you mean 'mlm'"),
        ({"objective_weights": {"mlm": -1.0}}, "weight of objective 'mlm' is -1.0, expected 0 or more"),
        ({"objective_weights": {"qa": 1.0}}, "objective 'qa' is on but num_qa_labels is 0; set num_qa_labels"),
        ({"objective_weights": {"mrc_attribute": 1.0}}, "on but num_region_attributes is 0"),
        ({"schema_version": 2}, "schema_version 2, this mmpt reads 1 and older; install a newer mmpt"),
    ],
)
def test_value_that_does_not_fit_is_refused(values: dict[str, Any], message: str):
    with pytest.raises(StrictDataclassError, match=message):
        MmptSingleStreamConfig(**values)


@pytest.mark.parametrize("name", CLASS_OBJECTIVE_NAMES)
def test_class_objectives_need_classes(name: str):
    with pytest.raises(StrictDataclassError, match=f"objective '{name}' is on but num_region_classes is 0"):
        MmptSingleStreamConfig(num_region_classes=0, region_background_class=None, objective_weights={name: 1.0})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"region_num_attention_heads": 5}, "region_hidden_size 12 cannot be split into region_num_attention_heads 5"),
        ({"co_attention_num_heads": 3}, "co_attention_hidden_size 8 cannot be split into co_attention_num_heads 3"),
        ({"share_co_attention": True}, "share_co_attention needs streams of one width, got hidden_size 16 and"),
        ({"region_embedding_layer_norm": "shared"}, "region_embedding_layer_norm='shared' needs streams of one width"),
        ({"region_type_embedding": "shared"}, "region_type_embedding='shared' needs streams of one width"),
        ({"text_co_attention_layers": [1]}, "text_co_attention_layers has 1 entries and region_co_attention_layers 2"),
        ({"text_co_attention_layers": [2, 1]}, r"is \[2, 1\], expected ascending numbers in 0\.\.2"),
        ({"region_co_attention_layers": [0, 4]}, r"expected ascending numbers in 0\.\.3 \(the stream has 3 layers\)"),
        ({"text_co_attention_layers": [-1, 1]}, "expected ascending numbers"),
    ],
)
def test_dual_stream_that_does_not_fit_is_refused(values: dict[str, Any], message: str):
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config("dual", **values)


def test_value_that_does_not_fit_is_refused_when_saving(tmp_path: Path):
    config = MmptSingleStreamConfig()
    config.hidden_size = 30
    with pytest.raises(StrictDataclassError, match="cannot be split"):
        config.save_pretrained(tmp_path)


def test_every_objective_is_on_by_default():
    assert tuple(MmptSingleStreamConfig().objective_weights) == OBJECTIVE_NAMES
