"""A batch holds the labels of every configured objective, and no corruption gives another's answer away."""

import logging
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoModelForPreTraining, PreTrainedTokenizerFast

import mmpt  # noqa: F401  (registers the Auto classes)
from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.word_tokenizer import build_word_tokenizer
from tests.factories.examples import (
    BACKGROUND,
    CLASSES,
    FEATURE,
    TOKENIZER,
    WORDS,
    make_collator,
    random_examples,
    random_regions,
    small_config,
    within,
)

INPUTS = {
    *("input_ids", "attention_mask", "token_type_ids"),
    *("region_features", "region_boxes", "region_attention_mask", "masked_regions"),
}
LABELS = {f"{name}_labels" for name in OBJECTIVE_NAMES}
MASK = TOKENIZER.mask_token_id
EXAMPLES = random_examples(300)
Batch = dict[str, Tensor]


def labelled(batch: Batch) -> dict[str, Tensor]:
    """Return for each objective which rows have a label, (batch,) bool."""
    return {name: (batch[name] != -100).view(len(batch[name]), -1).any(1) for name in batch if name.endswith("_labels")}


@pytest.fixture(scope="module")
def conditional() -> Batch:
    return make_collator()(EXAMPLES)


@pytest.fixture(scope="module")
def joint() -> Batch:
    return make_collator(policy="joint")(EXAMPLES)


# Conditional masking


def test_a_batch_has_inputs_and_the_labels_of_every_objective(conditional: Batch) -> None:
    layout = {name for name in conditional if name.startswith("layout_")}
    assert set(conditional) - layout == INPUTS | LABELS
    assert {len(conditional[name].shape) for name in layout} == {1, 2}
    rows, tokens = conditional["input_ids"].shape
    regions = conditional["region_features"].shape[1]
    shapes = {name: tuple(conditional[name].shape) for name in LABELS | {"masked_regions"}}
    assert shapes == {
        "masked_regions": (rows, regions),
        "mlm_labels": (rows, tokens),
        "mrc_labels": (rows, regions),
        "mrc_kl_labels": (rows, regions, CLASSES),
        "mrfr_labels": (rows, regions, FEATURE),
        "itm_labels": (rows,),
    }
    kinds = {name: conditional[name].dtype for name in LABELS}
    assert {name for name, kind in kinds.items() if kind == torch.float32} == {"mrc_kl_labels", "mrfr_labels"}
    assert {kind for name, kind in kinds.items() if name not in ("mrc_kl_labels", "mrfr_labels")} == {torch.int64}


def test_a_row_is_assigned_to_text_or_regions_or_matching(conditional: Batch) -> None:
    rows = labelled(conditional)
    text, regions, matching = rows["mlm_labels"], rows["mrfr_labels"], rows["itm_labels"]
    assert (text.int() + regions.int() + matching.int() <= 1).all()
    # A text of unknown words, or a row whose only class is the background, may be left without a label.
    assert (text | regions | matching).all()
    assert torch.equal(rows["mrc_kl_labels"], regions)
    assert torch.equal(conditional["masked_regions"].any(1), regions)
    for taken in (text, regions, matching):
        assert within(taken.sum(), len(EXAMPLES), 1 / 3)


def test_a_row_of_matching_is_masked_nowhere(conditional: Batch) -> None:
    rows = conditional["itm_labels"] != -100
    assert not conditional["masked_regions"][rows].any()
    assert not (conditional["input_ids"][rows] == MASK).any()
    present = conditional["region_attention_mask"][rows].bool()
    assert conditional["region_features"][rows][present].any(-1).all()


def test_half_of_the_matching_rows_are_mismatched(conditional: Batch) -> None:
    labels = conditional["itm_labels"]
    assert set(labels.tolist()) == {-100, 0, 1}
    assert within((labels == 0).sum(), (labels != -100).sum(), 0.5)


@pytest.mark.parametrize("shares", [{"text": 3, "regions": 1, "itm": 1}, {"text": 0.5, "regions": 0.5}, {"itm": 2.0}])
def test_rows_are_assigned_by_their_shares(shares: dict[str, float]) -> None:
    rows = labelled(make_collator(shares=shares)(EXAMPLES))
    names = {"text": "mlm_labels", "regions": "mrfr_labels", "itm": "itm_labels"}
    for deal, name in names.items():
        assert within(rows[name].sum(), len(EXAMPLES), shares.get(deal, 0) / sum(shares.values()))


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_share_of_mismatched_rows_can_be_set(probability: float) -> None:
    labels = make_collator(mismatch_probability=probability, shares={"itm": 1})(EXAMPLES)["itm_labels"]
    assert (labels == (0 if probability else 1)).all()


