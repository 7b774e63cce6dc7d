"""The check of a pair table: coverage, hints, duplicates, leakage, texts; and a store of any size is only asked."""

import unicodedata
from collections.abc import Collection, Iterator

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from mmpt.processing.pairs.checks import PEEKED_IDS, SHOWN, check_pairs


class CountedStore(Collection[str]):
    """Ten million ids that do not exist as objects; counts those that are made."""

    def __init__(self) -> None:
        self.made = 0

    def __len__(self) -> int:
        return 10_000_000

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and image_id.isdecimal() and int(image_id) < len(self)

    def __iter__(self) -> Iterator[str]:
        for number in range(len(self)):
            self.made += 1
            yield str(number)


def test_all_there_is_ok():
    report = check_pairs({"text": ["a", "b"], "image_id": ["1", "2"]}, {"1", "2", "3"})
    assert report.ok
    assert str(report) == "pairs: 2 rows, 2 images, coverage 100.0 %\nstore: 3 images, 1 never named: '3'"


def test_a_dataset_is_checked_as_columns_are():
    columns = {"text": ["a", "b", "a"], "image_id": ["1", "2", "1"], "other": [1, 2, 3]}
    assert check_pairs(Dataset.from_dict(columns), ["1"]) == check_pairs(columns, ["1"])
    train = Dataset.from_dict(columns).select([2, 1])  # of which Arrow's table has more rows
    assert check_pairs(train, ["1"]).train.rows == 2


def test_missing_images_are_counted_once_and_coverage_is_rounded_down():
    ids = [str(number) for number in range(3000)]
    report = check_pairs({"text": ["a"] * 3001, "image_id": [*ids, "2999"]}, set(ids[:-1]))
    assert not report.ok
    assert report.train.missing == ["2999"]
    assert report.train.coverage == 99.9
    assert "pairs: error: 1 image not in the store: '2999'\n" in str(report)


def test_first_five_missing_images_are_shown():
    report = check_pairs({"text": ["a"] * 7, "image_id": list("abcdefg")}, {"a"})
    assert "error: 6 images not in the store: 'b', 'c', 'd', 'e', 'f', ...\n" in str(report)


def test_images_of_hard_negatives_and_second_images_are_wanted_too():
    columns = {"text": ["a"], "image_id": ["1"], "second_image_id": ["2"], "hard_negative_image_ids": [["3", "4"]]}
    report = check_pairs(columns, {"1", "3"})
    assert (report.train.images, report.train.missing) == (4, ["2", "4"])


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        ("132417", "COCO_train2014_000000132417"),
        ("COCO_train2014_000000132417", "132417"),
        ("train2014/COCO_train2014_000000132417.jpg", "COCO_train2014_000000132417"),
        ("1000092795.jpg", "1000092795"),
        ("1000092795", "1000092795.jpg"),
        ("0", "COCO_val2014_000000000000"),
    ],
)
def test_ids_of_another_form_are_recognised(wanted: str, known: str):
    report = check_pairs({"text": ["a"], "image_id": [wanted]}, {known})
    assert report.train.other_forms == {wanted: known}
    assert (
        f"hint: 1 of the first 1 are there in another form, pairs like {wanted!r}, the store like {known!r}; read the "
        "annotations with an image_id_format that gives it, or a table with image_id_stem"
    ) in str(report)


def test_ids_that_share_only_the_last_number_are_other_images():
    store = {f"train-{group}-{image}" for group in range(40) for image in range(4)}
    assert check_pairs({"text": ["a"], "image_id": ["dev-99-0"]}, store).train.other_forms == {}
    # Two ids of the table that would be one image of the store are not the same in another form.
    assert check_pairs({"text": ["a", "b"], "image_id": ["x-7", "y-7"]}, {"7"}).train.other_forms == {}


def test_a_store_of_another_corpus_is_shown():
    report = check_pairs({"text": ["a"], "image_id": ["cat"]}, ["one", "two"])
    assert "hint: no id is in the store, whose ids look like" in str(report)
    assert "'one'" in str(report)


def test_unicode_forms_of_ids_are_told_apart_and_warned_of():
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    report = check_pairs({"text": ["a"], "image_id": [decomposed]}, {composed})
    assert report.train.missing == [decomposed]
    assert report.train.unusual_ids == [decomposed]
    assert "pairs like 'e\\u0301', the store like '\\xe9'; bring both into one Unicode form" in str(report)
    both = check_pairs({"text": ["a", "a"], "image_id": [composed, decomposed]}, {composed, decomposed})
    assert both.ok
    assert both.train.same_ids == [(composed, decomposed)]
    assert "1 pair of ids that differ in Unicode form only: '\\xe9' and 'e\\u0301'" in str(both)


