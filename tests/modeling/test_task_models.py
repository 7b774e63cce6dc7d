"""The models of the downstream tasks: their decisions, their losses, and what they go on from."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForVisualQuestionAnswering,
)

from mmpt.modeling_mmpt.classification_tasks import second_last_token
from tests.factories.models import (
    BATCH,
    REGION_COUNTS,
    STREAMS,
    tiny_backbone,
    tiny_batch,
    tiny_config,
    tiny_pretraining,
)
from tests.factories.task_models import CASES, CHOICES, CLASSES, task_batch, task_class, task_labels, tiny_task


def only(batch: dict[str, Tensor], row: int, task: str) -> dict[str, Tensor]:
    """Return one example without its padding."""
    alone = {name: value[row : row + 1] for name, value in batch.items()}
    for mask, names in (
        ("attention_mask", ("input_ids", "token_type_ids")),
        ("region_attention_mask", ("region_features", "region_boxes")),
    ):
        axis = alone[mask].dim() - 1
        length = int(alone[mask].sum(-1).max())
        for name in (mask, *names):
            alone[name] = alone[name].narrow(axis, 0, length)
    return alone


@pytest.mark.parametrize(("stream", "task"), CASES)
def test_padding_and_company_change_no_decision(stream: str, task: str) -> None:
    model, batch = tiny_task(stream, task), task_batch(task)
    together = model(**batch).logits
    for row in range(BATCH):
        alone = model(**only(batch, row, task)).logits[0]
        whole = together[row][..., : alone.shape[-1]] if alone.dim() else together[row]
        if task == "RegionToPhraseAlignment":
            asked = batch["phrase_positions"][row] >= 0
            alone, whole = alone[asked], whole[asked]
        torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stream", "task"), CASES)
def test_attention_backends_agree(stream: str, task: str) -> None:
    model, batch = tiny_task(stream, task), task_batch(task)
    by_backend = {}
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        by_backend[name] = model(**batch).logits
    torch.testing.assert_close(by_backend["eager"], by_backend["sdpa"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stream", "task"), CASES)
def test_a_saved_model_decides_the_same(stream: str, task: str, tmp_path: Path) -> None:
    model = tiny_task(stream, task, id2label={0: "red", 1: "green", 2: "blue"}, contrastive_size=8)
    model.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(loaded(**task_batch(task)).logits, model(**task_batch(task)).logits)
    assert loaded.config.id2label == {0: "red", 1: "green", 2: "blue"}


@pytest.mark.parametrize(("stream", "task"), CASES)
def test_every_weight_learns(stream: str, task: str) -> None:
    model = tiny_task(stream, task, contrastive_size=8)
    model(**task_batch(task), labels=task_labels(task)).loss.backward()
    still = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    # A pooler that nothing reads, and in the dual stream the last layer of the stream that is not read, have no say.
    assert not {name for name in still if not name.startswith("backbone.")}
    assert "backbone.text_embeddings.word_embeddings.weight" not in still
    assert "backbone.region_embeddings.feature_projection.weight" not in still


@pytest.mark.parametrize(("stream", "task"), CASES)
def test_goes_on_from_a_pre_trained_backbone(stream: str, task: str, tmp_path: Path) -> None:
    pretrained = tiny_pretraining(stream)
    pretrained.save_pretrained(tmp_path)
    model = task_class(stream, task).from_pretrained(tmp_path, num_labels=CLASSES, fusion="early")
    theirs = pretrained.backbone.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in model.backbone.state_dict().items())


@pytest.mark.parametrize("stream", STREAMS)
def test_auto_classes_know_the_tasks(stream: str, tmp_path: Path) -> None:
    tiny_pretraining(stream).save_pretrained(tmp_path)
    for auto_class, task in (
        (AutoModelForVisualQuestionAnswering, "QuestionAnswering"),
        (AutoModelForSequenceClassification, "SequenceClassification"),
        (AutoModelForMultipleChoice, "MultipleChoice"),
    ):
        assert type(auto_class.from_pretrained(tmp_path)) is task_class(stream, task)


class TestQuestionAnswering:
    def test_loss_is_uniters(self) -> None:
        """UNITER: the mean binary cross-entropy times the number of answers."""
        labels = task_labels("QuestionAnswering")
        output = tiny_task("single", "QuestionAnswering")(**tiny_batch(), labels=labels)
        expected = F.binary_cross_entropy_with_logits(output.logits, labels) * labels.shape[1]
        torch.testing.assert_close(output.loss, expected)

    def test_kl_is_visual_berts(self) -> None:
        labels = torch.tensor([[0.3, 0.9, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # no answer in the list: no loss
        output = tiny_task("single", "QuestionAnswering", answer_loss="kl")(**tiny_batch(), labels=labels)
        log_probs = output.logits.log_softmax(-1)
        first = 0.25 * (torch.tensor(0.25).log() - log_probs[0, 0]) + 0.75 * (
            torch.tensor(0.75).log() - log_probs[0, 1]
        )
        torch.testing.assert_close(output.loss, (first - log_probs[1, 0]) / 3)

    def test_reads_the_second_last_token(self) -> None:
        text = torch.arange(3 * 5).view(3, 5, 1).float()
        mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
        assert second_last_token(text, mask).flatten().tolist() == [3, 6, 12]
        assert second_last_token(text, None).flatten().tolist() == [3, 8, 13]
        model = tiny_task("single", "QuestionAnswering", answer_reads="second_last_token", classifier_head="linear")
        batch = tiny_batch()
        hidden = model.backbone(**batch).text_last_hidden_state
        rows = torch.stack([hidden[row, length - 2] for row, length in enumerate(batch["attention_mask"].sum(1))])
        torch.testing.assert_close(model(**batch).logits, model.classifiers["joint"](rows))

    def test_refuses_class_numbers(self) -> None:
        with pytest.raises(ValueError, match=r"labels are \(3,\) of torch.int64, expected a float score"):
            tiny_task("single", "QuestionAnswering")(**tiny_batch(), labels=torch.tensor([0, 1, 2]))


class TestClassification:
    @pytest.mark.parametrize("head", ["linear", "mlp"])
    @pytest.mark.parametrize("stream", STREAMS)
    def test_reads_the_pooled_vector(self, stream: str, head: str) -> None:
        model = tiny_task(stream, "SequenceClassification", classifier_head=head)
        pooled = model.backbone(**tiny_batch()).pooler_output
        torch.testing.assert_close(model(**tiny_batch()).logits, model.classifiers["joint"](pooled))

    def test_smoothing_and_weights_are_torchs(self) -> None:
        labels, weights = torch.tensor([0, 1, 2]), [1.0, 2.0, 0.5]
        model = tiny_task("single", "SequenceClassification", label_smoothing=0.1, class_weights=weights)
        output = model(**tiny_batch(), labels=labels)
        loss = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights), label_smoothing=0.1)
        torch.testing.assert_close(output.loss, loss(output.logits, labels))

    def test_refuses_weights_for_other_classes(self) -> None:
        model = tiny_task("single", "SequenceClassification", class_weights=[1.0, 2.0])
        with pytest.raises(ValueError, match="class_weights has 2 entries, expected one for each of 3"):
            model(**tiny_batch(), labels=torch.tensor([0, 1, 2]))

    def test_an_image_alone_needs_a_pooled_vector(self) -> None:
        batch = {name: value for name, value in tiny_batch().items() if "region" in name}
        with pytest.raises(ValueError, match="got no text, and this model has no pooled vector of regions alone"):
            tiny_task("single", "SequenceClassification")(**batch)
        assert tiny_task("single", "SequenceClassification", pooled_fusion="mul")(**batch).logits.shape == (3, 3)


class TestImagesAndText:
    @pytest.mark.parametrize("stream", STREAMS)
    def test_pair_is_both_pooled_vectors(self, stream: str) -> None:
        model, batch = tiny_task(stream, "ImagesAndTextClassification"), task_batch("ImagesAndTextClassification")
        pooled = [
            model.backbone(**{k: v[:, i] if "region" in k else v for k, v in batch.items()}).pooler_output
            for i in range(2)
        ]
        torch.testing.assert_close(model(**batch).logits, model.classifiers["joint"](torch.cat(pooled, -1)))

    def test_triplet_is_one_sequence_with_the_image_as_type(self) -> None:
        model = tiny_task("single", "ImagesAndTextClassification", image_pair="triplet")
        batch = task_batch("ImagesAndTextClassification")
        flat = {k: v.flatten(1, 2) if "region" in k else v for k, v in batch.items()}
        flat["region_type_ids"] = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]] * BATCH)
        pooled = model.backbone(**flat).pooler_output
        torch.testing.assert_close(model(**batch).logits, model.classifiers["joint"](pooled))

    @pytest.mark.parametrize("pair", ["pair", "triplet", "pair_attention"])
    @pytest.mark.parametrize("stream", STREAMS)
    def test_tells_the_images_apart(self, stream: str, pair: str) -> None:
        model = tiny_task(stream, "ImagesAndTextClassification", image_pair=pair)
        batch = task_batch("ImagesAndTextClassification")
        swapped = {k: v.flip(1) if "region" in k else v for k, v in batch.items()}
        assert not torch.allclose(model(**batch).logits, model(**swapped).logits, atol=1e-3)

    @pytest.mark.parametrize("stream", STREAMS)
    def test_pair_attention_does_not_see_padding(self, stream: str) -> None:
        model = tiny_task(stream, "ImagesAndTextClassification", image_pair="pair_attention")
        batch = task_batch("ImagesAndTextClassification")
        alone = only(batch, 1, "ImagesAndTextClassification")
        torch.testing.assert_close(model(**batch).logits[1], model(**alone).logits[0], rtol=1e-4, atol=1e-5)

    def test_triplet_needs_a_type_an_image(self) -> None:
        with pytest.raises(ValueError, match="region_type_embedding is 'none' with 0 rows, expected 2 or more"):
            tiny_task("single", "ImagesAndTextClassification", image_pair="triplet", region_type_embedding="none")

    def test_refuses_one_image(self) -> None:
        with pytest.raises(ValueError, match=r"region_features is \(3, 4, 6\), expected \(batch, 2, regions"):
            tiny_task("single", "ImagesAndTextClassification")(**tiny_batch())


class TestMultipleChoice:
    @pytest.mark.parametrize("stream", STREAMS)
    def test_each_choice_is_scored_by_itself(self, stream: str) -> None:
        model, batch = tiny_task(stream, "MultipleChoice"), task_batch("MultipleChoice")
        logits = model(**batch).logits
        assert logits.shape == (BATCH, CHOICES)
        for choice in range(CHOICES):
            one = {k: v if "region" in k else v[:, choice : choice + 1] for k, v in batch.items()}
            torch.testing.assert_close(model(**one).logits[:, 0], logits[:, choice], rtol=1e-4, atol=1e-5)
        repeated = {k: v[:, None].expand(-1, CHOICES, *v.shape[1:]) if "region" in k else v for k, v in batch.items()}
        torch.testing.assert_close(model(**repeated).logits, logits)

    def test_refuses_one_text(self) -> None:
        with pytest.raises(ValueError, match=r"the texts are \(3, 5\), expected \(batch, choices, tokens\)"):
            tiny_task("single", "MultipleChoice")(**tiny_batch())


class TestRetrieval:
    @pytest.mark.parametrize("stream", STREAMS)
    def test_starts_as_image_text_matching(self, stream: str, tmp_path: Path) -> None:
        pretrained = tiny_pretraining(stream, pooled_dropout_prob=0.1)
        pretrained.save_pretrained(tmp_path)
        model = task_class(stream, "ImageAndTextRetrieval").from_pretrained(tmp_path)
        matched = pretrained(**tiny_batch()).itm_logits.softmax(-1)[:, 1]
        torch.testing.assert_close(model(**tiny_batch()).logits.sigmoid(), matched)

    @pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
    @pytest.mark.parametrize("stream", STREAMS)
    def test_the_hardest_negatives_of_the_contrastive_head(self, stream: str, loss: str) -> None:
        model = tiny_task(stream, "ImageAndTextRetrieval", contrastive_size=8, retrieval_loss=loss)
        batch, numbers = tiny_batch(), torch.tensor([7, 7, 9])  # rows 0 and 1 show one image
        texts = model.embed_texts(**{k: v for k, v in batch.items() if "region" not in k})
        images = model.embed_images(**{k: v for k, v in batch.items() if "region" in k})
        torch.testing.assert_close(texts.norm(dim=-1), torch.ones(3))
        similar = texts @ images.t() / 0.07

        def score(text: int, image: int) -> Tensor:
            rows = {k: v[[image]] if "region" in k else v[[text]] for k, v in batch.items()}
            return model(**rows).logits[0]

        nearest_text = int(similar[:2, 2].argmax())  # of image 2
        nearest_image = int(similar[2, :2].argmax())  # of text 2
        negatives = [[(0, 2), (2, 0)], [(1, 2), (2, 1)], [(2, nearest_image), (nearest_text, 2)]]
        losses = []
        for row, pairs in enumerate(negatives):
            true, false = score(row, row), torch.stack([score(*pair) for pair in pairs])
            if loss == "margin":
                losses.append((0.2 + false.sigmoid() - true.sigmoid()).clamp(min=0).mean())
            else:
                losses.append(-torch.cat([true[None], false]).log_softmax(0)[0])
        targets = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
        contrast = -(targets * similar.log_softmax(1)).sum(1).mean() - (targets * similar.log_softmax(0)).sum(0).mean()
        output = model(**batch, labels=numbers)
        torch.testing.assert_close(output.loss, torch.stack(losses).mean() + contrast / 2, rtol=1e-4, atol=1e-5)

    def test_without_a_contrastive_head_negatives_are_the_next_rows(self) -> None:
        model, batch = tiny_task("single", "ImageAndTextRetrieval", retrieval_loss="cross_entropy"), tiny_batch()
        pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)]
        rows = {k: v[[i if "region" in k else t for t, i in pairs]] for k, v in batch.items()}
        true, image, text = model(**rows).logits.view(3, 3)
        expected = -torch.stack([true, image, text], 1).log_softmax(1)[:, 0].mean()
        torch.testing.assert_close(model(**batch, labels=torch.arange(3)).loss, expected)
        with pytest.raises(ValueError, match="fine-tune with contrastive_size above 0"):
            model.embed_texts(input_ids=batch["input_ids"])

    @pytest.mark.parametrize("size", [0, 8])
    def test_a_batch_of_one_image_has_nothing_to_rank(self, size: int) -> None:
        model = tiny_task("single", "ImageAndTextRetrieval", contrastive_size=size)
        output = model(**tiny_batch(), labels=torch.tensor([4, 4, 4]))
        output.loss.backward()
        assert torch.isfinite(output.loss)
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


class TestGrounding:
    @pytest.mark.parametrize("stream", STREAMS)
    def test_loss_is_vilberts(self, stream: str) -> None:
        """ViLBERT: the mean binary cross-entropy over batch and regions, times the number of regions."""
        batch = tiny_batch(ragged=False)
        labels = torch.rand(BATCH, 4, generator=torch.Generator().manual_seed(0))
        output = tiny_task(stream, "Grounding")(**batch, labels=labels)
        torch.testing.assert_close(output.loss, F.binary_cross_entropy_with_logits(output.logits, labels) * 4)

    def test_ignored_regions_and_padding_cost_nothing(self) -> None:
        model, labels = tiny_task("single", "Grounding"), task_labels("Grounding")
        output = model(**tiny_batch(), labels=labels)
        rows = [
            F.binary_cross_entropy_with_logits(output.logits[row, :count], labels[row, :count], reduction="sum")
            for row, count in enumerate(REGION_COUNTS)
        ]
        torch.testing.assert_close(output.loss, torch.stack(rows).mean())
        labels[0, 0] = -100.0
        assert model(**tiny_batch(), labels=labels).loss < output.loss

    def test_cross_entropy_of_the_best_region(self) -> None:
        labels = torch.tensor([[0.1, 0.8, 0.9, 0.0], [0.0, 0.0, -100, -100], [0.7, -100, -100, -100]])
        output = tiny_task("single", "Grounding", grounding_loss="cross_entropy")(**tiny_batch(), labels=labels)
        expected = -output.logits[0].log_softmax(0)[2]  # one region alone is certain, and row 1 has no target
        torch.testing.assert_close(output.loss, expected / 2)

    def test_needs_both_modalities(self) -> None:
        with pytest.raises(ValueError, match="got no region_features, expected text and regions together"):
            tiny_task("single", "Grounding")(input_ids=tiny_batch()["input_ids"])


class TestPhrases:
    def test_scores_and_loss_are_visual_berts(self) -> None:
        model, batch = tiny_task("dual", "RegionToPhraseAlignment"), task_batch("RegionToPhraseAlignment")
        labels = task_labels("RegionToPhraseAlignment")
        states = model.backbone(**tiny_batch())
        query = model.query(states.text_last_hidden_state[0, 1])
        scores = model.key(states.region_last_hidden_state[0]) @ query / 4.0  # sqrt of 16
        output = model(**batch, labels=labels)
        torch.testing.assert_close(output.logits[0, 0], scores)
        rows = [(0, 0), (0, 1), (1, 0)]
        log_probs = torch.stack([output.logits[row] for row in rows]).log_softmax(-1)
        targets = torch.stack([labels[row] for row in rows])
        torch.testing.assert_close(output.loss, F.kl_div(log_probs, targets, reduction="sum") / BATCH)

    def test_positions_are_those_of_the_tokens_whatever_the_task_embedding(self) -> None:
        model = tiny_task("single", "RegionToPhraseAlignment", num_task_tokens=2)
        states = model.backbone(**tiny_batch(), task_ids=torch.tensor([0, 1, 0]))
        output = model(**task_batch("RegionToPhraseAlignment"), task_ids=torch.tensor([0, 1, 0]))
        query = model.query(states.text_last_hidden_state[0, 2])
        expected = model.key(states.region_last_hidden_state[0]) @ query / 4.0
        torch.testing.assert_close(output.logits[0, 0], expected)

    def test_refuses_missing_positions(self) -> None:
        with pytest.raises(ValueError, match="got no phrase_positions"):
            tiny_task("single", "RegionToPhraseAlignment")(**tiny_batch())


@pytest.mark.parametrize("task", ["ImageAndTextRetrieval", "Grounding", "RegionToPhraseAlignment"])
@pytest.mark.parametrize("fusion", ["late", "hybrid"])
def test_what_needs_both_modalities_has_no_late_fusion(task: str, fusion: str) -> None:
    with pytest.raises(ValueError, match=f"has no fusion '{fusion}'.*set fusion='early'"):
        tiny_task("single", task, fusion=fusion)


def test_a_head_of_ones_own_reads_the_plain_backbone() -> None:
    """The backbone gives every state a head may want."""
    backbone = tiny_backbone("dual")
    states = backbone(**tiny_batch())
    head = torch.nn.Linear(backbone.config.hidden_size, 2)
    F.cross_entropy(head(states.pooler_output), torch.tensor([0, 1, 1])).backward()
    assert backbone.text_embeddings.word_embeddings.weight.grad.any()
    assert tiny_config("dual").hidden_size == head.in_features


@pytest.mark.parametrize("stream", ["single", "dual"])
def test_files_hold_the_scale_of_similarities_as_a_scalar_and_load_into_a_vector(tmp_path: Path, stream: str) -> None:
    model = tiny_task(stream, "ImageAndTextRetrieval", contrastive_size=8)
    model.contrastive.log_scale.data.fill_(1.25)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved["contrastive.log_scale"].shape == ()
    for loaded in (
        type(model).from_pretrained(tmp_path),
        tiny_task(stream, "ImageAndTextRetrieval", contrastive_size=8),
    ):
        loaded.load_state_dict(saved)  # as Trainer does
        assert loaded.contrastive.log_scale.tolist() == [1.25]
    assert type(model).from_pretrained(tmp_path).contrastive.log_scale.tolist() == [1.25]
    plain = tiny_task(stream, "ImageAndTextRetrieval")
    plain.save_pretrained(tmp_path / "plain")
    type(model).from_pretrained(tmp_path / "plain", contrastive_size=8).save_pretrained(tmp_path / "new")
    assert load_file(tmp_path / "new" / "model.safetensors")["contrastive.log_scale"].shape == ()


@pytest.mark.parametrize("task", ["QuestionAnswering", "ImageAndTextRetrieval"])
def test_a_task_folder_loads_for_pre_training_with_one_sentence(
    tmp_path: Path, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved = tiny_task("single", task)
    saved.save_pretrained(tmp_path)
    transformers_logger = logging.getLogger("transformers")
    transformers_logger.addHandler(caplog.handler)
    try:
        model, found = AutoModelForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    finally:
        transformers_logger.removeHandler(caplog.handler)
    assert len(caplog.records) == 1
    assert f"holds a MmptSingleStreamFor{task}: its backbone is loaded" in caplog.text
    assert "heads region_class, region_feature, token start at random" in caplog.text.replace("matching, ", "")
    assert ("matching" in caplog.text) == ("heads.matching.bias" in found["missing_keys"]) == (task[0] == "Q")
    assert "heads.token.decoder.bias" in found["missing_keys"]
    words = saved.backbone.text_embeddings.word_embeddings.weight
    assert torch.equal(model.backbone.text_embeddings.word_embeddings.weight, words)
