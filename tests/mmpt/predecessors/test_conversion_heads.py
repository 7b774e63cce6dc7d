"""Fine-tuned heads of the predecessors become the models of our tasks, with the same numbers."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from mmpt import (
    MmptDualStreamForPreTraining,
    MmptDualStreamForQuestionAnswering,
    MmptSingleStreamForGrounding,
    MmptSingleStreamForImageAndTextRetrieval,
    MmptSingleStreamForImagesAndTextClassification,
    MmptSingleStreamForMultipleChoice,
    MmptSingleStreamForPreTraining,
    MmptSingleStreamForQuestionAnswering,
    MmptSingleStreamForSequenceClassification,
    convert,
    from_predecessor,
)
from mmpt.commands.main import app
from mmpt.predecessors.conversion import plan_conversion
from tests.factories.heads import (
    BATCH,
    CLOSE,
    GOLDEN,
    REGIONS,
    TOKENS,
    Batch,
    config_of,
    dropped,
    image,
    mlp,
    ragged,
    two_images,
    with_heads,
)

ANSWERS = 5


@pytest.fixture(scope="module")
def uniter_size() -> int:
    return config_of("uniter")["hidden_size"]


@pytest.fixture(scope="module")
def uniter_batch() -> Batch:
    return ragged(width=32)


class TestUniter:
    def test_answers(self, uniter_size: int, uniter_batch: Batch, tmp_path: Path):
        head = mlp(uniter_size, 2 * uniter_size, ANSWERS)
        model = from_predecessor(with_heads("uniter", tmp_path / "theirs", {"vqa_output": head}))
        assert type(model) is MmptSingleStreamForQuestionAnswering
        labels = torch.rand(BATCH, ANSWERS, generator=torch.Generator().manual_seed(3))
        expected = head(model.backbone(**uniter_batch).pooler_output)
        output = model(**uniter_batch, labels=labels)
        torch.testing.assert_close(output.logits, expected, **CLOSE)
        theirs = F.binary_cross_entropy_with_logits(expected, labels, reduction="none").mean() * ANSWERS
        torch.testing.assert_close(output.loss, theirs)
        assert not dropped(model)

    def test_three_answers_are_entailment_unless_said(self, uniter_size: int, uniter_batch: Batch, tmp_path: Path):
        head = mlp(uniter_size, 2 * uniter_size, 3)
        folder = with_heads("uniter", tmp_path / "theirs", {"vqa_output": head})
        model = from_predecessor(folder)
        assert type(model) is MmptSingleStreamForSequenceClassification
        assert model.config.id2label == {0: "contradiction", 1: "entailment", 2: "neutral"}
        expected = head(model.backbone(**uniter_batch).pooler_output)
        torch.testing.assert_close(model(**uniter_batch).logits, expected, **CLOSE)
        assert type(from_predecessor(folder, task="vqa")) is MmptSingleStreamForQuestionAnswering

    def test_two_images_side_by_side(self, uniter_size: int, uniter_batch: Batch, tmp_path: Path):
        head = nn.Linear(2 * uniter_size, 2)
        model = from_predecessor(with_heads("uniter", tmp_path / "theirs", {"nlvr2_output": head}, types=3))
        assert type(model) is MmptSingleStreamForImagesAndTextClassification
        batch = two_images(uniter_batch)
        pooled = [
            # UNITER numbers the types of the images 1 and 2; the configuration's region_token_type_id is 1.
            model.backbone(**image(batch, i), region_type_ids=torch.full((BATCH, REGIONS), i)).pooler_output
            for i in range(2)
        ]
        expected = head(torch.cat(pooled, -1))
        output = model(**batch, labels=torch.tensor([0, 1, 1]))
        torch.testing.assert_close(output.logits, expected, **CLOSE)
        torch.testing.assert_close(output.loss, F.cross_entropy(expected, torch.tensor([0, 1, 1])))
        assert model.config.id2label == {0: "false", 1: "true"}

    def test_two_images_of_one_type(self, uniter_size: int, uniter_batch: Batch, tmp_path: Path):
        """A table of two types means that both images had the same type."""
        head = nn.Linear(2 * uniter_size, 2)
        model = from_predecessor(with_heads("uniter", tmp_path / "theirs", {"nlvr2_output": head}))
        batch = two_images(uniter_batch)
        pooled = [model.backbone(**image(batch, i)).pooler_output for i in range(2)]
        torch.testing.assert_close(model(**batch).logits, head(torch.cat(pooled, -1)), **CLOSE)

    def test_two_images_in_one_sequence(self, uniter_size: int, uniter_batch: Batch, tmp_path: Path):
        head = nn.Linear(uniter_size, 2)
        model = from_predecessor(with_heads("uniter", tmp_path / "theirs", {"nlvr2_output": head}, types=3))
        batch = two_images(uniter_batch)
        joined = {
            name: torch.cat([value[:, 0], value[:, 1]], 1) if "region" in name else value
            for name, value in batch.items()
        }
        joined["region_type_ids"] = (torch.arange(2 * REGIONS) >= REGIONS).long().expand(BATCH, -1)
        expected = head(model.backbone(**joined).pooler_output)
        torch.testing.assert_close(model(**batch).logits, expected, **CLOSE)

    def test_one_sequence_needs_a_type_for_each_image(self, uniter_size: int, tmp_path: Path):
        folder = with_heads("uniter", tmp_path / "theirs", {"nlvr2_output": nn.Linear(uniter_size, 2)})
        with pytest.raises(ValueError, match=r"image_pair='triplet' tells .* 'shared' with 2 rows, expected 3 or more"):
            plan_conversion(folder)
        with pytest.raises(
            ValueError, match=r"image_pair_types=True tells .* 'shared' with 2 rows, expected 3 or more"
        ):
            plan_conversion(folder, image_pair="pair", image_pair_types=True)

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_two_images_that_attend_to_each_other(
        self, attention: str, uniter_size: int, uniter_batch: Batch, tmp_path: Path
    ):
        heads = {
            "attn1": nn.MultiheadAttention(uniter_size, 4, batch_first=True),
            "attn2": nn.MultiheadAttention(uniter_size, 4, batch_first=True),
            "fc": nn.Sequential(nn.Linear(2 * uniter_size, uniter_size), nn.ReLU()),
            "attn_pool.fc": nn.Sequential(nn.Linear(uniter_size, 1), nn.ReLU()),
            "nlvr2_output": nn.Linear(2 * uniter_size, 2),
        }
        model = from_predecessor(with_heads("uniter", tmp_path / "theirs", heads, types=3))
        model.set_attn_implementation(attention)
        assert model.config.num_attention_heads == 4
        batch = two_images(uniter_batch)
        states, padding = [], []
        for i in range(2):
            one = image(batch, i) | {"region_type_ids": torch.full((BATCH, REGIONS), i)}
            states.append(model.backbone(**one).last_hidden_state)
            padding.append(torch.cat([one["attention_mask"], one["region_attention_mask"]], 1) == 0)
        (left, right), (left_padding, right_padding) = states, padding
        to_right, _ = heads["attn1"](left, right, right, key_padding_mask=right_padding)
        to_left, _ = heads["attn2"](right, left, left, key_padding_mask=left_padding)
        pooled = []
        for seen, own, hidden in ((to_right, left, left_padding), (to_left, right, right_padding)):
            merged = heads["fc"](torch.cat([seen, own], -1))
            weights = (heads["attn_pool.fc"](merged).squeeze(-1) + hidden * -1e4).softmax(1)
            pooled.append((weights[..., None] * merged).sum(1))
        expected = heads["nlvr2_output"](torch.cat(pooled, -1))
        torch.testing.assert_close(model(**batch).logits, expected, atol=1e-4, rtol=1e-4)

    def test_ranks(self, uniter_size: int, uniter_batch: Batch, tmp_path: Path):
        heads = {"itm_output": nn.Linear(uniter_size, 2), "rank_output": nn.Linear(uniter_size, 1)}
        model = from_predecessor(with_heads("uniter", tmp_path / "theirs", heads))
        assert type(model) is MmptSingleStreamForImageAndTextRetrieval
        expected = heads["rank_output"](model.backbone(**uniter_batch).pooler_output).squeeze(-1)
        torch.testing.assert_close(model(**uniter_batch).logits, expected, **CLOSE)
        assert "a pre-training head" in dropped(model)["itm_output.weight"]
        # UNITER: max(0, margin + negative - true) of the sigmoids; here the negatives are the next rows of the batch.
        pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)]
        rows = {k: v[[i if "region" in k else t for t, i in pairs]] for k, v in uniter_batch.items()}
        scores = heads["rank_output"](model.backbone(**rows).pooler_output).sigmoid().view(3, 3)
        their_loss = torch.clamp(0.2 + scores[1:] - scores[:1], 0).mean()
        assert their_loss > 0
        torch.testing.assert_close(model(**uniter_batch, labels=torch.arange(BATCH)).loss, their_loss, **CLOSE)

    @pytest.mark.parametrize("layers", [1, 2])
    def test_refers(self, layers: int, uniter_size: int, uniter_batch: Batch, tmp_path: Path):
        head = nn.Linear(uniter_size, 1) if layers == 1 else mlp(uniter_size, uniter_size, 1)
        model = from_predecessor(with_heads("uniter", tmp_path / "theirs", {"re_output": head}))
        assert type(model) is MmptSingleStreamForGrounding
        scores = head(model.backbone(**uniter_batch).region_last_hidden_state).squeeze(-1)
        scores = scores.masked_fill(uniter_batch["region_attention_mask"] == 0, -1e4)
        overlaps = torch.tensor([[0.1, 0.2, 0.9, 0.0], [0.0, 1.0, -100, -100], [0.6, 0.1, 0.5, -100]])
        output = model(**uniter_batch, labels=overlaps)
        there = uniter_batch["region_attention_mask"].bool()
        torch.testing.assert_close(output.logits[there], scores[there], **CLOSE)
        torch.testing.assert_close(output.loss, F.cross_entropy(scores, torch.tensor([2, 1, 0])))

    def test_chooses(self, uniter_size: int, uniter_batch: Batch, tmp_path: Path):
        head = mlp(uniter_size, 2 * uniter_size, 2, nn.ReLU())
        model = from_predecessor(with_heads("uniter", tmp_path / "theirs", {"vcr_output": head}, types=4))
        assert type(model) is MmptSingleStreamForMultipleChoice
        other = ragged(32, seed=11)["input_ids"]
        texts = {name: uniter_batch[name] for name in ("attention_mask", "token_type_ids")}
        texts["token_type_ids"] = torch.full((BATCH, TOKENS), 3)  # UNITER's type of a right answer
        regions = {name: value for name, value in uniter_batch.items() if "region" in name}
        expected = [
            head(model.backbone(input_ids=ids, **texts, **regions).pooler_output)[:, 1]
            for ids in (uniter_batch["input_ids"], other)
        ]
        batch = {name: torch.stack([value, value], 1) for name, value in texts.items()} | regions
        batch["input_ids"] = torch.stack([uniter_batch["input_ids"], other], 1)
        torch.testing.assert_close(model(**batch).logits, torch.stack(expected, 1), **CLOSE)


def test_the_original_visual_bert_says_nothing_of_its_task(tmp_path: Path):
    """Its heads have other names, its regions type 0, and two images types 0 and 1."""
    size = config_of("visualbert_original")["hidden_size"]
    head = nn.Linear(size, 2)
    folder = with_heads("visualbert_original", tmp_path / "theirs", {"classifier": head})
    model = from_predecessor(folder)
    assert type(model) is MmptSingleStreamForImagesAndTextClassification
    assert any(said.startswith("task = nlvr2: no configuration") for said in model.conversion_report.assumptions)
    batch = two_images(ragged(model.config.region_feature_dim))
    joined = {name: value.flatten(1, 2) if "region" in name else value for name, value in batch.items()}
    joined["region_type_ids"] = (torch.arange(2 * REGIONS) >= REGIONS).long().expand(BATCH, -1)
    expected = head(model.backbone(**joined).pooler_output)
    torch.testing.assert_close(model(**batch).logits, expected, **CLOSE)
    answers = from_predecessor(folder, task="vqa")
    batch = image(batch, 0)
    hidden = answers.backbone(**batch).text_last_hidden_state[range(BATCH), batch["attention_mask"].sum(1) - 2]
    torch.testing.assert_close(answers(**batch).logits, head(hidden), **CLOSE)


class TestOscar:
    @pytest.fixture
    def batch(self) -> Batch:
        return ragged(width=config_of("oscar")["img_feature_dim"] - 6)

    @pytest.mark.parametrize("loss", ["bce", "kl"])
    def test_answers(self, loss: str, batch: Batch, tmp_path: Path):
        head = nn.Linear(config_of("oscar")["hidden_size"], ANSWERS)
        folder = with_heads("oscar", tmp_path / "theirs", {"classifier": head}, config={"loss_type": loss})
        model = from_predecessor(folder)
        assert type(model) is MmptSingleStreamForQuestionAnswering
        assert model.config.pooled_dropout_prob == config_of("oscar")["hidden_dropout_prob"]
        labels = torch.rand(BATCH, ANSWERS, generator=torch.Generator().manual_seed(3)).softmax(-1)
        expected = head(model.backbone(**batch).pooler_output)
        output = model(**batch, labels=labels)
        torch.testing.assert_close(output.logits, expected, **CLOSE)
        losses = {
            "bce": F.binary_cross_entropy_with_logits(expected, labels) * ANSWERS,
            "kl": F.kl_div(expected.log_softmax(-1), labels, reduction="batchmean"),
        }
        torch.testing.assert_close(output.loss, losses[loss])

    def test_ranks_by_class_one(self, batch: Batch, tmp_path: Path):
        head = nn.Linear(config_of("oscar")["hidden_size"], 2)
        model = from_predecessor(with_heads("oscar", tmp_path / "theirs", {"classifier": head}))
        assert type(model) is MmptSingleStreamForImageAndTextRetrieval
        matched = head(model.backbone(**batch).pooler_output).softmax(-1)[:, 1]
        torch.testing.assert_close(model(**batch).logits.sigmoid(), matched, **CLOSE)

    def test_two_images_side_by_side(self, tmp_path: Path):
        head = nn.Linear(2 * config_of("oscar")["hidden_size"], 2)
        model = from_predecessor(with_heads("oscar", tmp_path / "theirs", {"classifier": head}))
        assert type(model) is MmptSingleStreamForImagesAndTextClassification
        batch = two_images(ragged(width=32))
        pooled = [model.backbone(**image(batch, number)).pooler_output for number in (0, 1)]
        torch.testing.assert_close(model(**batch).logits, head(torch.cat(pooled, 1)), **CLOSE)

    @pytest.mark.parametrize("norm", [False, True])
    @pytest.mark.parametrize("images", [1, 2])
    def test_an_mlp(self, images: int, norm: bool, tmp_path: Path):
        size = config_of("oscar")["hidden_size"]
        layers = [nn.Linear(images * size, 3 * size), nn.ReLU(), nn.Linear(3 * size, 2)]
        if norm:
            layers.insert(2, nn.LayerNorm(3 * size, eps=1e-12))
        head = nn.Sequential(*layers)
        folder = with_heads("oscar", tmp_path / "theirs", {"classifier": head})
        model = from_predecessor(folder, task="auto" if images == 2 else "classification")
        batch = ragged(width=32)
        if images == 2:
            batch = two_images(batch)
            pooled = torch.cat([model.backbone(**image(batch, number)).pooler_output for number in (0, 1)], 1)
        else:
            pooled = model.backbone(**batch).pooler_output
        torch.testing.assert_close(model(**batch).logits, head(pooled), **CLOSE)
        model.save_pretrained(tmp_path / "ours")
        loaded = type(model).from_pretrained(tmp_path / "ours").eval()
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)

    def test_other_widths_are_not_covered(self, tmp_path: Path):
        head = nn.Linear(3 * config_of("oscar")["hidden_size"], 2)
        folder = with_heads("oscar", tmp_path / "theirs", {"classifier": head})
        with pytest.raises(ValueError, match=r"not supported or incomplete: classifier\."):
            from_predecessor(folder)
        model = from_predecessor(folder, task="pretraining")
        assert type(model) is MmptSingleStreamForPreTraining
        assert dropped(model)["classifier.weight"] == "a fine-tuned head that is not supported or incomplete"


class TestVolta:
    """Heads by task as `BertForVLTasks` builds them; only the encoder's pooled vectors are ours."""

    NAME = "volta_ctrl_vilbert"

    @pytest.fixture
    def sizes(self) -> tuple[int, int]:
        """Return the widths of the pooled vectors and of the regions."""
        config = config_of(self.NAME)
        return config["pooler_size"], config["v_hidden_size"]

    def convert(self, folder: Path, head: nn.Module, **options: Any) -> Any:
        theirs = with_heads(self.NAME, folder / "theirs", {"clfs_dict.TASK1": head})
        return from_predecessor(theirs, **options)

    def test_answers(self, sizes: tuple[int, int], tmp_path: Path):
        head = nn.ModuleDict({"logit_fc": mlp(sizes[0], 20, ANSWERS)})
        model = self.convert(tmp_path, head)
        assert type(model) is MmptDualStreamForQuestionAnswering
        batch = ragged(width=32)
        expected = head["logit_fc"](model.backbone(**batch).pooler_output)
        torch.testing.assert_close(model(**batch).logits, expected, **CLOSE)
        assert not dropped(model)

    def test_two_images(self, sizes: tuple[int, int], tmp_path: Path):
        head = nn.ModuleDict({"logit_fc": mlp(2 * sizes[0], 20, 2)})
        model = self.convert(tmp_path, head)
        batch = two_images(ragged(width=32))
        pooled = torch.cat([model.backbone(**image(batch, number)).pooler_output for number in (0, 1)], 1)
        torch.testing.assert_close(model(**batch).logits, head["logit_fc"](pooled), **CLOSE)
        assert model.config.id2label == {0: "false", 1: "true"}

    def test_entailment(self, sizes: tuple[int, int], tmp_path: Path):
        head = nn.Linear(sizes[0], 3)
        model = self.convert(tmp_path, head)
        batch = ragged(width=32)
        torch.testing.assert_close(model(**batch).logits, head(model.backbone(**batch).pooler_output), **CLOSE)
        assert model.config.id2label == {0: "contradiction", 1: "neutral", 2: "entailment"}

    def test_one_output_ranks_or_grounds(self, sizes: tuple[int, int], tmp_path: Path):
        batch = ragged(width=32)
        head = nn.Linear(sizes[0], 1)
        model = self.convert(tmp_path, head, task="retrieval")
        expected = head(model.backbone(**batch).pooler_output).squeeze(-1)
        torch.testing.assert_close(model(**batch).logits, expected, **CLOSE)
        if sizes[0] == sizes[1]:
            with pytest.raises(ValueError, match=r"not supported|several fine-tuned heads"):
                from_predecessor(tmp_path / "theirs")

    @pytest.mark.parametrize("layers", [1, 2])
    def test_grounding(self, layers: int, sizes: tuple[int, int], tmp_path: Path):
        size = sizes[1]
        two = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Dropout(0.1), nn.Linear(size, 1))
        head = nn.Linear(size, 1) if layers == 1 else two
        model = self.convert(tmp_path, head, task="grounding")
        batch = ragged(width=32)
        expected = head(model.backbone(**batch).region_last_hidden_state).squeeze(-1)
        mask = batch["region_attention_mask"].bool()
        torch.testing.assert_close(model(**batch).logits[mask], expected[mask], **CLOSE)