def test_duplicates_are_rows_with_everything_the_same():
    columns = {"text": ["a", "a", "b", "a"], "image_id": ["1", "2", "1", "1"]}
    report = check_pairs(columns, {"1", "2"})
    assert (report.train.duplicate_rows, report.train.first_duplicate, report.ok) == (1, 3, True)
    assert "warning: 1 duplicate row of the same image and text, the first is row 3" in str(report)
    other = check_pairs(columns | {"second_image_id": ["3", "3", "3", "4"]}, {"1", "2", "3", "4"})
    assert (other.train.duplicate_rows, other.train.first_duplicate) == (0, None)


def test_leakage_is_a_warning_with_counts():
    train = {"text": ["a", "b", "c"], "image_id": ["1", "2", "3"]}
    evaluation = {"text": ["a", "other", "c"], "image_id": ["1", "2", "4"]}
    report = check_pairs(train, {"1", "2", "3", "4", "5"}, evaluation)
    assert report.ok
    assert report.shared_images == ["1", "2"]
    assert report.shared_rows == 1
    assert str(report) == (
        "pairs: 3 rows, 3 images, coverage 100.0 %\n"
        "evaluation: 3 rows, 3 images, coverage 100.0 %\n"
        "both: warning: 2 images in training and in evaluation: '1', '2'\n"
        "both: warning: 1 row of the evaluation also in training\n"
        "store: 5 images, 1 never named: '5'"
    )


def test_images_missing_from_the_evaluation_are_not_ok():
    pairs = {"text": ["a"], "image_id": ["1"]}
    report = check_pairs(pairs, {"1"}, {"text": ["a"], "image_id": ["2"]})
    assert (report.train.ok, report.ok) == (True, False)


def test_blank_and_long_texts_are_counted():
    columns = {"text": ["a", " \n", None, "b" * 1001], "image_id": ["1", "1", "1", "1"]}
    report = check_pairs(columns, {"1"})
    assert not report.ok
    assert report.train.blank_rows == [1, 2]
    assert "error: 2 rows without text or image id, the first is row 1" in str(report)
    assert "warning: 1 text of more than 1,000 characters, the longest of 1,001" in str(report)


def test_an_empty_table_is_not_ok():
    report = check_pairs({"text": [], "image_id": []}, {"1"})
    assert not report.ok
    assert "error: no rows" in str(report)


def test_an_empty_store_has_nothing():
    report = check_pairs({"text": ["a"], "image_id": ["1"]}, [])
    assert (report.train.coverage, report.ok) == (0.0, False)


def test_ids_given_twice_are_one_image_of_the_store():
    assert check_pairs({"text": ["a"], "image_id": ["1"]}, ["1", "1", "2"]).unused_images == 1


def test_a_large_store_is_only_asked():
    store = CountedStore()
    report = check_pairs({"text": ["a", "b"], "image_id": ["9999999", "x"]}, store)
    assert (report.train.missing, report.unused_images) == (["x"], 9_999_999)
    assert store.made <= PEEKED_IDS + SHOWN + 1


def test_tables_that_are_none_are_named():
    with pytest.raises(ValueError, match="no column 'image_id', got 'text'; rename"):
        check_pairs({"text": ["a"]}, {"1"})
    with pytest.raises(ValueError, match="column 'image_id' does not hold large_string"):
        check_pairs({"text": ["a"], "image_id": [1]}, {"1"})
    with pytest.raises(ValueError, match="column 'image_id' does not hold large_string"):
        check_pairs(Dataset.from_dict({"text": ["a"], "image_id": [1]}), {"1"})
    with pytest.raises(ValueError, match="different lengths"):
        check_pairs({"text": ["a", "b"], "image_id": ["1"]}, {"1"})


IDS = st.sampled_from(["1", "2", "3", "../x", "/abs", "\0", "é"])


@given(st.lists(st.tuples(IDS, st.sampled_from("ab"))), st.lists(st.tuples(IDS, st.sampled_from("ab"))), st.sets(IDS))
def test_counts_agree_with_sets(rows: list, others: list, store: set):
    train, evaluation = ({"image_id": [i for i, _ in t], "text": [t for _, t in t]} for t in (rows, others))
    report = check_pairs(train, store, evaluation)
    images, eval_images = {image for image, _ in rows}, {image for image, _ in others}
    assert set(report.train.missing) == images - store
    assert report.train.duplicate_rows == len(rows) - len(set(rows))
    assert set(report.shared_images) == images & eval_images
    assert report.shared_rows == sum(row in set(rows) for row in others)
    assert report.unused_images == len(store - images - eval_images)
    assert report.train.ok == (images <= store and bool(rows))
    assert str(report)
