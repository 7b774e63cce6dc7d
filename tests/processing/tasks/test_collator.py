"""Inputs and labels of every task, by hand; and that batch and padding change no logit."""

from typing import Any

import numpy as np
import pytest
import torch

from mmpt.processing.regions import Regions
from mmpt.processing.tasks.collator import NOT_FOR_THE_MODEL, without_labels
from mmpt.tasks.table import TASKS
from tests.factories.examples import TOKENIZER, random_regions
from tests.factories.tasks import collator, config, dataset, images, model

CLS, SEP = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id


def regions_of_boxes(*boxes: list[float], **fields: Any) -> Regions:
    """Regions of a 100 x 100 image with these boxes in pixels."""
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4) / 100
    return Regions(np.ones((len(array), 6), np.float32), array, width=100, height=100, **fields)


def example(**columns: Any) -> dict[str, Any]:
    return {"text": "red dog", "image_id": "a", "row": 0, "regions": random_regions(2, width=10, height=10)} | columns


def inputs_of(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name not in (*NOT_FOR_THE_MODEL, "labels")}


@pytest.mark.parametrize("stream", ["single", "dual"])
@pytest.mark.parametrize("name", TASKS)
def test_neither_batch_nor_padding_nor_order_changes_a_logit(name: str, stream: str) -> None:
    rows, task_model = dataset(name), model(name, stream)
    collate = without_labels(collator(name, config=task_model.config))
    with torch.no_grad():
        whole = task_model(**inputs_of(collate([rows[i] for i in range(5, -1, -1)]))).logits
        for place, row in enumerate(range(5, -1, -1)):
            alone = task_model(**inputs_of(collate([rows[row]]))).logits[0]
            together = whole[place][tuple(slice(0, n) for n in alone.shape)]
            torch.testing.assert_close(alone, together, atol=2e-5, rtol=1e-4)
    assert whole.std() > 1e-3


@pytest.mark.parametrize("name", TASKS)
def test_every_tensor_starts_with_the_batch_and_labels_give_a_loss(name: str) -> None:
    rows, task_model = dataset(name), model(name)
    batch = collator(name, config=task_model.config)([rows[i] for i in (3, 1, 0)])
    assert {len(value) for value in batch.values()} == {3}
    assert batch["rows"].tolist() == [3, 1, 0]
    loss = task_model(**inputs_of(batch), labels=batch["labels"]).loss
    assert torch.isfinite(loss)
    assert "labels" not in without_labels(collator(name))([rows[0]])


def test_class_is_found_by_its_name_before_its_number() -> None:
    labels = {"id2label": {0: "no", 1: "yes"}}
    collate = collator("statements", fields=labels)
    batch = collate([example(label=0, label_name="yes"), example(label=1), example(label=0)])
    assert batch["labels"].tolist() == [1, 1, 0]
    for columns, message in (
        ({"label": 0, "label_name": "maybe"}, "row 0 has the label 'maybe', the model knows no, yes"),
        ({"label": 2}, r"row 0 has label 2, expected 0\.\.1"),
        ({"question_id": "q7"}, "example 'q7' has no label"),
    ):
        with pytest.raises(ValueError, match=message):
            collate([example(**columns)])


