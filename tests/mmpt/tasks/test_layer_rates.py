"""Learning rates by depth and freezing: every parameter once, from the embeddings up."""

import pytest

from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig
from mmpt.tasks.layer_rates import block_depths, depth_of, freeze_parameters, parameter_groups
from mmpt.tasks.table import TASKS
from tests.factories.tasks import config, model


@pytest.mark.parametrize("stream", ["single", "dual"])
@pytest.mark.parametrize("name", ["vqa", "retrieval", "phrases"])
def test_every_parameter_is_in_one_group_with_the_rate_of_its_depth(name: str, stream: str) -> None:
    task_model = model(name, stream)
    names = {parameter: name for name, parameter in task_model.named_parameters() if parameter.requires_grad}
    decayed = [name for name in names.values() if name.endswith("weight")]
    groups = parameter_groups(
        task_model, decayed, learning_rate=0.1, weight_decay=0.01, layer_decay=0.5, head_factor=3.0
    )
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len(names)
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in names}
    rates = {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}
    deepest = max(block_depths(task_model.config).values())
    for parameter, rate in rates.items():
        if not parameter.startswith("backbone."):
            assert rate == pytest.approx(0.3)
        elif "pooler" in parameter:
            assert rate == pytest.approx(0.1)
        elif "embeddings" in parameter:
            assert rate == pytest.approx(0.1 * 0.5 ** (deepest + 1))
    decays = {names[parameter]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert all((value > 0) == parameter.endswith("weight") for parameter, value in decays.items())


def test_depth_counts_the_blocks_of_the_single_stream() -> None:
    task_model = model("vqa")
    depths = block_depths(task_model.config)
    assert depth_of("backbone.text_embeddings.word_embeddings.weight", depths) == 0
    assert depth_of("backbone.layers.1.attention.query.weight", depths) == 2
    assert depth_of("backbone.text_pooler.dense.weight", depths) == 3
    with pytest.raises(ValueError, match="is in no block of the backbone"):
        depth_of("backbone.other.weight", depths)


def test_co_attention_is_above_its_inputs() -> None:
    # As LXMERT: 3 text layers and 1 of regions, then co-attention, a layer a stream, co-attention, a layer a stream.
    dual = MmptDualStreamConfig(
        num_hidden_layers=5,
        region_num_hidden_layers=3,
        text_co_attention_layers=[3, 4],
        region_co_attention_layers=[1, 2],
    )
    depths = block_depths(dual)
    assert [depths[f"backbone.text_layers.{i}."] for i in range(5)] == [1, 2, 3, 5, 7]
    assert [depths[f"backbone.region_layers.{i}."] for i in range(3)] == [1, 5, 7]
    assert [depths[f"backbone.co_attention_layers.{i}."] for i in range(2)] == [4, 6]


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        (None, set()),
        ("embeddings", {"text_embeddings", "region_embeddings"}),
        (0, {"text_embeddings", "region_embeddings"}),
        (1, {"text_embeddings", "region_embeddings", "layers.0"}),
        ("backbone", {"text_embeddings", "region_embeddings", "layers.0", "layers.1", "text_pooler"}),
    ],
)
def test_freezing_stops_exactly_what_it_names(freeze: object, frozen: set[str]) -> None:
    task_model = model("vqa")
    learning = freeze_parameters(task_model, freeze)  # type: ignore[arg-type]
    prefixes = tuple(f"backbone.{name}." for name in frozen)
    for name, parameter in task_model.named_parameters():
        assert parameter.requires_grad != name.startswith(prefixes or "-"), name
    assert learning == sum(p.numel() for p in task_model.parameters() if p.requires_grad) > 0
    groups = parameter_groups(task_model, [], learning_rate=1.0, weight_decay=0.0)
    assert sum(p.numel() for group in groups for p in group["params"]) == learning


@pytest.mark.parametrize("freeze", [-1, 3, "head"])
def test_freezing_what_is_not_there_is_refused(freeze: object) -> None:
    with pytest.raises(ValueError, match=r"expected 'backbone', 'embeddings', a number of levels in 0\.\.2"):
        freeze_parameters(model("vqa"), freeze)  # type: ignore[arg-type]


def test_every_task_model_of_either_stream_has_known_blocks() -> None:
    for name in TASKS:
        for stream in ("single", "dual"):
            depths = block_depths(config(name, stream))
            for parameter, _ in model(name, stream).named_parameters():
                depth_of(parameter, depths)
