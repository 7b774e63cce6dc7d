"""Each weight of a model gets a gradient from its loss, or is frozen: what DDP needs to look for no unused ones."""

from typing import Any

import pytest
import torch
from torch import nn

from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES
from mmpt.configuration.errors import MmptValueError
from tests.factories.models import STREAMS, tiny_batch, tiny_labels, tiny_pretraining
from tests.factories.task_models import CASES as TASK_CASES
from tests.factories.task_models import task_batch, task_labels, tiny_task

SUBSETS = [(name,) for name in OBJECTIVE_NAMES] + [("mlm", "itm"), ("mrc", "mrfr"), ("mrc_kl", "itm"), ("mlm", "mrc")]
# All that decides which weights a loss reads: shared parts, directions of co-attention, pooled vectors.
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "single": {
        "default": {},
        "shared": {"region_type_embedding": "shared", "region_embedding_layer_norm": "shared"},
        "mask": {"region_mask_embedding": True, "tie_region_feature_decoder": True, "region_position_embedding": True},
        "sum": {"pooled_fusion": "sum"},
        "no layers": {"num_hidden_layers": 0},
    },
    "dual": {
        "default": {},
        "one set of weights": {
            "share_co_attention": True,
            "co_attention_feed_forward": False,
            "region_hidden_size": 16,
            "region_num_attention_heads": 2,
        },
        "shared": {
            "region_type_embedding": "shared",
            "region_embedding_layer_norm": "shared",
            "region_hidden_size": 16,
            "region_num_attention_heads": 2,
        },
        "mul": {"pooled_fusion": "mul"},
        "last place": {"text_co_attention_layers": [0, 2], "region_co_attention_layers": [0, 3]},
        "no co-attention": {"text_co_attention_layers": [], "region_co_attention_layers": []},
    },
}
CASES = [(stream, name) for stream in STREAMS for name in MODELS[stream]]


def grouped(model: nn.Module) -> tuple[set[str], set[str]]:
    """Return the names of the weights without a gradient, and of the frozen ones."""
    weights = dict(model.named_parameters())
    return {n for n, w in weights.items() if w.grad is None}, {n for n, w in weights.items() if not w.requires_grad}


@pytest.mark.parametrize("fusion", ["early", "late", "hybrid"])
@pytest.mark.parametrize(("stream", "name"), CASES)
def test_a_weight_has_a_gradient_or_is_frozen(stream: str, name: str, fusion: str):
    batch, labels = tiny_batch(), tiny_labels()
    for objectives in SUBSETS:
        if fusion == "late" and "itm" in objectives:
            continue  # refused
        model = tiny_pretraining(
            stream, objective_weights=dict.fromkeys(objectives, 1.0), fusion=fusion, **MODELS[stream][name]
        ).train()
        model(**batch, **{f"{o}_labels": labels[f"{o}_labels"] for o in objectives}).loss.backward()
        without, frozen = grouped(model)
        assert without == frozen, objectives


TASK_SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("Classification", {"pooled_fusion": "mul"}),
    ("QuestionAnswering", {"answer_reads": "second_last_token"}),
    ("ImagesAnd", {"image_pair": "pair_attention"}),
    ("Retrieval", {"contrastive_size": 8}),
]


@pytest.mark.parametrize("fusion", ["early", "late", "hybrid"])
@pytest.mark.parametrize(("stream", "task"), TASK_CASES)
def test_a_weight_of_a_task_model_has_a_gradient_or_is_frozen(stream: str, task: str, fusion: str):
    for part, settings in TASK_SETTINGS:
        if part not in task:
            continue
        try:
            model = tiny_task(stream, task, fusion=fusion, late_fusion="learned", **settings).train()
        except MmptValueError:
            assert fusion != "early"  # a task that one modality cannot do
            continue
        model(**task_batch(task), labels=task_labels(task)).loss.backward()
        without, frozen = grouped(model)
        assert without == frozen, settings


@pytest.mark.parametrize("stream", STREAMS)
def test_all_objectives_freeze_nothing(stream: str):
    assert all(weight.requires_grad for weight in tiny_pretraining(stream, pooled_fusion="mul").parameters())


@pytest.mark.parametrize("stream", STREAMS)
def test_what_no_loss_reads_is_saved_loaded_and_left_as_it_is(stream: str, tmp_path: Any):
    model = tiny_pretraining(stream, objective_weights={"mlm": 1.0})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert "backbone.text_pooler.dense.weight" in before
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    model.train()(**tiny_batch(), mlm_labels=tiny_labels()["mlm_labels"]).loss.backward()
    optimiser.step()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    frozen = grouped(model)[1]
    assert frozen == grouped(loaded)[1] != set()
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0 if name in frozen else 1)
        assert torch.equal(value, before[name]) == (name in frozen), name


def test_a_backbone_and_a_task_model_of_such_a_folder_train_their_pooler(tmp_path: Any):
    model = tiny_pretraining("single", objective_weights={"mlm": 1.0})
    model.save_pretrained(tmp_path)
    backbone = type(model.backbone).from_pretrained(tmp_path)
    assert all(weight.requires_grad for weight in backbone.parameters())
