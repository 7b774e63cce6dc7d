"""What does not fit the model is refused by name, with what to do about it."""

from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from mmpt.processing.batch_checks import check_records, check_tokenizer, checked_probs
from mmpt.processing.word_tokenizer import build_word_tokenizer
from tests.factories.examples import CLASSES, FEATURE, TOKENIZER, random_regions, small_config


def without(token: str) -> PreTrainedTokenizerFast:
    tokenizer = build_word_tokenizer(["red star"])
    setattr(tokenizer, token, None)
    return tokenizer


def test_a_tokenizer_that_fits_passes() -> None:
    check_tokenizer(TOKENIZER, small_config())
    check_tokenizer(TOKENIZER, small_config(vocab_size=1000))
    check_tokenizer(TOKENIZER, small_config(pad_token_id=None))
    check_tokenizer(without("mask_token"), small_config(("mrfr", "itm")))


@pytest.mark.parametrize(
    ("tokenizer", "fields", "message"),
    [
        (TOKENIZER, {"vocab_size": 10}, r"the tokenizer has 15 tokens, the model has vocab_size 10;.*resize_token_emb"),
        (without("mask_token"), {}, "has no mask token, which objective 'mlm' needs; use a tokenizer with one"),
        (without("pad_token"), {}, "has no pad token, which batches need; set tokenizer.pad_token"),
        (TOKENIZER, {"pad_token_id": 1}, "pads with id 0, the model with pad_token_id 1; use the tokenizer"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(tokenizer: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_tokenizer(tokenizer, small_config(**fields))


def probs(*rows: list[float]) -> dict[str, Any]:
    return {"class_probs": np.array(rows, dtype=np.float32)}


FLAT = [1 / CLASSES] * CLASSES


@pytest.mark.parametrize(
    ("objectives", "fields"),
    [
        (("mlm", "mrc", "mrc_kl", "mrfr", "itm"), {}),
        (("mrc_kl",), probs(FLAT, FLAT)),
        (("mrc_kl",), {"class_probs": np.array([FLAT, FLAT], dtype=np.float16)}),
        (("mrc_kl",), probs([0.2015, 0.2, 0.2, 0.2, 0.2], FLAT)),
        (("mrc",), {"class_probs": None}),
        (("mrc",), {"class_probs": None, "labels": np.array([0, CLASSES - 1])}),
        (("mrfr", "mlm", "itm"), {"class_probs": None, "labels": None}),
        (("mrfr",), {"class_probs": np.ones((2, 99))}),
        (("mrc_attribute",), {"class_probs": None, "labels": None}),
    ],
)
def test_regions_that_have_what_the_objectives_need_pass(objectives: tuple[str, ...], fields: dict[str, Any]) -> None:
    check_records([random_regions(2, **fields)], small_config(objectives))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([FLAT, [0.9] * 5], r"sum to 4.5 in region 1 \(1 of the 2 regions .*a detector with sigmoid scores needs"),
        ([[0.203, 0.2, 0.2, 0.2, 0.2], FLAT], r"sum to 1.003 in region 0 \(1 of the 2 "),
        ([[1.2, -0.2, 0, 0, 0], FLAT], "sum to 1 in region 0 .*expected numbers of 0 or more"),
        ([[np.nan] * 5, FLAT], "sum to nan in region 0"),
    ],
)
def test_what_is_no_distribution_is_refused_where_it_is_read(rows: list[list[float]], message: str) -> None:
    record = random_regions(2, image_id="cat-7", **probs(*rows))
    with pytest.raises(ValueError, match="image 'cat-7' " + message):
        checked_probs(record, np.arange(2), 0)
    fine = [row for row, given in enumerate(rows) if given == FLAT]
    np.testing.assert_array_equal(checked_probs(record, np.array(fine), 0), record.class_probs[fine])


def test_an_image_without_regions_needs_nothing() -> None:
    empty = random_regions(0, features=np.zeros((0, 0)), class_probs=None, labels=None)
    check_records([empty], small_config())


@pytest.mark.parametrize(
    ("objectives", "fields", "message"),
    [
        (
            ("mrfr",),
            {"features": np.ones((2, 3))},
            f"are 3 numbers wide, the model expects region_feature_dim {FEATURE}",
        ),
        (("mlm",), {"features": np.ones((2, 3))}, "use features of the detector that the model was made for"),
        (
            ("mrc_kl",),
            {"class_probs": None},
            "has no class_probs, which objective 'mrc_kl' needs; store the detector's",
        ),
        (("mrc_kl",), probs([0.5, 0.5], [0.5, 0.5]), "have 2 classes, the model has num_region_classes 5, background"),
        (("mrc",), probs([0.5, 0.5], [0.5, 0.5]), "have 2 classes, the model has num_region_classes 5"),
        (("mrc",), {"class_probs": None, "labels": None}, "has no labels, which a class objective needs"),
        (
            ("mrc",),
            {"class_probs": None, "labels": np.array([1, CLASSES])},
            r"labels of .* run from 1 to 5, expected 0..4 \(num_region_classes is 5, background included\)",
        ),
        (("mrc",), {"class_probs": None, "labels": np.array([-1, 1])}, "labels of .* run from -1 to 1, expected 0..4"),
        (("mrc_attribute",), {"attribute_labels": None}, "has no attribute_labels, which a class objective needs"),
        (("mrc_attribute",), {"attribute_labels": np.array([0, 3])}, "expected 0..2 .num_region_attributes is 3"),
    ],
)
@pytest.mark.parametrize(("image_id", "title"), [("cat-7", "image 'cat-7'"), (None, "image 1 of the batch")])
def test_regions_that_do_not_fit_name_their_image(
    objectives: tuple[str, ...], fields: dict[str, Any], message: str, image_id: str | None, title: str
) -> None:
    config = small_config(objectives)
    with pytest.raises(ValueError, match=message) as raised:
        check_records([random_regions(2), random_regions(2, image_id=image_id, **fields)], config)
    assert title in str(raised.value)