# Labels


@pytest.mark.parametrize("whole_image", [False, True])
@pytest.mark.parametrize("policy", ["conditional", "joint"])
def test_labels_are_what_was_there_before(policy: Any, whole_image: bool) -> None:
    processor = MmptImageProcessor(whole_image_region=whole_image)
    batch = make_collator(policy=policy, mismatch_probability=0.0, image_processor=processor)(EXAMPLES)
    mlm, masked = batch["mlm_labels"], batch["masked_regions"]
    original = torch.where(mlm == -100, batch["input_ids"], mlm)
    for row, example in enumerate(EXAMPLES):
        ids = TOKENIZER(example["text"])["input_ids"]
        assert original[row, : len(ids)].tolist() == ids
        image = example["regions"]
        here = slice(int(whole_image), int(whole_image) + len(image))
        places = masked[row, here].numpy()
        assert masked[row].sum() == places.sum()  # never a padded place, never the whole image
        np.testing.assert_array_equal(batch["region_boxes"][row, here], image.boxes)
        np.testing.assert_array_equal(batch["region_features"][row, here][~places], image.features[~places])
        assert not batch["region_features"][row, here][places].any()
        np.testing.assert_array_equal(batch["mrfr_labels"][row, here][places], image.features[places])
        np.testing.assert_array_equal(batch["mrc_kl_labels"][row, here][places], image.class_probs[places])
        foreground = np.delete(image.class_probs, BACKGROUND, axis=1).argmax(1) + 1
        np.testing.assert_array_equal(batch["mrc_labels"][row, here][places], foreground[places])
    for name in ("mrc_labels", "mrc_kl_labels", "mrfr_labels"):
        assert (batch[name][~masked] == -100).all()


def test_only_ordinary_words_are_predicted(joint: Batch) -> None:
    predicted = joint["mlm_labels"][joint["mlm_labels"] != -100]
    assert not set(predicted.tolist()) & set(TOKENIZER.all_special_ids)
    assert len(predicted) > 100


def test_special_tokens_that_a_text_holds_are_left_alone() -> None:
    example = EXAMPLES[0] | {"text": "red [MASK] star [SEP] unheardof"}
    collator = make_collator(("mlm",), probability=1.0)
    labels = collator([example])["mlm_labels"][0]
    assert (
        labels.tolist()
        == [-100, *TOKENIZER("red")["input_ids"][1:2], -100, *TOKENIZER("star")["input_ids"][1:2]] + [-100] * 3
    )


def test_a_text_without_ordinary_words_has_no_label() -> None:
    batch = make_collator(("mlm",))([EXAMPLES[0] | {"text": "unheardof"}, EXAMPLES[1] | {"text": ""}])
    assert (batch["mlm_labels"] == -100).all()


def test_a_random_word_is_never_a_reserved_token() -> None:
    tokenizer = build_word_tokenizer([" ".join(WORDS)])
    tokenizer.add_tokens([f"[unused{number}]" for number in range(20)])
    config = small_config(("mlm",), vocab_size=len(tokenizer))
    batch = make_collator(config=config, tokenizer=tokenizer, probability=1.0)(EXAMPLES)
    assert batch["input_ids"].max() < len(TOKENIZER)


def test_classes_come_from_labels_where_there_is_no_distribution() -> None:
    image = random_regions(4, class_probs=None, labels=np.array([2, BACKGROUND, 4, BACKGROUND]))
    example = {"text": "red", "image_id": "x", "regions": image}
    assert make_collator(("mrc",), probability=1.0)([example])["mrc_labels"].tolist() == [[2, -100, 4, -100]]
    config = small_config(("mrc",), region_background_class=None)
    assert make_collator(config=config, probability=1.0)([example])["mrc_labels"].tolist() == [[2, 0, 4, 0]]


