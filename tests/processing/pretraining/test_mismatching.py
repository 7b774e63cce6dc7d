"""A mismatched pair is never a true one, and its other half comes from wherever it can."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.pretraining.masking import KeyedRandom
from mmpt.processing.pretraining.mismatching import mismatch
from mmpt.processing.regions import Regions

PAIRS = st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("wxyz")), min_size=1, max_size=12)
HARD = {"images": [["B", "C"], None, []], "texts": [None, ["q", "r"], ["s"]]}


def region_of(image: str) -> Regions:
    return Regions(np.full((1, 2), ord(image), dtype=np.float32), [[0, 0, 1, 1]], image_id=image)


REGIONS = {image: region_of(image) for image in "ABCDE"}


def dataset_of(pairs: list[tuple[str, str]], **columns: Any) -> PairDataset:
    images, texts = zip(*pairs, strict=True)
    return PairDataset({"image_id": list(images), "text": list(texts)} | columns, REGIONS)


def bare(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same examples without their pair table, as a user's own dataset gives them."""
    return [{name: value for name, value in example.items() if name != "pair_table"} for example in examples]


def run(
    examples: list[dict[str, Any]], wanted: Any = True, seed: int = 0, hard: float = 0.0
) -> tuple[list[Any], list[str | None], list[bool]]:
    """Return texts, names of the images, and which rows are mismatched."""
    ids = np.array([example["example_id"] for example in examples])
    flags = np.broadcast_to(np.asarray(wanted), len(examples)).copy()
    texts, regions, done = mismatch(examples, ids, flags, KeyedRandom(seed, 0, ids), hard)
    return texts, [image.image_id for image in regions], done.tolist()


@pytest.mark.parametrize("with_table", [True, False])
@settings(deadline=None, max_examples=80)
@given(pairs=PAIRS, seed=st.integers(0, 10**6), data=st.data())
def test_exactly_the_rows_that_can_be_are_mismatched_and_never_truly(
    with_table: bool, pairs: list[tuple[str, str]], seed: int, data: Any
) -> None:
    dataset = dataset_of(pairs)
    examples = [dataset[row] for row in range(len(pairs))]
    wanted = data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    texts, images, done = run(examples if with_table else bare(examples), wanted, seed)
    for row, (image, text) in enumerate(pairs):
        assert texts[row][1] is None
        found = (images[row], texts[row][0])
        others = [pair for pair in pairs if pair[0] != image and pair[1] != text]
        new_images = [other for other, _ in others if (other, text) not in pairs]
        new_texts = [words for _, words in others if (image, words) not in pairs]
        if not done[row]:
            assert found == (image, text)
            assert not (wanted[row] and new_images and new_texts)
            continue
        assert wanted[row]
        assert found not in pairs
        assert (found[0] == image) != (found[1] == text)  # one half is replaced, and only one
        assert found[1] in new_texts if found[0] == image else found[0] in new_images


@pytest.mark.parametrize("with_table", [True, False])
def test_half_of_the_mismatched_rows_get_another_image_and_half_another_text(with_table: bool) -> None:
    pairs = [("ABCD"[row % 4], str(row)) for row in range(40)]
    dataset = dataset_of(pairs)
    examples = [dataset[row] for row in range(40)]
    image_replaced = 0
    for seed in range(50):
        _, images, done = run(examples if with_table else bare(examples), seed=seed)
        assert all(done)
        image_replaced += sum(found != image for found, (image, _) in zip(images, pairs, strict=True))
    assert abs(image_replaced - 1000) < 5 * np.sqrt(2000 * 0.25)


def test_a_pair_table_gives_partners_from_outside_the_batch() -> None:
    dataset = dataset_of([("A", "w"), ("B", "x"), ("C", "y"), ("D", "z")])
    found = set()
    for seed in range(100):
        texts, images, done = run([dataset[0]], seed=seed)
        assert done == [True]
        found.add((images[0], texts[0][0]))
    assert found == {("A", "x"), ("A", "y"), ("A", "z"), ("B", "w"), ("C", "w"), ("D", "w")}


def test_without_a_pair_table_a_lone_example_stays_matched() -> None:
    dataset = dataset_of([("A", "w"), ("B", "x")])
    assert run(bare([dataset[0]])) == ([("w", None)], ["A"], [False])


@pytest.mark.parametrize("with_table", [True, False])
def test_rows_without_an_eligible_partner_stay_matched(with_table: bool) -> None:
    for pairs in ([("A", "w"), ("A", "x")], [("A", "w"), ("B", "w")], [("A", "w")] * 3):
        dataset = dataset_of(pairs)
        examples = [dataset[row] for row in range(len(pairs))]
        _, images, done = run(examples if with_table else bare(examples))
        assert done == [False] * len(pairs)
        assert images == [image for image, _ in pairs]