def test_answers_become_soft_targets_and_unknown_ones_are_left_out() -> None:
    collate = collator("vqa", fields={"id2label": {0: "red", 1: "blue", 2: "dog"}})
    scored = example(answers=["blue", "blue", "red", "cat"], answer_scores=[0.6, 0.6, 0.3, 0.3])
    batch = collate([scored, example(answers=["dog"])])
    torch.testing.assert_close(batch["labels"], torch.tensor([[0.3, 0.6, 0.0], [0.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match="has no answers"):
        collate([example()])


def test_overlaps_are_those_worked_by_hand_and_nothing_else_is_a_target() -> None:
    # The box is the left half of the first region, the half of it overlaps the second, none the third.
    regions = regions_of_boxes([0, 0, 40, 20], [10, 0, 30, 20], [50, 50, 60, 60])
    expected = [0.5, 10 * 20 / (20 * 20 + 20 * 20 - 10 * 20), 0.0]
    batch = collator("grounding")([example(regions=regions, box=[0, 0, 20, 20]), example(box=[0, 0, 1, 1])])
    torch.testing.assert_close(batch["labels"][0], torch.tensor(expected))
    assert batch["labels"][1, 2] == -100
    assert batch["candidates"].tolist() == [[True] * 3, [True, True, False]]
    torch.testing.assert_close(batch["candidate_boxes"][0, 2], torch.tensor([50.0, 50.0, 60.0, 60.0]))
    whole = collator("grounding", whole_image_region=True)([example(regions=regions, box=[0, 0, 20, 20])])
    torch.testing.assert_close(whole["labels"][0], torch.tensor([-100.0, *expected]))
    with pytest.raises(ValueError, match="has no box"):
        collator("grounding")([example()])
    with pytest.raises(ValueError, match="no width and height"):
        collator("grounding")([example(regions=random_regions(2), box=[0, 0, 1, 1])])


def test_image_without_regions_has_no_candidate() -> None:
    batch = collator("grounding")([example(regions=regions_of_boxes(), box=[0, 0, 1, 1])])
    assert batch["labels"].tolist() == [[-100.0]]
    assert batch["region_attention_mask"].tolist() == [[1]]
    assert batch["candidates"].tolist() == [[False]]


def phrase(text: str, start: int, *boxes: list[float]) -> dict[str, Any]:
    end = start + len(text)
    return {"text": text, "start": start, "end": end, "entity_id": "0", "types": [], "boxes": list(boxes)}


def test_phrase_is_read_at_its_last_token_and_shared_by_the_regions_that_match() -> None:
    text = "a red star near the big dog"
    regions = regions_of_boxes([0, 0, 40, 20], [0, 0, 40, 22], [50, 50, 60, 60])
    phrases = [phrase("a red star", 0, [0, 0, 40, 20]), phrase("the big dog", 16, [90, 90, 99, 99]), phrase("red", 2)]
    batch = collator("phrases")([example(text=text, regions=regions, phrases=phrases)])
    assert batch["phrase_positions"].tolist() == [[3, 7, 2]]  # [CLS] a red star near the big dog [SEP]
    torch.testing.assert_close(batch["labels"][0, 0], torch.tensor([0.5, 0.5, 0.0]))
    assert (batch["labels"][0, 1:] == -100).all()  # nothing matches the second, the third has no box


def test_a_phrase_of_one_character_is_located() -> None:
    row = example(
        text="a red star",
        regions=regions_of_boxes([0, 0, 40, 20]),
        phrases=[phrase("a", 0, [0, 0, 40, 20]), phrase("r", 9, [0, 0, 40, 20])],  # the second within a word
    )
    batch = collator("phrases")([row])
    assert batch["phrase_positions"].tolist() == [[1, 3]]
    assert batch["labels"][0].tolist() == [[1.0], [1.0]]


def test_phrase_of_a_text_that_was_cut_has_no_position() -> None:
    text = "a red star near the big dog"
    phrases = [phrase("a red star", 0, [0, 0, 40, 20]), phrase("the big dog", 16, [0, 0, 40, 20])]
    row = example(text=text, regions=regions_of_boxes([0, 0, 40, 20]), phrases=phrases)
    batch = collator("phrases", max_text_length=6)([row])
    assert batch["phrase_positions"].tolist() == [[3, -100]]
    assert batch["labels"][0].tolist() == [[1.0], [-100.0]]


def test_choices_are_second_texts_and_regions_come_once() -> None:
    rows = dataset("multiple_choice")
    batch = collator("multiple_choice")([rows[1], rows[2]])
    assert batch["input_ids"].shape[:2] == (2, 3)
    assert batch["region_features"].shape[0] == 2
    first = batch["input_ids"][0, 1][batch["attention_mask"][0, 1] == 1].tolist()
    assert first == TOKENIZER("a small blue dog", "a blue star")["input_ids"]
    assert batch["labels"].tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"got 3 in row 1, 2 in row 2 choices"):
        collator("multiple_choice")([rows[1], {**rows[2], "choices": ["a", "b"]}])
    with pytest.raises(ValueError, match=r"has label 3, expected the number of the right choice, 0\.\.2"):
        collator("multiple_choice")([{**rows[1], "label": 3}])


def test_two_images_stand_side_by_side() -> None:
    rows, regions = dataset("nlvr2"), images()
    batch = collator("nlvr2")([rows[0], rows[1]])
    longest = batch["region_features"].shape[2]
    assert batch["region_features"].shape == (2, 2, longest, 6)
    for row, side, name in ((0, 0, "image-0"), (0, 1, "image-1"), (1, 1, "image-2")):
        count = len(regions[name])
        np.testing.assert_array_equal(batch["region_features"][row, side, :count], regions[name].features)
        assert batch["region_attention_mask"][row, side].tolist() == [1] * count + [0] * (longest - count)


def test_pairs_that_share_an_image_or_a_text_are_one_group() -> None:
    names = [("a", "one"), ("b", "two"), ("c", "one"), ("b", "three"), ("d", "three"), ("e", "four")]
    batch = collator("retrieval")([example(image_id=image, text=text) for image, text in names])
    groups = batch["labels"].tolist()
    assert groups[0] == groups[2]
    assert groups[1] == groups[3] == groups[4]
    assert len(set(groups)) == 3


def test_blank_text_is_empty_and_blank_regions_are_one_zero_vector() -> None:
    rows = dataset("vqa")
    some = [rows[0], rows[1]]
    texts = collator("vqa", blank="text")(some)
    assert texts["input_ids"].tolist() == [[CLS, SEP]] * 2
    torch.testing.assert_close(texts["region_features"], collator("vqa")(some)["region_features"])
    regions = collator("vqa", blank="regions")(some)
    assert regions["region_features"].shape == (2, 1, 6)
    assert not regions["region_features"].any()
    assert regions["region_boxes"].tolist() == [[[0.0, 0.0, 1.0, 1.0]]] * 2
    assert regions["region_attention_mask"].tolist() == [[1], [1]]
    assert regions["input_ids"].tolist() == collator("vqa")(some)["input_ids"].tolist()


def test_blank_regions_stay_candidates_with_their_true_boxes() -> None:
    rows = dataset("grounding")
    seen, blank = (collator("grounding", blank=blank)([rows[0], rows[1]]) for blank in (None, "regions"))  # type: ignore[arg-type]
    for name in ("labels", "candidates", "candidate_boxes", "region_attention_mask"):
        torch.testing.assert_close(seen[name], blank[name])
    assert not blank["region_features"].any()
    assert (blank["region_boxes"] == torch.tensor([0.0, 0.0, 1.0, 1.0])).all()


def test_blank_phrases_and_choices_are_read_from_nothing() -> None:
    phrases = collator("phrases", blank="text")([dataset("phrases")[0]])
    assert phrases["phrase_positions"].tolist() == [[0]]
    choices = collator("multiple_choice", blank="text")([dataset("multiple_choice")[0]])
    assert choices["input_ids"].tolist() == [[[CLS, SEP]] * 3]


def test_the_answer_of_visual_bert_is_read_at_a_mask_behind_the_question() -> None:
    batch = collator("vqa", fields={"answer_reads": "second_last_token"})([dataset("vqa")[0]])
    assert batch["input_ids"][0, -2] == TOKENIZER.mask_token_id


def test_what_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="blank is 'image', expected 'text', 'regions' or None"):
        collator("vqa", blank="image")
    with pytest.raises(ValueError, match="max_text_length is 2"):
        collator("vqa", max_text_length=2)
    with pytest.raises(ValueError, match="the tokenizer has"):
        collator("vqa", config=config("vqa", vocab_size=5))
    with pytest.raises(ValueError, match="are 4 numbers wide, the model expects region_feature_dim 6"):
        collator("vqa")([example(answers=["red"], regions=Regions(np.ones((1, 4)), np.array([[0, 0, 1, 1]])))])
    with pytest.raises(ValueError, match="a batch without examples"):
        collator("vqa")([])