def test_the_background_is_a_target_only_where_no_class_is_one() -> None:
    probs = np.array([[0.9, 0.06, 0.04, 0, 0], [0.2, 0.1, 0.1, 0.1, 0.5]], dtype=np.float32)
    example = {"text": "red", "image_id": "x", "regions": random_regions(2, class_probs=probs)}
    assert make_collator(("mrc",), probability=1.0)([example])["mrc_labels"].tolist() == [[1, 4]]
    config = small_config(("mrc",), region_background_class=None)
    assert make_collator(config=config, probability=1.0)([example])["mrc_labels"].tolist() == [[0, 4]]


def test_attributes_and_confidences_stand_beside_the_classes() -> None:
    config = small_config(("mrc", "mrc_attribute"), confidence_weighted_classes=True)
    batch = make_collator(config=config, probability=0.5)(EXAMPLES[:20])
    masked = batch["masked_regions"]
    for row, example in enumerate(EXAMPLES[:20]):
        image, places = example["regions"], masked[row, : len(example["regions"])].numpy()
        for name, values in (
            ("mrc_attribute_labels", image.attribute_labels),
            ("region_scores", image.scores),
            ("region_attribute_scores", image.attribute_scores),
        ):
            np.testing.assert_array_equal(batch[name][row, : len(image)][places], values[places])
    assert (batch["region_scores"][~masked] == 1).all()
    assert (batch["mrc_attribute_labels"][~masked] == -100).all()


def test_every_region_is_classified_where_that_is_asked_for() -> None:
    """As LXMERT does; features are regressed for the masked ones alone."""
    batch = make_collator(("mrc", "mrc_kl", "mrfr", "itm"), policy="joint", classify_all_regions=True)(EXAMPLES)
    matched = batch["itm_labels"] == 1
    valid = batch["region_attention_mask"].bool()
    for row in matched.nonzero()[:, 0].tolist():
        expected = torch.from_numpy(EXAMPLES[row]["regions"].class_probs[:, 1:].argmax(1) + 1)
        assert torch.equal(batch["mrc_labels"][row][valid[row]], expected)
    assert (batch["mrc_labels"][~matched] == -100).all()
    assert (batch["mrc_labels"][~valid] == -100).all()
    for name in ("mrc_kl_labels", "mrfr_labels"):
        assert torch.equal((batch[name] != -100).any(-1), batch["masked_regions"] & matched[:, None])


def test_attributes_alone_are_weighted_too() -> None:
    config = small_config(("mrc_attribute",), confidence_weighted_classes=True)
    batch = make_collator(config=config, probability=1.0)(EXAMPLES[:1])
    np.testing.assert_array_equal(batch["region_attribute_scores"][0], EXAMPLES[0]["regions"].attribute_scores)
    assert "region_scores" not in batch


def test_regions_without_confidence_weigh_one() -> None:
    config = small_config(("mrc",), confidence_weighted_classes=True)
    example = EXAMPLES[0] | {"regions": random_regions(3, scores=None)}
    assert make_collator(config=config, probability=1.0)([example])["region_scores"].tolist() == [[1.0] * 3]


def test_type_ids_pass_through() -> None:
    example = EXAMPLES[0] | {"regions": random_regions(2, type_ids=np.array([1, 3]))}
    assert make_collator()([example])["region_type_ids"].tolist() == [[1, 3]]


# Joint masking, one objective a step


def test_joint_masking_masks_text_and_regions_of_every_row(joint: Batch) -> None:
    assert joint["masked_regions"].any(1).all()
    matched = joint["itm_labels"] == 1
    rows = labelled(joint)
    for name in LABELS:
        assert rows[name][matched].all()
    assert within(matched.sum(), len(EXAMPLES), 0.5)


def test_a_mismatched_row_keeps_its_matching_label_alone(joint: Batch, conditional: Batch) -> None:
    for batch in (joint, conditional):
        mismatched = batch["itm_labels"] == 0
        rows = labelled(batch)
        for name in LABELS - {"itm_labels"}:
            assert not rows[name][mismatched].any()
    assert (joint["input_ids"][joint["itm_labels"] == 0] == MASK).any()


def at_step(step: int, examples: list[dict[str, Any]] = EXAMPLES) -> list[dict[str, Any]]:
    return [example | {"step": step} for example in examples]


