"""The dataset of a task: rows with regions, and what it refuses."""

import pickle

import pytest
from datasets import Dataset

from mmpt.processing.pairs.dataset import MissingRegionsError
from mmpt.processing.tasks.dataset import TaskDataset
from tests.factories.tasks import images, table


def test_a_row_has_its_columns_its_number_and_its_regions() -> None:
    regions = images()
    rows = TaskDataset(table("nlvr2"), regions, ["second_image_id"])
    row = rows[2]
    assert (row["text"], row["row"], row["label"], row["question_id"]) == ("the ring near the star", 2, 0, "q2")
    assert row["regions"] is regions["image-2"]
    assert row["second_regions"] is regions["image-3"]
    assert len(rows) == 6


def test_a_null_is_left_out() -> None:
    rows = TaskDataset({"text": ["a", "b"], "image_id": ["image-0", "image-1"], "text_pair": [None, "c"]}, images())
    assert "text_pair" not in rows[0]
    assert rows[1]["text_pair"] == "c"
    assert rows.column("label") == [None, None]


@pytest.mark.parametrize(
    ("columns", "ids"),
    [
        ({"question_id": ["x", "y"], "example_id": ["1", "2"]}, ["x", "y"]),
        ({"example_id": ["1", "2"]}, ["1", "2"]),
        ({}, ["0", "1"]),
    ],
)
def test_rows_are_called_by_question_then_example_then_number(columns: dict, ids: list[str]) -> None:
    assert TaskDataset({"text": ["a", "b"], "image_id": ["image-0"] * 2, **columns}, images()).ids() == ids


def test_two_rows_of_one_id_are_refused_when_ids_are_asked_for() -> None:
    rows = TaskDataset({"text": ["a", "b"], "image_id": ["image-0"] * 2, "example_id": ["1", "1"]}, images())
    with pytest.raises(ValueError, match="example_id '1' is in rows 0 and 1"):
        rows.ids()


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="no column 'choices', got text, image_id"):
        TaskDataset({"text": ["a"], "image_id": ["image-0"]}, images(), ["choices"])
    with pytest.raises(ValueError, match="column 'label' is null in row 1"):
        TaskDataset({"text": ["a", "b"], "image_id": ["image-0"] * 2, "label": [1, None]}, images(), ["label"])
    with pytest.raises(MissingRegionsError, match="1 of 2 images"):
        TaskDataset({"text": ["a"], "image_id": ["image-0"], "second_image_id": ["no"]}, images())
    with pytest.raises(ValueError, match="the table is empty"):
        TaskDataset(Dataset.from_dict({"text": [], "image_id": []}), images())
    with pytest.raises(TypeError, match="the table is a list"):
        TaskDataset([1], images())  # type: ignore[arg-type]
    with pytest.raises(IndexError, match=r"row 6 is not in this table, expected 0\.\.5"):
        TaskDataset(table("vqa"), images())[6]


def test_it_travels_to_a_worker() -> None:
    rows = TaskDataset(table("vqa"), images())
    assert pickle.loads(pickle.dumps(rows))[1]["text"] == rows[1]["text"]
