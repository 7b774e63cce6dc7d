"""Late fusion: neither modality hears of the other, and their decisions are combined by rules worked by hand."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpt.modeling_mmpt.fusion import LATE_DECISIONS, FusedDecision, MmptDecisionFusion, MmptLateFusion
from tests.factories.models import STREAMS, tiny_backbone, tiny_batch, tiny_pretraining
from tests.factories.task_models import DECIDING_CASES, task_batch, task_class, task_labels, tiny_task

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def other_image(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch | {name: tiny_batch(seed=1)[name] for name in ("region_features", "region_boxes")}


def other_text(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch | {"input_ids": tiny_batch(seed=1)["input_ids"]}


@pytest.mark.parametrize("stream", STREAMS)
def test_another_image_changes_nothing_of_the_text(stream: str) -> None:
    batch = tiny_batch()
    late, early = tiny_backbone(stream, fusion="late"), tiny_backbone(stream)
    before, after = late(**batch), late(**other_image(batch))
    assert torch.equal(before.text_last_hidden_state, after.text_last_hidden_state)
    assert torch.equal(before.text_pooler_output, after.text_pooler_output)
    assert not torch.equal(before.region_pooler_output, after.region_pooler_output)
    assert not torch.equal(early(**batch).text_pooler_output, early(**other_image(batch)).text_pooler_output)


@pytest.mark.parametrize("stream", STREAMS)
def test_another_text_changes_nothing_of_the_regions(stream: str) -> None:
    batch = tiny_batch()
    late = tiny_backbone(stream, fusion="late")
    before, after = late(**batch), late(**other_text(batch))
    assert torch.equal(before.region_last_hidden_state, after.region_last_hidden_state)
    assert torch.equal(before.region_pooler_output, after.region_pooler_output)
    assert not torch.equal(before.text_pooler_output, after.text_pooler_output)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("stream", STREAMS)
def test_each_modality_is_encoded_as_if_alone(stream: str, attention: str) -> None:
    batch = tiny_batch()
    late = tiny_backbone(stream, fusion="late", attention=attention)
    both = late(**batch)
    text = late(**{name: batch[name] for name in TEXT_INPUTS})
    regions = late(**{name: value for name, value in batch.items() if name not in TEXT_INPUTS})
    torch.testing.assert_close(both.text_last_hidden_state, text.text_last_hidden_state)
    torch.testing.assert_close(both.region_last_hidden_state, regions.region_last_hidden_state)


def test_the_joint_view_of_the_single_stream_has_no_weight_between_the_modalities() -> None:
    batch = tiny_batch()
    late = tiny_backbone("single", fusion="late")
    output = late(**batch, output_attentions=True, output_hidden_states=True)
    tokens, regions = batch["input_ids"].shape[1], batch["region_features"].shape[1]
    for weights in output.attentions:
        assert weights.shape[-2:] == (tokens + regions, tokens + regions)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
    for weights in output.text_to_region_attentions + output.region_to_text_attentions:
        assert not weights.any()
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


@pytest.mark.parametrize("stream", STREAMS)
def test_matching_with_late_fusion_is_refused(stream: str) -> None:
    with pytest.raises(ValueError, match="'itm' is on with fusion 'late'"):
        tiny_pretraining(stream, fusion="late")
    assert tiny_pretraining(stream, fusion="late", objective_weights={"mlm": 1.0, "mrfr": 1.0})


TWO_DECISIONS = {"text": torch.tensor([[0.0, 1.0, -1.0]]), "regions": torch.tensor([[2.0, 0.0, 0.5]])}


def combine(rule: str, decisions: dict[str, Tensor], answers: bool = False, hybrid: bool = False) -> FusedDecision:
    return MmptDecisionFusion(rule, hybrid, answers)(decisions)


class TestRules:
    """Worked from the probabilities themselves, as Kittler et al. (1998) write the rules."""

    def test_mean_max_and_product_of_classes(self) -> None:
        text, regions = (TWO_DECISIONS[name].softmax(-1) for name in LATE_DECISIONS)
        for rule, combined in (
            ("mean", (text + regions) / 2),
            ("learned", (text + regions) / 2),  # before it has learnt anything
            ("max", torch.maximum(text, regions)),
            ("product", text * regions),
        ):
            expected = combined / combined.sum()
            torch.testing.assert_close(combine(rule, TWO_DECISIONS).logits.softmax(-1), expected)

    def test_answers_are_questions_of_their_own(self) -> None:
        text, regions = (TWO_DECISIONS[name].sigmoid() for name in LATE_DECISIONS)
        for rule, yes, no in (
            ("mean", text + regions, 2 - text - regions),
            ("max", torch.maximum(text, regions), torch.maximum(1 - text, 1 - regions)),
            ("product", text * regions, (1 - text) * (1 - regions)),
        ):
            expected = yes / (yes + no)
            torch.testing.assert_close(combine(rule, TWO_DECISIONS, answers=True).logits.sigmoid(), expected)

    def test_learned_weights_are_the_weights_of_the_mean(self) -> None:
        fusion = MmptDecisionFusion("learned", hybrid=False, answers=False)
        fusion.late.weight_logits.data = torch.tensor([0.25, 0.75]).log()
        fused = fusion(TWO_DECISIONS)
        text, regions = (TWO_DECISIONS[name].softmax(-1) for name in LATE_DECISIONS)
        torch.testing.assert_close(fused.logits.exp(), 0.25 * text + 0.75 * regions)
        torch.testing.assert_close(fused.weights, torch.tensor([[0.25, 0.75]]))

    def test_the_weight_of_a_missing_modality_goes_to_the_other(self) -> None:
        fusion = MmptDecisionFusion("learned", hybrid=False, answers=False)
        fusion.late.weight_logits.data = torch.tensor([0.25, 0.75]).log()
        fused = fusion({"regions": TWO_DECISIONS["regions"]})
        torch.testing.assert_close(fused.logits.exp(), TWO_DECISIONS["regions"].softmax(-1))
        assert fused.weights.tolist() == [[1.0]]

    def test_hybrid_weighs_the_joint_decision_against_the_late_one(self) -> None:
        fusion = MmptDecisionFusion("product", hybrid=True, answers=False)
        fusion.hybrid.weight_logits.data = torch.tensor([0.6, 0.4]).log()
        joint = torch.tensor([[1.0, 1.0, 0.0]])
        fused = fusion({"joint": joint, **TWO_DECISIONS})
        text, regions = (TWO_DECISIONS[name].softmax(-1) for name in LATE_DECISIONS)
        late = text * regions / (text * regions).sum()
        torch.testing.assert_close(fused.logits.exp(), 0.6 * joint.softmax(-1) + 0.4 * late)
        torch.testing.assert_close(fused.weights, torch.tensor([[0.6, 0.2, 0.2]]))

    def test_max_gives_all_weight_to_the_surest(self) -> None:
        assert combine("max", TWO_DECISIONS).weights.tolist() == [[0.0, 1.0]]
        assert combine("max", TWO_DECISIONS, answers=True).weights.tolist() == [[0.0, 1.0]]

    @pytest.mark.parametrize("rule", ["mean", "max", "product", "learned"])
    @pytest.mark.parametrize("answers", [False, True])
    def test_sure_decisions_stay_numbers(self, rule: str, answers: bool) -> None:
        sure = {"text": torch.tensor([[200.0, -200.0]]), "regions": torch.tensor([[-200.0, 200.0]])}
        for hybrid in (False, True):
            decisions = {**sure, "joint": sure["text"]} if hybrid else sure
            fused = combine(rule, {k: v.requires_grad_() for k, v in decisions.items()}, answers, hybrid)
            fused.logits.sum().backward()
            assert fused.logits.isfinite().all()
            assert sure["text"].grad.isfinite().all()


@pytest.mark.parametrize("rule", ["mean", "max", "product", "learned"])
@pytest.mark.parametrize(("stream", "task"), DECIDING_CASES)
def test_what_the_text_says_does_not_depend_on_the_image(stream: str, task: str, rule: str) -> None:
    model, batch = tiny_task(stream, task, fusion="late", late_fusion=rule), task_batch(task)
    before = model(**batch)
    for part, unmoved, moved in (("region", "text", "region"), ("input_ids", "region", "text")):
        other = batch | {k: v for k, v in task_batch(task, seed=1).items() if part in k and "mask" not in k}
        after = model(**other)
        assert torch.equal(before[f"{unmoved}_logits"], after[f"{unmoved}_logits"])
        if not (task == "MultipleChoice" and moved == "region"):  # one image says the same of all its choices
            assert not torch.equal(before[f"{moved}_logits"], after[f"{moved}_logits"])
            assert not torch.equal(before.logits, after.logits)


@pytest.mark.parametrize(("stream", "task"), DECIDING_CASES)
def test_each_modality_can_be_left_out(stream: str, task: str) -> None:
    model, batch = tiny_task(stream, task, fusion="late"), task_batch(task)
    both = model(**batch)
    text = model(**{name: value for name, value in batch.items() if "region" not in name})
    torch.testing.assert_close(text.text_logits, both.text_logits)
    torch.testing.assert_close(text.logits.argmax(-1), text.text_logits.argmax(-1))
    assert text.region_logits is None
    assert text.decision_weights.tolist() == [[1.0]] * 3


@pytest.mark.parametrize(("stream", "task"), DECIDING_CASES)
def test_hybrid_shows_what_each_says_and_learns_whom_to_trust(stream: str, task: str) -> None:
    model = tiny_task(stream, task, fusion="hybrid", late_fusion="learned")
    early = tiny_task(stream, task)
    early.load_state_dict(model.state_dict(), strict=False)
    output = model(**task_batch(task), labels=task_labels(task))
    torch.testing.assert_close(output.joint_logits, early(**task_batch(task)).logits)
    torch.testing.assert_close(output.decision_weights.sum(1), torch.ones(3))
    assert output.decision_weights.shape == (3, 3)
    output.loss.backward()
    assert model.fusion.hybrid.weight_logits.grad.any()
    assert task == "MultipleChoice" or model.fusion.late.weight_logits.grad.any()


@pytest.mark.parametrize("stream", STREAMS)
def test_new_weights_are_equal_in_a_model_that_goes_on(stream: str, tmp_path: Path) -> None:
    tiny_backbone(stream, fusion="hybrid").save_pretrained(tmp_path)
    task = task_class(stream, "SequenceClassification")
    model = task.from_pretrained(tmp_path, fusion="hybrid", late_fusion="learned")
    assert model.fusion.hybrid.weight_logits.tolist() == [0.0, 0.0]
    assert model.fusion.late.weight_logits.tolist() == [0.0, 0.0]


class TestSeparateModels:
    @pytest.mark.parametrize("rule", ["mean", "max", "product", "learned"])
    def test_decisions_of_two_models(self, rule: str) -> None:
        text = tiny_task("single", "SequenceClassification", seed=1, fusion="early")
        image = tiny_task("dual", "SequenceClassification", seed=2, fusion="late")
        batch = tiny_batch()
        fused = MmptLateFusion(text, image, rule)(**batch, labels=torch.tensor([0, 1, 2]))
        alone = {
            "text": text(**{k: v for k, v in batch.items() if "region" not in k}).logits,
            "regions": image(**{k: v for k, v in batch.items() if "region" in k}).logits,
        }
        expected = combine(rule, alone)
        torch.testing.assert_close(fused.logits, expected.logits)
        torch.testing.assert_close(fused.weights, expected.weights)

    def test_refuses_models_that_decide_something_else(self) -> None:
        text = tiny_task("single", "SequenceClassification")
        with pytest.raises(ValueError, match="the models have other labels"):
            MmptLateFusion(text, tiny_task("single", "SequenceClassification", num_labels=2))
        with pytest.raises(ValueError, match="two models for question answering with one answer_loss"):
            MmptLateFusion(text, tiny_task("single", "QuestionAnswering"))
        with pytest.raises(ValueError, match="rule is 'median', expected one of mean, max, product, learned"):
            MmptLateFusion(text, text, "median")
