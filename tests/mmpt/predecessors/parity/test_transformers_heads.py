"""The fine-tuned LXMERT and VisualBERT of transformers, as they are and under their original names, give the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    LxmertConfig,
    LxmertForPreTraining,
    LxmertForQuestionAnswering,
    VisualBertConfig,
    VisualBertForMultipleChoice,
    VisualBertForQuestionAnswering,
    VisualBertForRegionToPhraseAlignment,
    VisualBertForVisualReasoning,
)

from mmpt import (
    MmptDualStreamForImagesAndTextClassification,
    MmptDualStreamForPreTraining,
    MmptDualStreamForQuestionAnswering,
    MmptSingleStreamForImagesAndTextClassification,
    MmptSingleStreamForMultipleChoice,
    MmptSingleStreamForQuestionAnswering,
    MmptSingleStreamForRegionToPhraseAlignment,
    MmptSingleStreamForSequenceClassification,
    convert,
    export_predecessor,
    from_predecessor,
)
from mmpt.predecessors.predecessor_export import convert_back
from tests.factories.heads import BATCH, CLOSE, REGIONS, Batch, dropped, image, mlp, ragged, randomise, two_images

ANSWERS = 5


def small_visual_bert(model_class: Any, **options: Any) -> Any:
    config = VisualBertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        visual_embedding_dim=16,
        pad_token_id=0,
        **options,
    )
    return randomise(model_class(config))


def visual_inputs(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")} | {
        "visual_embeds": batch["region_features"],
        "visual_attention_mask": batch["region_attention_mask"],
    }


def saved(theirs: Any, tmp_path: Path) -> Path:
    theirs.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


class TestVisualBert:
    @pytest.fixture
    def batch(self) -> Batch:
        return ragged(width=16)

    def test_answers(self, batch: Batch, tmp_path: Path):
        names = {number: f"answer {number}" for number in range(ANSWERS)}
        theirs = small_visual_bert(
            VisualBertForQuestionAnswering, num_labels=ANSWERS, id2label=names, hidden_dropout_prob=0.25
        )
        model = from_predecessor(saved(theirs, tmp_path))
        assert model.config.pooled_dropout_prob == 0.25
        assert type(model) is MmptSingleStreamForQuestionAnswering
        labels = torch.rand(BATCH, ANSWERS, generator=torch.Generator().manual_seed(3))
        labels = labels / labels.sum(-1, keepdim=True)
        expected, found = theirs(**visual_inputs(batch), labels=labels), model(**batch, labels=labels)
        torch.testing.assert_close(found.logits, theirs(**visual_inputs(batch)).logits, **CLOSE)
        torch.testing.assert_close(found.loss, expected.loss, **CLOSE)
        assert model.config.id2label == names

    def test_reasons(self, batch: Batch, tmp_path: Path):
        theirs = small_visual_bert(VisualBertForVisualReasoning, num_labels=2)
        folder = saved(theirs, tmp_path)
        model = from_predecessor(folder)
        assert type(model) is MmptSingleStreamForImagesAndTextClassification
        two, labels = two_images(batch), torch.tensor([1, 0, 1])
        joined = {name: value.flatten(1, 2) if "region" in name else value for name, value in two.items()}
        types = (torch.arange(2 * REGIONS) >= REGIONS).long().expand(BATCH, -1)  # as the original numbers the images
        expected = theirs(**visual_inputs(joined), visual_token_type_ids=types, labels=labels)
        found = model(**two, labels=labels)
        torch.testing.assert_close(found.logits, expected.logits, **CLOSE)
        torch.testing.assert_close(found.loss, expected.loss, **CLOSE)

        plain = from_predecessor(folder, task="classification")
        assert type(plain) is MmptSingleStreamForSequenceClassification
        expected, found = theirs(**visual_inputs(joined), labels=labels), plain(**joined, labels=labels)
        torch.testing.assert_close(found.logits, expected.logits, **CLOSE)
        torch.testing.assert_close(found.loss, expected.loss, **CLOSE)

    def test_chooses(self, batch: Batch, tmp_path: Path):
        theirs = small_visual_bert(VisualBertForMultipleChoice)
        model = from_predecessor(saved(theirs, tmp_path))
        assert type(model) is MmptSingleStreamForMultipleChoice
        other = ragged(width=16, seed=11)
        text = ("input_ids", "attention_mask", "token_type_ids")
        choices = {name: torch.stack([batch[name], other[name]], 1) for name in text}
        regions = {name: value for name, value in batch.items() if "region" in name}
        repeated = {name: torch.stack([value, value], 1) for name, value in regions.items()}
        labels = torch.tensor([1, 0, 0])
        expected = theirs(**visual_inputs(choices | repeated), labels=labels)
        found = model(**choices, **regions, labels=labels)
        torch.testing.assert_close(found.logits, expected.logits, **CLOSE)
        torch.testing.assert_close(found.loss, expected.loss, **CLOSE)

    def test_aligns(self, batch: Batch, tmp_path: Path):
        theirs = small_visual_bert(VisualBertForRegionToPhraseAlignment)
        model = from_predecessor(saved(theirs, tmp_path))
        assert type(model) is MmptSingleStreamForRegionToPhraseAlignment
        positions = torch.tensor([[1, 5], [2, -100], [0, 3]])
        labels = torch.rand(BATCH, 2, REGIONS, generator=torch.Generator().manual_seed(3))
        labels = labels * batch["region_attention_mask"][:, None]
        labels = labels / labels.sum(-1, keepdim=True)
        labels[1, 1] = 0.0  # theirs has no other way to say that there is no phrase
        expected = theirs(**visual_inputs(batch), region_to_phrase_position=positions.clamp(min=-1), labels=labels)
        found = model(**batch, phrase_positions=positions, labels=labels)
        there = (positions >= 0)[..., None] & batch["region_attention_mask"].bool()[:, None]
        torch.testing.assert_close(found.logits[there], expected.logits[there], **CLOSE)
        torch.testing.assert_close(found.loss, expected.loss, **CLOSE)
        reasons = dropped(model)
        assert "defined but unused" in reasons["attention.value.weight"]
        assert reasons["cls.predictions.bias"] == "a pre-training head; the model is for phrases"
        assert reasons["visual_bert.pooler.dense.weight"] == "a model for phrases reads no pooled vector"


def small_lxmert(model_class: Any) -> Any:
    config = LxmertConfig(
        vocab_size=100,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=48,
        l_layers=2,
        x_layers=1,
        r_layers=1,
        visual_feat_dim=16,
        num_qa_labels=ANSWERS,
    )
    return randomise(model_class(config))


def lxmert_inputs(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")} | {
        "visual_feats": batch["region_features"],
        "visual_pos": batch["region_boxes"],
        "visual_attention_mask": batch["region_attention_mask"],
    }


def renamed(theirs: Any, folder: Path, more: dict[str, Tensor]) -> Path:
    """Write LXMERT's encoder with the names that its original task models give it, and a configuration."""
    weights = {
        f"lxrt_encoder.model.module.bert.{key.removeprefix('lxmert.')}": value
        for key, value in theirs.state_dict().items()
        if key.startswith("lxmert.")
    }
    folder.mkdir()
    torch.save(weights | more, folder / "BEST.pth")
    theirs.config.to_json_file(folder / "config.json")
    return folder