def test_one_objective_a_step_is_the_same_on_all_ranks_and_changes() -> None:
    collator = make_collator(policy="one_objective")
    seen: list[str] = []
    for step in range(200):
        active = []
        for examples in (EXAMPLES[:2], EXAMPLES[2:6]):
            batch = collator(at_step(step, examples))
            assert set(batch) >= LABELS
            active.append({name for name, rows in labelled(batch).items() if rows.any()})
        assert active[0] == active[1]
        assert len(active[0]) == 1
        seen += active[0]
    # A third each for text and matching; the three objectives of regions share theirs.
    shares = dict(mlm=1 / 3, itm=1 / 3, mrc=1 / 9, mrc_kl=1 / 9, mrfr=1 / 9)
    for name, share in shares.items():
        assert within(seen.count(f"{name}_labels"), 200, share)
    repeated = sum(left == right for left, right in pairwise(seen))
    assert within(repeated, 199, sum(share**2 for share in shares.values()))


def test_one_objective_takes_every_row_of_its_step() -> None:
    collator = make_collator(policy="one_objective")
    for step in range(6):
        rows = labelled(collator(at_step(step)))
        assert sorted(int(taken.sum()) for taken in rows.values()) == [0] * 4 + [len(EXAMPLES)]


@pytest.mark.parametrize("examples", [EXAMPLES[:2], [*at_step(1)[:1], EXAMPLES[1]]])
def test_one_objective_needs_a_step_in_every_example(examples: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"draws by optimiser step, got steps \[.*expected a number in every example"):
        make_collator(policy="one_objective")(examples)


def test_rows_that_fill_up_a_batch_do_not_change_its_objective() -> None:
    collator = make_collator(policy="one_objective")
    filled = [*at_step(5)[:-1], at_step(0)[-1]]
    whole, mixed = labelled(collator(at_step(5))), labelled(collator(filled))
    assert {name for name, rows in whole.items() if rows.any()} == {name for name, rows in mixed.items() if rows.any()}


# Objectives


@pytest.mark.parametrize(
    "objectives", [("mlm",), ("itm",), ("mrfr",), ("mlm", "itm"), ("mrc", "mrfr"), ("mlm", "mrc_kl"), OBJECTIVE_NAMES]
)
@pytest.mark.parametrize("policy", ["conditional", "joint", "one_objective"])
def test_any_subset_of_the_objectives_makes_a_batch_that_trains(objectives: tuple[str, ...], policy: Any) -> None:
    torch.manual_seed(0)
    config = small_config(objectives)
    model = AutoModelForPreTraining.from_config(config)
    batch = make_collator(config=config, policy=policy)(at_step(3, EXAMPLES[:12]))
    assert {name for name in batch if name.endswith("_labels")} == {f"{name}_labels" for name in objectives}
    loss = model(**batch).loss
    loss.backward()
    assert torch.isfinite(loss)


def test_rows_are_assigned_to_active_objectives_only() -> None:
    batch = make_collator(("mlm", "itm"))(EXAMPLES)
    assert not batch["masked_regions"].any()
    assert (((batch["mlm_labels"] != -100).any(1)) ^ (batch["itm_labels"] != -100)).all()
    assert "mrc_labels" not in batch


# The whole-image region, images without regions, capped regions


def test_the_whole_image_region_is_the_mean_of_what_is_not_masked() -> None:
    processor = MmptImageProcessor(whole_image_region=True)
    collator = make_collator(image_processor=processor, probability=0.5, shares={"regions": 1}, overlap_threshold=0.3)
    batch = collator(EXAMPLES)
    masked = batch["masked_regions"]
    assert not masked[:, 0].any()
    assert (batch["region_attention_mask"][:, 0] == 1).all()
    for row, example in enumerate(EXAMPLES):
        image = example["regions"]
        seen = image.features[~masked[row, 1 : 1 + len(image)].numpy()]
        expected = seen.mean(0) if len(seen) else np.zeros(FEATURE)
        np.testing.assert_allclose(batch["region_features"][row, 0], expected, rtol=1e-5)
    for name in ("mrc_labels", "mrc_kl_labels", "mrfr_labels"):
        assert (batch[name][:, 0] == -100).all()


