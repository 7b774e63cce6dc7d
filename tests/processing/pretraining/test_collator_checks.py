"""A batch depends on (seed, epoch, example id) only, and what makes no batch is refused with what to do about it."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from mmpt.modeling_mmpt.unpadding import without_layout
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.word_tokenizer import build_word_tokenizer
from tests.factories.examples import (
    TOKENIZER,
    make_collator,
    pair_table,
    random_examples,
    random_regions,
    small_config,
    within,
)

EXAMPLES = random_examples(40)
TABLE = pair_table(EXAMPLES)


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert list(left) == list(right)
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=0, atol=0, msg=name)


def test_the_same_examples_make_the_same_batch_and_another_seed_or_epoch_another() -> None:
    examples = EXAMPLES[:20]
    first = make_collator(seed=1)(examples)
    assert_equal(make_collator(seed=1)(examples), first)
    others = [make_collator(seed=2)(examples), make_collator(seed=1)([e | {"epoch": 1} for e in examples])]
    for other in others:
        assert not torch.equal(other["itm_labels"], first["itm_labels"])


def test_global_random_state_has_no_say() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    first = make_collator()(EXAMPLES[:8])
    torch.manual_seed(1)
    np.random.seed(1)
    assert_equal(make_collator()(EXAMPLES[:8]), first)


def test_without_ids_the_text_and_the_image_are_the_key() -> None:
    plain = [{name: example[name] for name in ("text", "image_id", "regions")} for example in EXAMPLES[:20]]
    collator = make_collator(("mlm", "mrfr"))
    batch, turned = collator(plain), collator(plain[::-1])
    for name, value in without_layout(batch).items():
        torch.testing.assert_close(turned[name].flip(0), value, rtol=0, atol=0)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(st.integers(0, 39), min_size=1, max_size=6, unique=True),
    policy=st.sampled_from(["conditional", "joint"]),
    epoch=st.integers(0, 5),
)
def test_a_row_comes_out_alike_alone_and_in_any_batch(rows: list[int], policy: Any, epoch: int) -> None:
    TABLE.set_epoch(epoch)
    collator = make_collator(policy=policy)
    batch = collator([TABLE[row] for row in rows])
    for place, row in enumerate(rows):
        for name, alone in without_layout(collator([TABLE[row]])).items():
            here = batch[name][place]
            if alone[0].ndim:
                here, beyond = here[: alone.shape[1]], here[alone.shape[1] :]
                assert ((beyond == 0) | (beyond == -100)).all()
            torch.testing.assert_close(here, alone[0], rtol=0, atol=0, msg=name)


def test_workers_make_the_same_batches() -> None:
    collator = make_collator()
    alone = list(DataLoader(TABLE, batch_size=8, collate_fn=collator))
    together = list(DataLoader(TABLE, batch_size=8, collate_fn=collator, num_workers=2))
    assert len(alone) == len(together) == 5
    for left, right in zip(alone, together, strict=True):
        assert_equal(left, right)


@pytest.mark.parametrize("with_table", [True, False])
def test_mismatched_rows_hold_another_text_or_other_regions(with_table: bool) -> None:
    examples = EXAMPLES
    rows: Any = pair_table(examples) if with_table else examples
    batch = make_collator(("itm",), mismatch_probability=0.5)([rows[row] for row in range(40)])
    mismatched = batch["itm_labels"] == 0
    assert 5 < mismatched.sum() < 35
    for row, example in enumerate(examples):
        image = example["regions"]
        own = MmptImageProcessor().pad([image])[0]["region_features"][0]
        width = min(len(own), batch["region_features"].shape[1])
        same_image = torch.equal(batch["region_features"][row, :width], own[:width]) and int(
            batch["region_attention_mask"][row].sum()
        ) == len(image)
        ids = TOKENIZER(example["text"])["input_ids"]
        same_text = batch["input_ids"][row, : int(batch["attention_mask"][row].sum())].tolist() == ids
        if mismatched[row]:
            assert not (same_image and same_text and len(set(example["text"].split()[:-1])) > 2)
        else:
            assert same_image
            assert same_text


def test_an_example_alone_in_its_batch_stays_matched_without_a_table() -> None:
    collator = make_collator(("itm",), mismatch_probability=1.0)
    assert collator(EXAMPLES[:1])["itm_labels"].tolist() == [1]
    assert collator([pair_table(EXAMPLES[:2])[0]])["itm_labels"].tolist() == [0]


def test_hard_negatives_are_taken_at_their_rate() -> None:
    table = pair_table(EXAMPLES, hard_negative_texts=[["dog dog dog"]] * len(EXAMPLES))
    collator = make_collator(("itm",), mismatch_probability=1.0, hard_negative_rate=0.4)
    batch = collator([table[row] for row in range(len(table))])
    hard = TOKENIZER("dog dog dog")["input_ids"]
    assert within((batch["input_ids"][:, : len(hard)] == torch.tensor(hard)).all(1).sum(), len(table), 0.4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"policy": "both"}, "policy is 'both', expected 'conditional', 'joint' or 'one_objective'"),
        ({"probability": 1.5}, "probability is 1.5, expected a share in 0..1"),
        ({"probability": float("nan")}, "probability is nan"),
        ({"mismatch_probability": -0.1}, "mismatch_probability is -0.1"),
        ({"hard_negative_rate": 2}, "hard_negative_rate is 2"),
        ({"shares": {"texts": 1.0}}, r"shares name \['texts'\], expected some of text, regions, itm"),
        ({"shares": {"text": -1.0, "itm": 1.0}}, "the share of 'text' is -1.0, expected 0 or more"),
        ({"shares": {"text": 0.0}}, "no row can be corrupted: .*give the corruption of an enabled objective a share"),
        ({"objectives": ("mlm",), "shares": {"itm": 1.0}}, r"objectives are \['mlm'\], shares are {'itm': 1.0}"),
        ({"overlap_threshold": 1.1}, "overlap_threshold is 1.1, expected an IoU in 0..1, or None"),
        ({"max_text_length": 2}, "max_text_length is 2, expected more than the 2 special tokens"),
        ({"config": small_config(("mlm", "qa"), num_qa_labels=3)}, "objective 'qa' needs answers, which this collator"),
        ({"config": small_config(vocab_size=9)}, "the tokenizer has 15 tokens, the model has vocab_size 9"),
        ({"config": small_config(pad_token_id=1)}, "the tokenizer pads with id 0, the model with pad_token_id 1"),
    ],
)
def test_wrong_arguments_are_refused_at_once(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_collator(**fields)


def test_a_tokenizer_without_mask_or_words_is_refused() -> None:
    tokenizer = build_word_tokenizer(["red"])
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="the tokenizer has no mask token"):
        make_collator(tokenizer=tokenizer)
    tokenizer = build_word_tokenizer(["red"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["red"]})
    with pytest.raises(ValueError, match="has special tokens only, expected ordinary words"):
        make_collator(tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "got a batch without examples"),
        ([{"labels": 1}], "example 0 of the batch has no 'text', got labels; .*remove_unused_columns=False"),
        ([{}], "has no 'text', got nothing"),
        (
            [EXAMPLES[0], {"text": "red", "image_id": "x"}],
            "example 1 of the batch has no 'regions', got text, image_id",
        ),
        (
            [EXAMPLES[0] | {"regions": random_regions(2, features=np.ones((2, 3)), image_id="cat-7")}],
            "features of image 'cat-7' are 3 numbers wide, the model expects region_feature_dim 6",
        ),
        (
            [EXAMPLES[0], EXAMPLES[1] | {"regions": random_regions(2, features=np.ones((2, 3)))}],
            "features of image 1 of the batch are 3 numbers wide, the model expects",
        ),
        (
            [EXAMPLES[0] | {"regions": random_regions(2, class_probs=None)}],
            "has no class_probs, which objective 'mrc_kl'",
        ),
        (
            [EXAMPLES[0] | {"regions": random_regions(2, class_probs=np.full((2, 5), 0.9), image_id="cat-7")}],
            "class_probs of image 'cat-7' sum to 4.5 in region",
        ),
        ([EXAMPLES[0] | {"regions": "cat.jpg"}], "got str for the regions of an image"),
    ],
)
def test_wrong_examples_are_refused(examples: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_collator(mismatch_probability=0.0, policy="joint")(examples)


def test_a_collator_survives_pickling() -> None:
    collator = make_collator(probability=0.3)
    assert_equal(pickle.loads(pickle.dumps(collator))(EXAMPLES[:4]), collator(EXAMPLES[:4]))
