"""The pre-training model: each loss from its own predictions, what is in the graph, and what the heads compute."""

from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.objectives import OBJECTIVES
from tests.factories.models import (
    BATCH,
    CLASSES,
    FEATURE,
    REGIONS,
    STREAMS,
    TOKENS,
    tiny_batch,
    tiny_labels,
    tiny_pretraining,
)

COUNTS = {"mlm": 2, "mrc": 3, "mrc_kl": 3, "mrfr": 3, "itm": 2}
# Every head and switch of LXMERT at once, beside the default model.
LXMERT = {
    "num_region_attributes": 4,
    "num_qa_labels": 5,
    "confidence_weighted_classes": True,
    "share_region_head_transform": True,
    "objective_weights": dict.fromkeys(OBJECTIVES, 1.0),
}


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> str:
    return request.param


def ignored(labels: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same labels with nothing to predict."""
    return {
        name: torch.zeros_like(value) if name == "masked_regions" else torch.full_like(value, -100)
        for name, value in labels.items()
    }


def test_each_loss_is_torch_s_on_the_predictions_that_are_made_everywhere(stream: str):
    model, batch, labels = tiny_pretraining(stream), tiny_batch(), tiny_labels()
    masked = labels["masked_regions"]
    everywhere = model(**batch, masked_regions=masked)
    output = model(**batch, **labels)
    classes = everywhere.mrc_logits
    expected = {
        "mlm": F.cross_entropy(everywhere.mlm_logits.flatten(0, 1), labels["mlm_labels"].flatten()),
        "mrc": F.cross_entropy(classes.flatten(0, 1), labels["mrc_labels"].flatten()),
        "mrc_kl": F.kl_div(classes[masked].log_softmax(-1), labels["mrc_kl_labels"][masked], reduction="batchmean"),
        "mrfr": F.mse_loss(everywhere.mrfr_prediction[masked], labels["mrfr_labels"][masked]),
        "itm": F.cross_entropy(everywhere.itm_logits, labels["itm_labels"]),
    }
    for name, loss in expected.items():
        torch.testing.assert_close(output[f"{name}_loss"], loss, atol=1e-5, rtol=1e-5)
        assert output[f"{name}_count"].item() == COUNTS[name]
    torch.testing.assert_close(output.loss, sum(expected.values()), atol=1e-5, rtol=1e-5)


def test_total_is_weighted_by_the_configuration(stream: str):
    weights = {"mlm": 0.5, "mrc": 0.0, "mrc_kl": 2, "mrfr": 1.0, "itm": 3.0}
    output = tiny_pretraining(stream, objective_weights=weights)(**tiny_batch(), **tiny_labels())
    expected = sum(weight * output[f"{name}_loss"] for name, weight in weights.items())
    torch.testing.assert_close(output.loss, expected)


def test_metrics_are_those_of_the_selected_predictions():
    model, labels = tiny_pretraining("single"), tiny_labels()
    output = model(**tiny_batch(), **labels)
    hits = output.mlm_logits.argmax(-1) == labels["mlm_labels"][labels["mlm_labels"] != -100]
    assert output.mlm_accuracy.item() == hits.float().mean().item()
    features = labels["mrfr_labels"][labels["masked_regions"]]
    expected = F.cosine_similarity(output.mrfr_prediction, features).mean()
    torch.testing.assert_close(output.mrfr_cosine, expected.detach())
    assert not output.mrfr_cosine.requires_grad


@pytest.mark.parametrize(
    "names", [subset for size in range(1, 6) for subset in combinations(OBJECTIVE_NAMES, size)], ids="+".join
)
def test_any_subset_of_objectives_can_be_on(names: tuple[str, ...]):
    model = tiny_pretraining("single", objective_weights=dict.fromkeys(names, 1.0))
    labels = tiny_labels()
    given = {name: labels[name] for name in ("masked_regions", *(f"{name}_labels" for name in names))}
    output = model(**tiny_batch(), **given)
    assert set(model.heads) == {OBJECTIVES[name].head for name in names}
    assert {name for name in OBJECTIVE_NAMES if f"{name}_loss" in output} == set(names)
    torch.testing.assert_close(output.loss, sum(output[f"{name}_loss"] for name in names))


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_labels_of_one_objective_run_its_head_alone(stream: str, name: str):
    model, labels = tiny_pretraining(stream), tiny_labels()
    output = model(
        **tiny_batch(), masked_regions=labels["masked_regions"], **{f"{name}_labels": labels[f"{name}_labels"]}
    )
    filled = {field for field in {row.output for row in OBJECTIVES.values()} if field in output}
    assert filled == {OBJECTIVES[name].output}
    torch.testing.assert_close(output.loss, output[f"{name}_loss"])


def test_heads_see_the_selected_rows_only(stream: str):
    model = tiny_pretraining(stream)
    seen: dict[str, int] = {}
    for name in ("token", "region_class", "region_feature"):
        model.heads[name].decoder.register_forward_hook(
            lambda _module, args, _output, name=name: seen.update({name: len(args[0])})
        )
    output = model(**tiny_batch(), **tiny_labels())
    assert seen == {"token": 2, "region_class": 3, "region_feature": 3}
    assert output.mlm_logits.shape[0] == 2
    assert output.mrc_logits.shape == (3, CLASSES)
    assert output.mrfr_prediction.shape == (3, FEATURE)
    assert output.itm_logits.shape == (2, 2)


def test_without_labels_the_heads_run_everywhere_and_there_is_no_loss(stream: str):
    output = tiny_pretraining(stream)(**tiny_batch())
    assert output.loss is None
    assert output.mlm_logits.shape[:2] == (BATCH, TOKENS)
    assert output.mrc_logits.shape == (BATCH, REGIONS, CLASSES)
    assert output.itm_logits.shape == (BATCH, 2)


@pytest.mark.parametrize("overrides", [{}, {"tie_region_feature_decoder": True}, LXMERT], ids=["own", "tied", "lxmert"])
def test_nothing_to_predict_gives_zero_loss_and_every_head_a_zero_gradient(stream: str, overrides: dict):
    model = tiny_pretraining(stream, **overrides).train()
    labels = ignored(tiny_labels())
    if overrides is LXMERT:
        labels["mrc_attribute_labels"] = labels["mrc_labels"]
        labels["qa_labels"] = labels["itm_labels"]
    output = model(**tiny_batch(), **labels)
    output.loss.backward()
    assert output.loss.item() == 0.0
    names = [name.removesuffix("_labels") for name in labels if name != "masked_regions"]
    for name in names:
        assert output[f"{name}_loss"].item() == 0.0
        assert output[f"{name}_count"].item() == 0
        assert output[f"{name}_{OBJECTIVES[name].metric_name}"].item() == 0.0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_ignored_elements_do_not_change_a_loss(stream: str):
    model, batch, labels = tiny_pretraining(stream), tiny_batch(), tiny_labels()
    before = model(**batch, **labels)
    # More masked places than labels: those without a label are not counted.
    labels["masked_regions"] = torch.ones_like(labels["masked_regions"])
    after = model(**batch, **labels)
    for name in OBJECTIVE_NAMES:
        torch.testing.assert_close(after[f"{name}_loss"], before[f"{name}_loss"])
        assert after[f"{name}_count"] == before[f"{name}_count"]


def test_denominators_that_are_given_replace_the_counts(stream: str):
    model, batch, labels = tiny_pretraining(stream), tiny_batch(), tiny_labels()
    means = model(**batch, **labels)
    output = model(**batch, **labels, loss_denominators=dict.fromkeys(OBJECTIVE_NAMES, torch.tensor(12.0)))
    for name, count in COUNTS.items():
        torch.testing.assert_close(output[f"{name}_loss"], means[f"{name}_loss"] * count / 12)
        assert output[f"{name}_count"].item() == count


def test_micro_batches_with_the_counts_of_all_add_up_to_the_loss_of_the_whole(stream: str):
    model, inputs = tiny_pretraining(stream), tiny_batch() | tiny_labels()
    whole = model(**inputs)
    counts = {name: torch.tensor(float(count)) for name, count in COUNTS.items()}
    rows = [{name: value[row : row + 1] for name, value in inputs.items()} for row in range(BATCH)]
    total = sum(model(**row, loss_denominators=counts).loss for row in rows)
    torch.testing.assert_close(total, whole.loss, atol=1e-5, rtol=1e-5)


def test_confidence_weighs_the_class_losses():
    labels, scores = tiny_labels(), torch.rand(BATCH, REGIONS, generator=torch.Generator().manual_seed(0))
    plain = tiny_pretraining("single")(**tiny_batch(), **labels, region_scores=scores)
    weighted = tiny_pretraining("single", confidence_weighted_classes=True)(
        **tiny_batch(), **labels, region_scores=scores
    )
    masked = labels["masked_regions"]
    each = F.cross_entropy(plain.mrc_logits, labels["mrc_labels"][masked], reduction="none")
    torch.testing.assert_close(plain.mrc_loss, each.mean())
    torch.testing.assert_close(weighted.mrc_loss, (each * scores[masked]).sum() / 3)
    torch.testing.assert_close(weighted.mrfr_loss, plain.mrfr_loss)


def test_tied_feature_head_reads_the_transposed_input_projection(stream: str):
    model = tiny_pretraining(stream, tie_region_feature_decoder=True)
    head, weight = model.heads["region_feature"], model.backbone.region_embeddings.feature_projection.weight
    regions = model.backbone(**tiny_batch()).region_last_hidden_state
    expected = head.transform(regions) @ weight + head.bias
    torch.testing.assert_close(model(**tiny_batch()).mrfr_prediction, expected)
    assert not any(parameter.numel() == weight.numel() for parameter in head.parameters())


def test_pooled_dropout_acts_on_what_matching_reads_and_in_training_only():
    model = tiny_pretraining("single", pooled_dropout_prob=1.0)
    bias = model.heads["matching"].bias.expand(BATCH, 2)
    assert not torch.equal(model(**tiny_batch()).itm_logits, bias)
    torch.testing.assert_close(model.train()(**tiny_batch()).itm_logits, bias)


def test_token_decoder_is_the_word_embedding(stream: str):
    model = tiny_pretraining(stream)
    assert model.heads["token"].decoder.weight is model.get_input_embeddings().weight
    assert model.get_output_embeddings() is model.heads["token"].decoder


def test_untied_decoder_has_its_own_weight():
    model = tiny_pretraining("single", tie_word_embeddings=False)
    assert model.heads["token"].decoder.weight is not model.get_input_embeddings().weight


def test_resizing_the_vocabulary_resizes_embedding_and_decoder(stream: str):
    model = tiny_pretraining(stream)
    model.resize_token_embeddings(60)
    assert model.heads["token"].decoder.weight is model.get_input_embeddings().weight
    assert model(**tiny_batch()).mlm_logits.shape == (BATCH, TOKENS, 60)


def test_task_token_does_not_shift_the_predicted_tokens(stream: str):
    model = tiny_pretraining(stream, num_task_tokens=2)
    batch = tiny_batch() | {"task_ids": torch.tensor([0, 1, 1])}
    states = model.backbone(**batch).text_last_hidden_state
    assert states.shape[1] == TOKENS + 1
    everywhere = model(**batch).mlm_logits
    torch.testing.assert_close(everywhere, model.heads["token"](states[:, [0, 2, 3, 4, 5]]))
    output = model(**batch, mlm_labels=tiny_labels()["mlm_labels"])
    torch.testing.assert_close(output.mlm_logits, everywhere[[0, 1], [1, 2]])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_labels_of_an_objective_that_is_off_are_refused(name: str):
    on = "itm" if name != "itm" else "mlm"
    model = tiny_pretraining("single", objective_weights={on: 1.0})
    labels = torch.zeros(BATCH, dtype=torch.long)
    with pytest.raises(ValueError, match=rf"{name}_labels were given but the objective is off; .*\(on are {on}\)"):
        model(**tiny_batch(), **{f"{name}_labels": labels})


@pytest.mark.parametrize(
    ("missing", "name"), [("text", "mlm"), ("regions", "mrc"), ("regions", "mrc_kl"), ("regions", "mrfr")]
)
def test_labels_of_a_modality_that_is_not_there_are_refused(stream: str, missing: str, name: str):
    model, labels = tiny_pretraining(stream), tiny_labels()
    is_text = ("input_ids", "attention_mask", "token_type_ids")
    batch = {key: value for key, value in tiny_batch().items() if (key in is_text) != (missing == "text")}
    with pytest.raises(ValueError, match=f"{name}_labels were given without {missing}"):
        model(**batch, **{f"{name}_labels": labels[f"{name}_labels"]})


def test_the_stock_trainer_takes_the_loss_for_a_mean():
    assert MmptForPreTraining.accepts_loss_kwargs is False


def test_half_precision_losses_are_computed_in_single_precision(stream: str):
    model = tiny_pretraining(stream).to(torch.bfloat16)
    inputs = tiny_batch() | tiny_labels()
    output = model(**inputs)
    for name in OBJECTIVE_NAMES:
        assert output[f"{name}_loss"].dtype == torch.float32
    torch.testing.assert_close(output.loss, tiny_pretraining(stream)(**inputs).loss, atol=0.3, rtol=0.05)