class TestLxmert:
    @pytest.fixture
    def batch(self) -> Batch:
        return ragged(width=16)

    def test_answers(self, batch: Batch, tmp_path: Path):
        theirs = small_lxmert(LxmertForQuestionAnswering)
        folder = saved(theirs, tmp_path)
        model = from_predecessor(folder)
        assert type(model) is MmptDualStreamForQuestionAnswering
        assert model.config.num_labels == ANSWERS
        assert any(said.startswith("answer_loss = bce") for said in model.conversion_report.assumptions)
        answers = torch.tensor([4, 0, 2])
        expected = theirs(**lxmert_inputs(batch), labels=answers)
        torch.testing.assert_close(model(**batch).logits, expected.question_answering_score, **CLOSE)
        one_hot = F.one_hot(answers, ANSWERS).float()
        found = from_predecessor(folder, answer_loss="kl")(**batch, labels=one_hot)
        torch.testing.assert_close(found.loss, expected.loss, **CLOSE)

    def test_pre_training_stays_pre_training_unless_said(self, batch: Batch, tmp_path: Path):
        theirs = small_lxmert(LxmertForPreTraining)
        folder = saved(theirs, tmp_path)
        assert type(from_predecessor(folder)) is MmptDualStreamForPreTraining
        model = from_predecessor(folder, task="vqa")
        assert type(model) is MmptDualStreamForQuestionAnswering
        expected = theirs(**lxmert_inputs(batch)).question_answering_score
        torch.testing.assert_close(model(**batch).logits, expected, **CLOSE)

    def test_the_original_answers(self, batch: Batch, tmp_path: Path):
        theirs = small_lxmert(LxmertForQuestionAnswering)
        head = theirs.answer_head.logit_fc.state_dict()
        folder = renamed(theirs, tmp_path / "original", {f"logit_fc.{key}": value for key, value in head.items()})
        model = from_predecessor(folder)
        assert type(model) is MmptDualStreamForQuestionAnswering
        expected = theirs(**lxmert_inputs(batch)).question_answering_score
        torch.testing.assert_close(model(**batch).logits, expected, **CLOSE)

    def test_the_original_reasons_about_two_images(self, batch: Batch, tmp_path: Path):
        theirs, head = small_lxmert(LxmertForQuestionAnswering), randomise(mlp(64, 64, 2))
        folder = renamed(
            theirs, tmp_path / "original", {f"logit_fc.{key}": value for key, value in head.state_dict().items()}
        )
        model = from_predecessor(folder)
        assert type(model) is MmptDualStreamForImagesAndTextClassification
        two = two_images(batch)
        pooled = [theirs.lxmert(**lxmert_inputs(image(two, i))).pooled_output for i in range(2)]
        expected = head(torch.cat(pooled, -1))
        torch.testing.assert_close(model(**two).logits, expected, **CLOSE)