@pytest.mark.parametrize("width", [FEATURE, 0])
@pytest.mark.parametrize("whole_image", [False, True])
def test_images_without_regions_make_a_batch_that_trains(width: int, whole_image: bool) -> None:
    empty = random_regions(0, features=np.zeros((0, width)))
    examples = [example | {"regions": empty} for example in EXAMPLES[:6]]
    collator = make_collator(image_processor=MmptImageProcessor(whole_image_region=whole_image), policy="joint")
    model = AutoModelForPreTraining.from_config(collator.config)
    for rows in (examples, examples[:3] + EXAMPLES[3:6]):
        batch = collator(rows)
        assert not batch["masked_regions"][:3].any()
        assert (batch["region_attention_mask"][:3].sum(1) == 1).all()
        assert torch.isfinite(model(**batch).loss)


def test_labels_follow_the_regions_that_a_limit_keeps() -> None:
    image = random_regions(5, scores=np.array([0.1, 0.9, 0.2, 0.8, 0.7]))
    collator = make_collator(image_processor=MmptImageProcessor(max_regions=3), probability=1.0, shares={"regions": 1})
    batch = collator([{"text": "red", "image_id": "x", "regions": image}])
    kept = [1, 3, 4]
    np.testing.assert_array_equal(batch["mrfr_labels"][0], image.features[kept])
    np.testing.assert_array_equal(batch["mrc_kl_labels"][0], image.class_probs[kept])
    np.testing.assert_array_equal(batch["region_boxes"][0], image.boxes[kept])


def test_overlapping_regions_are_masked_together() -> None:
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.45], [0.6, 0.6, 1, 1]])
    examples = [example | {"regions": random_regions(3, boxes=boxes)} for example in EXAMPLES[:50]]
    masked = make_collator(("mrfr",), overlap_threshold=0.4)(examples)["masked_regions"]
    assert torch.equal(masked[:, 0], masked[:, 1])
    assert not torch.equal(masked[:, 0], masked[:, 2])


# Text


def test_single_texts_and_pairs_share_a_batch_unchanged() -> None:
    collator = make_collator(("itm",), mismatch_probability=0.0)
    pair = EXAMPLES[1] | {"text": "red star", "text_pair": "near dog"}
    batch = collator([EXAMPLES[0] | {"text": "blue"}, pair])
    single_ids, pair_ids = TOKENIZER("blue"), TOKENIZER("red star", "near dog")
    assert batch["input_ids"].tolist() == [single_ids["input_ids"] + [0] * 4, pair_ids["input_ids"]]
    assert batch["token_type_ids"][1].tolist() == pair_ids["token_type_ids"]
    assert batch["attention_mask"].sum(1).tolist() == [3, 7]


@pytest.mark.parametrize("length", [4, None])
def test_long_texts_are_cut_and_that_is_said_once(length: int | None, caplog: pytest.LogCaptureFixture) -> None:
    collator = make_collator(max_text_length=length, config=small_config(max_position_embeddings=6))
    examples = [example | {"text": "red star blue ring dog near"} for example in EXAMPLES[:3]]
    with caplog.at_level(logging.WARNING, "mmpt"):
        for epoch in range(2):
            collator.set_epoch(epoch)
            assert collator(examples)["input_ids"].shape == (3, length or 6)
    assert [record.getMessage()[:47] for record in caplog.records] == [
        f"3 of 3 texts of a batch are longer than {length or 6} token"
    ]


def test_the_tokens_of_a_word_are_masked_together() -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "re", "##d", "st", "##ar"]
    word_piece = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    word_piece.pre_tokenizer = pre_tokenizers.Whitespace()
    word_piece.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), pieces, strict=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_piece, **names)
    config = small_config(("mlm",), vocab_size=len(tokenizer))
    examples = [example | {"text": "red star red", "text_pair": "star"} for example in EXAMPLES[:100]]
    for whole_word in (True, False):
        selected = (
            make_collator(config=config, tokenizer=tokenizer, whole_word=whole_word)(examples)["mlm_labels"] != -100
        )
        assert selected.shape == (100, 11)
        words = torch.stack([selected[:, 1:7:2], selected[:, 2:7:2]])
        assert torch.equal(words[0], words[1]) == whole_word
        assert torch.equal(selected[:, 8], selected[:, 9]) == whole_word
        assert not torch.equal(selected[:, 1], selected[:, 8])