def vilbert_heads(sizes: Iterable[str]) -> dict[str, nn.Module]:
    config = config_of("vilbert")
    pooled = config["bi_hidden_size"]
    heads = {
        "vil_prediction.logit_fc": mlp(pooled, 2 * pooled, ANSWERS),
        "vil_tri_prediction": nn.Linear(pooled, 3),
        "linguisic_logit": nn.Linear(config["hidden_size"], 1),
    }
    return {name: head for name, head in heads.items() if name in sizes}


class TestChoice:
    def test_one_head_is_taken(self, tmp_path: Path):
        heads = vilbert_heads(["vil_tri_prediction", "linguisic_logit"])
        folder = with_heads("vilbert", tmp_path / "theirs", heads, keep_pretraining=True)
        plan = plan_conversion(folder)
        assert plan.model_class.__name__ == "MmptDualStreamForSequenceClassification"
        assert plan.config.id2label == {0: "contradiction", 1: "neutral", 2: "entailment"}
        assert plan.config.pooled_dropout_prob == 0.1
        assert plan.config.objective_weights == {}
        assert type(from_predecessor(folder, task="pretraining")) is MmptDualStreamForPreTraining

    def test_of_several_one_is_named(self, tmp_path: Path):
        heads = vilbert_heads(["vil_prediction.logit_fc", "vil_tri_prediction"])
        folder = with_heads("vilbert", tmp_path / "theirs", heads)
        with pytest.raises(
            ValueError,
            match=r"several fine-tuned heads: vil_prediction \(vqa\), vil_tri_prediction \(entailment\); .*--task",
        ):
            plan_conversion(folder)
        plan = plan_conversion(folder, task="vil_prediction")
        assert plan.model_class is MmptDualStreamForQuestionAnswering
        reasons = {key.theirs: key.note for key in plan.report.of("dropped")}
        assert "use it with --task vil_tri_prediction" in reasons["vil_tri_prediction.weight"]

    def test_what_is_not_there_is_an_error(self, uniter_size: int, tmp_path: Path):
        folder = with_heads("uniter", tmp_path / "theirs", {"re_output": nn.Linear(uniter_size, 1)})
        with pytest.raises(ValueError, match=r"no fine-tuned head for task 'vqa'; it has re_output \(grounding\)"):
            plan_conversion(folder, task="vqa")
        (tmp_path / "oscar.json").write_text(json.dumps(config_of("oscar")))
        with pytest.raises(ValueError, match="no fine-tuned head for task 'vqa'; it has none that is supported"):
            plan_conversion(GOLDEN / "oscar" / "weights.safetensors", task="vqa", config_path=tmp_path / "oscar.json")

    def test_a_head_that_is_not_complete_stops_unless_pre_training_is_named(self, uniter_size: int, tmp_path: Path):
        folder = with_heads("uniter", tmp_path / "theirs", {"vqa_output.0": nn.Linear(uniter_size, 4)})
        with pytest.raises(ValueError, match=r"incomplete: vqa_output\.0"):
            from_predecessor(folder)
        model = from_predecessor(folder, task="pretraining")
        assert type(model) is MmptSingleStreamForPreTraining
        assert "incomplete" in dropped(model)["vqa_output.0.weight"]

    def test_the_folder_is_the_models(self, uniter_size: int, uniter_batch: Batch, tmp_path: Path):
        head = mlp(uniter_size, 2 * uniter_size, ANSWERS)
        folder = with_heads("uniter", tmp_path / "theirs", {"vqa_output": head})
        report = convert(folder, tmp_path / "ours")
        assert {key.ours for key in report.of("mapped")} >= {"classifiers.joint.decoder.weight"}
        loaded = MmptSingleStreamForQuestionAnswering.from_pretrained(tmp_path / "ours")
        expected = from_predecessor(folder)(**uniter_batch).logits
        assert torch.equal(loaded(**uniter_batch).logits, expected)