@pytest.mark.parametrize(
    ("make", "target", "task"),
    [
        (lambda: small_lxmert(LxmertForQuestionAnswering), "lxmert", "auto"),
        (lambda: small_visual_bert(VisualBertForQuestionAnswering, num_labels=ANSWERS), "visual_bert", "auto"),
        (lambda: small_visual_bert(VisualBertForVisualReasoning, num_labels=2), "visual_bert", "auto"),
        (lambda: small_visual_bert(VisualBertForVisualReasoning, num_labels=2), "visual_bert", "classification"),
        (lambda: small_visual_bert(VisualBertForMultipleChoice), "visual_bert", "auto"),
    ],
    ids=["lxmert vqa", "vqa", "nlvr2", "classification", "multiple choice"],
)
def test_there_and_back_gives_every_weight(make: Any, target: str, task: str, tmp_path: Path):
    theirs = make()
    convert(saved(theirs, tmp_path), tmp_path / "ours", task=task)
    convert_back(tmp_path / "ours", tmp_path / "back", target)
    loaded = type(theirs).from_pretrained(tmp_path / "back")
    weights = theirs.state_dict()
    assert set(loaded.state_dict()) == set(weights)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_a_model_that_was_fine_tuned_here_goes_to_transformers(tmp_path: Path):
    """Its configuration still has what the pre-training heads were like."""
    convert(saved(small_lxmert(LxmertForPreTraining), tmp_path), tmp_path / "ours")
    model = MmptDualStreamForQuestionAnswering.from_pretrained(
        tmp_path / "ours", id2label={0: "no", 1: "yes", 2: "maybe"}, label2id={"no": 0, "yes": 1, "maybe": 2}
    ).eval()
    export_predecessor(model, tmp_path / "back", "lxmert")
    theirs = LxmertForQuestionAnswering.from_pretrained(tmp_path / "back").eval()
    batch = ragged(width=16)
    expected = theirs(**lxmert_inputs(batch)).question_answering_score
    torch.testing.assert_close(model(**batch).logits, expected, **CLOSE)
    assert theirs.config.id2label == {0: "no", 1: "yes", 2: "maybe"}


def test_what_transformers_cannot_express_is_named(tmp_path: Path):
    theirs = small_visual_bert(VisualBertForRegionToPhraseAlignment)
    phrases = from_predecessor(saved(theirs, tmp_path))
    with pytest.raises(ValueError, match="has no class for a MmptSingleStreamForRegionToPhraseAlignment"):
        export_predecessor(phrases, tmp_path / "out", "visual_bert")
    theirs = small_visual_bert(VisualBertForQuestionAnswering, num_labels=ANSWERS)
    answers = from_predecessor(saved(theirs, tmp_path), answer_reads="pooled")
    with pytest.raises(ValueError, match="answer_reads is 'pooled', visual_bert has 'second_last_token'"):
        export_predecessor(answers, tmp_path / "out", "visual_bert")