def test_the_batch_is_searched_for_a_true_pair_that_would_result() -> None:
    # A with x, and B with w, are rows themselves: no two of these four make a mismatched pair.
    dataset = dataset_of([("A", "w"), ("B", "x"), ("A", "x"), ("B", "w")])
    for seed in range(20):
        assert run(bare([dataset[row] for row in range(4)]), seed=seed)[2] == [False] * 4


def test_only_wanted_rows_are_touched() -> None:
    dataset = dataset_of([("A", "w"), ("B", "x"), ("C", "y")])
    examples = [dataset[row] for row in range(3)]
    texts, images, done = run(examples, [False, True, False])
    assert done == [False, True, False]
    assert [images[0], images[2], texts[0], texts[2]] == ["A", "C", ("w", None), ("y", None)]
    assert run(examples, False)[2] == [False] * 3


def test_with_a_table_a_row_has_the_same_partner_in_any_batch() -> None:
    pairs = [("ABCD"[row % 4], str(row)) for row in range(20)]
    dataset = dataset_of(pairs)
    examples = [dataset[row] for row in range(20)]
    texts, images, _ = run(examples)
    order = [7, 3, 19]
    some_texts, some_images, _ = run([examples[row] for row in order])
    assert some_texts == [texts[row] for row in order]
    assert some_images == [images[row] for row in order]


def test_examples_of_two_tables_get_partners_from_their_own() -> None:
    first = dataset_of([("A", "w"), ("B", "x")])
    second = dataset_of([("C", "y"), ("D", "z")])
    for seed in range(20):
        texts, images, done = run([first[0], second[0], first[1]], seed=seed)
        assert done == [True] * 3
        assert (images[0], texts[0][0]) in {("A", "x"), ("B", "w")}
        assert (images[1], texts[1][0]) in {("C", "z"), ("D", "y")}
        assert (images[2], texts[2][0]) in {("A", "x"), ("B", "w")}


def test_a_replaced_text_brings_its_second_text_along() -> None:
    dataset = dataset_of([("A", "w"), ("B", "x")], text_pair=["one", "two"])
    examples = [dataset[0], dataset[1]]
    for with_table in (True, False):
        seen = set()
        for seed in range(20):
            texts, images, _ = run(examples if with_table else bare(examples), seed=seed)
            seen |= {(images[0], *texts[0])}
        assert seen == {("A", "x", "two"), ("B", "w", "one")}


def hard_examples() -> list[dict[str, Any]]:
    dataset = dataset_of(
        [("A", "w"), ("B", "x"), ("C", "y")],
        hard_negative_image_ids=HARD["images"],
        hard_negative_texts=HARD["texts"],
        text_pair=["one", "two", None],
    )
    return [dataset[row] for row in range(3)]


def test_hard_negatives_are_the_examples_own() -> None:
    seen: list[set[Any]] = [set(), set(), set()]
    for seed in range(60):
        texts, images, done = run(hard_examples(), seed=seed, hard=1.0)
        assert done == [True] * 3
        for row in range(3):
            seen[row].add((images[row], *texts[row]))
    assert seen[0] == {("B", "w", "one"), ("C", "w", "one")}
    assert seen[1] == {("B", "q", "two"), ("B", "r", "two")}
    assert seen[2] == {("C", "s", None)}


def test_an_example_with_hard_images_and_texts_takes_either() -> None:
    dataset = dataset_of([("A", "w")], hard_negative_image_ids=[["E"]], hard_negative_texts=[["q"]])
    replaced = 0
    for seed in range(400):
        texts, images, done = run([dataset[0]], seed=seed, hard=1.0)
        assert done == [True]
        assert (images[0], texts[0][0]) in {("E", "w"), ("A", "q")}
        replaced += images[0] == "E"
    assert abs(replaced - 200) < 5 * 10


def test_hard_negatives_are_taken_at_their_rate() -> None:
    hard = total = 0
    for seed in range(300):
        texts, _, _ = run(hard_examples(), seed=seed, hard=0.3)
        hard += texts[1][0] in ("q", "r")
        total += 1
    assert abs(hard - 0.3 * total) < 5 * np.sqrt(total * 0.3 * 0.7)


def test_without_a_pair_table_hard_images_cannot_be_read_and_texts_can() -> None:
    for seed in range(20):
        texts, images, done = run(bare(hard_examples()), seed=seed, hard=1.0)
        assert done == [True] * 3
        assert (images[1], texts[1][0]) in {("B", "q"), ("B", "r")}
        assert (images[0], texts[0][0]) in {("A", "x"), ("A", "y"), ("B", "w"), ("C", "w"), ("A", "s")}


def test_an_example_without_hard_negatives_gets_an_ordinary_partner() -> None:
    dataset = dataset_of([("A", "w"), ("B", "x")])
    assert run([dataset[0], dataset[1]], hard=1.0)[2] == [True, True]