class TestLabels:
    @pytest.fixture
    def folder(self, uniter_size: int, tmp_path: Path) -> Path:
        return with_heads("uniter", tmp_path / "theirs", {"vqa_output": mlp(uniter_size, 2 * uniter_size, ANSWERS)})

    @pytest.mark.parametrize(
        "names",
        [
            ["no", "yes", "2", "red", "cat"],
            {"no": 0, "yes": 1, "2": 2, "red": 3, "cat": 4},
            {"0": "no", "1": "yes", "2": "2", "3": "red", "4": "cat"},
        ],
        ids=["list", "numbers by name", "names by number"],
    )
    def test_names_come_from_a_file(self, names: Any, folder: Path, tmp_path: Path):
        (tmp_path / "labels.json").write_text(json.dumps(names))
        config = plan_conversion(folder, labels=tmp_path / "labels.json").config
        assert config.id2label == {0: "no", 1: "yes", 2: "2", 3: "red", 4: "cat"}
        assert config.label2id == {"no": 0, "yes": 1, "2": 2, "red": 3, "cat": 4}

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["no", "yes"], r"names 2 labels, expected a unique name for each of 0\.\.4"),
            (["a", "a", "b", "c", "d"], "names 5 labels, expected a unique name"),
            ({"no": "yes"}, "neither a list of names nor an object of names and numbers"),
        ],
    )
    def test_wrong_names_are_errors(self, names: Any, message: str, folder: Path, tmp_path: Path):
        (tmp_path / "labels.json").write_text(json.dumps(names))
        with pytest.raises(ValueError, match=message):
            plan_conversion(folder, labels=tmp_path / "labels.json")

    def test_names_of_nothing_are_an_error(self, folder: Path, tmp_path: Path):
        with pytest.raises(ValueError, match=r"labels were given, but no fine-tuned head of .* is used"):
            plan_conversion(folder, task="pretraining", labels=tmp_path / "labels.json")

    def test_a_configurations_names_must_be_as_many(self, folder: Path):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "no", "1": "yes"}}))
        plan = plan_conversion(folder)
        assert plan.config.num_labels == ANSWERS
        assert any("2 label names of the configuration are ignored" in said for said in plan.report.assumptions)


def test_the_command_takes_a_task_and_names(uniter_size: int, tmp_path: Path):
    folder = with_heads("uniter", tmp_path / "theirs", {"vqa_output": mlp(uniter_size, 2 * uniter_size, 3)})
    (tmp_path / "labels.json").write_text('["no", "yes", "maybe"]')
    words = ["convert", str(folder), str(tmp_path / "ours"), "--labels", str(tmp_path / "labels.json")]
    result = CliRunner().invoke(app, [*words, "--task", "grounding"])
    assert result.exit_code == 2
    assert "it has vqa_output (vqa), vqa_output (entailment)" in result.stderr
    result = CliRunner().invoke(app, [*words, "--task", "vqa"])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "ours" / "conversion.json").read_text())
    assert report["model"] == "MmptSingleStreamForQuestionAnswering"
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "yes", "2": "maybe"}
