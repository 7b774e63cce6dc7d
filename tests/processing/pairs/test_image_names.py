"""File names of images in tables joined with the ids that `mmpt extract` gives."""

import logging

import pytest
from datasets import Dataset

from mmpt.processing.pairs.image_names import join_image_names


def joined(names: list[str], store: list[str]) -> list[str]:
    pairs = Dataset.from_dict({"image_id": names, "text": ["a"] * len(names)})
    return join_image_names(pairs, set(store), "a.csv")["image_id"][:]


@pytest.mark.parametrize(
    ("names", "store", "expected"),
    [
        (["flower_01.jpg", "trip one/a.JPG"], ["flower_01", "trip one/a"], ["flower_01", "trip one/a"]),
        (["./a.webp", " b.PNG", "c\\d.jpeg"], ["a", "b", "c/d"], ["a", "b", "c/d"]),
        (["photos/x/1.jpg", "photos/x/2.jpg"], ["x/1", "x/2"], ["x/1", "x/2"]),
        (["/home/me/photos/1.jpg"], ["1"], ["1"]),
        (["a", "b.c"], ["a.jpg", "b.c.png"], ["a.jpg", "b.c.png"]),
        (["1.jpg", "1"], ["1"], ["1", "1"]),  # one image by two names
        (["a.jpg", "a.png"], ["a.jpg", "a.png"], ["a.jpg", "a.png"]),
        (["a"], ["a.jpg", "a.png"], ["a"]),  # it could be either
        (["x/1.jpg", "y/1.jpg"], ["1"], ["x/1.jpg", "y/1.jpg"]),  # two images
        (["y/1.jpg", "1"], ["1"], ["y/1.jpg", "1"]),
        (["v1.2", "none.jpg"], ["v1"], ["v1.2", "none.jpg"]),  # .2 ends no image file
        (["图/花.jpg"], ["图/花"], ["图/花"]),
    ],
)
def test_names_are_joined_where_one_image_is_meant(names: list[str], store: list[str], expected: list[str]) -> None:
    assert joined(names, store) == expected


def test_every_column_of_images_is_joined_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pairs = Dataset.from_dict(
        {
            "text": ["a", "b"],
            "image_id": ["1.jpg", "2"],
            "second_image_id": ["2.jpg", None],
            "hard_negative_image_ids": [["2.jpg", "1"], None],
        }
    )
    with caplog.at_level(logging.WARNING):
        found = join_image_names(pairs, {"1": 0, "2": 0}, "a.csv")
    assert found.features == pairs.features
    assert found["image_id"][:] == ["1", "2"]
    assert found["second_image_id"][:] == ["2", None]
    assert found["hard_negative_image_ids"][:] == [["2", "1"], None]
    assert "a.csv: 2 image ids are file names of images in the store" in caplog.text
