import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from mmpt.processing.region_extraction.image_sources import open_images


def save_image(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), colour).save(path)
    return path


def corner(image: Image.Image) -> Any:
    return image.getpixel((0, 0))


def test_folder_in_the_order_of_its_paths(tmp_path, caplog):
    for name in ("b.PNG", "a/2.jpeg", "a/10.png", ".hidden/x.png", "a/.b.png"):
        save_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    images = open_images(tmp_path)
    assert images.ids == ["a/10", "a/2", "b"]
    assert [images[position].where for position in range(len(images))] == ["a/10.png", "a/2.jpeg", "b.PNG"]
    assert images[2].load().size == (4, 3)
    assert images.name == tmp_path.name
    assert "skipping 1 files that are not images (notes.txt)" in caplog.text
    assert "passing over 2 hidden files and folders (.hidden, a/.b.png)" in caplog.text


def test_images_are_decoded_only_on_access(tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    images = open_images(tmp_path)
    with pytest.raises(ValueError, match="its format is none of"):
        images[0].load()
    with pytest.raises(ValueError, match="No such file"):
        images[1].load()


def test_two_files_of_one_stem_keep_their_suffix(tmp_path, caplog):
    for name in ("a/1.jpg", "a/1.png"):
        save_image(tmp_path / name)
    save_image(tmp_path / "a/2.png")
    assert open_images(tmp_path).ids == ["a/1.jpg", "a/1.png", "a/2"]
    assert "1 names belong to several files (a/1); the ids of these files keep their suffix" in caplog.text
    (tmp_path / "list.csv").write_text("image,caption\na/1.jpg,one\na/1.png,two\na/2.png,three\na/2.png,four\n")
    assert open_images(tmp_path / "list.csv").ids == ["a/1.jpg", "a/1.png", "a/2"]
    assert "1 rows repeat an image of an earlier row (a/2); each image is used once" in caplog.text
    (tmp_path / "ids.csv").write_text("image,image_id\na/1.jpg,x\na/1.png,x\n")
    with pytest.raises(ValueError, match=r"line 2 and ids.csv, line 3 both have the id 'x'"):
        open_images(tmp_path / "ids.csv")


def test_links_to_folders_are_followed_and_loops_left(tmp_path):
    save_image(tmp_path / "real/1.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/link").symlink_to(tmp_path / "real")
    (tmp_path / "photos/loop").symlink_to(tmp_path / "photos")
    assert open_images(tmp_path / "photos").ids == ["link/1"]


def test_ids_are_data(tmp_path):
    ids = ["../../x", "/abs", "nul\0", "é", "e\u0301", "long" * 300, 7]
    save_image(tmp_path / "a.png")
    lines = [json.dumps({"image": "a.png", "image_id": image_id}) for image_id in ids]
    (tmp_path / "images.jsonl").write_text("\n".join(lines))
    images = open_images(tmp_path / "images.jsonl")
    assert images.ids == [str(image_id) for image_id in ids]
    assert images[0].load().size == (4, 3)


def test_json_lines_with_boxes_and_rows_that_cannot_be_read(tmp_path):
    save_image(tmp_path / "photos/a.png")
    good = '{"image": "photos/a.png", "boxes": [[0, 0, 2, 2]], "labels": [3]}'
    rows = [good, "{", '{"image_id": "x"}', "", '"a.png"', "\xff"]
    (tmp_path / "images.jsonl").write_bytes("\n".join(rows).encode("latin-1"))
    images = open_images(tmp_path / "images.jsonl")
    assert images.ids == ["photos/a", None, "x", None, None]
    first = images[0]
    assert (first.where, first.boxes, first.labels) == ("images.jsonl, line 1", [[0, 0, 2, 2]], [3])
    assert first.load().size == (4, 3)
    for position, message in (
        (1, "not valid JSON"),
        (2, "expected a path in 'image'"),
        (3, "'a.png'|a.png"),
        (4, "not valid JSON"),
    ):
        with pytest.raises(ValueError, match=message):
            images[position].load()
    assert images[4].where == "images.jsonl, line 6"


def test_csv_with_boxes(tmp_path):
    save_image(tmp_path / "a.png")
    rows = ["image,image_id,boxes,labels", 'a.png,one,"[[0, 0, 2, 2]]",[3]', "a.png,,,", "b.png,three,[[,"]
    (tmp_path / "images.csv").write_text("\n".join(rows))
    images = open_images(tmp_path / "images.csv")
    assert images.ids == ["one", "a", None]
    assert (images[0].boxes, images[0].labels) == ([[0, 0, 2, 2]], [3])
    assert images[1].boxes is images[1].labels is None
    with pytest.raises(ValueError, match="boxes or labels are not valid JSON"):
        images[2].load()
    (tmp_path / "other.csv").write_text("bild\na.png\n")
    with pytest.raises(ValueError, match=r"columns are \['bild'\], expected 'image'"):
        open_images(tmp_path / "other.csv")


def test_dataset_on_disk_with_an_image_that_is_broken(tmp_path):
    good = {"bytes": save_image(tmp_path / "a.png").read_bytes(), "path": None}
    rows = {"image": [good, {"bytes": b"no image", "path": None}, None], "image_id": ["x", "y", "z"]}
    features = datasets.Features({"image": datasets.Image(), "image_id": datasets.Value("string")})
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset.save_to_disk(str(tmp_path / "data"))
    images = open_images(tmp_path / "data")
    assert images.ids == ["x", "y", "z"]
    assert (images[0].where, corner(images[0].load())) == ("data, row 0", (255, 0, 0))
    for position, message in ((1, "its format is none of"), (2, "the row has no image")):
        with pytest.raises(ValueError, match=message):
            images[position].load()
    datasets.DatasetDict(train=dataset.remove_columns("image_id")).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(ValueError, match="has the splits train, expected one of them"):
        open_images(tmp_path / "splits")
    assert open_images(tmp_path / "splits" / "train").ids == ["0", "1", "2"]


def test_hash_distinguishes_lists_of_ids(tmp_path):
    for name in ("a.png", "b.png"):
        save_image(tmp_path / "one" / name)
        save_image(tmp_path / "two" / name, "blue")
        save_image(tmp_path / "three" / f"x{name}")
    one, two, three = (open_images(tmp_path / name).ids_sha256 for name in ("one", "two", "three"))
    assert one == two != three


def test_anything_but_a_list_of_images_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "images.txt").write_text("a.png")
    for name, error, message in (
        ("missing", FileNotFoundError, "does not exist"),
        ("empty", ValueError, "has no image"),
        ("images.txt", ValueError, r"neither a folder nor a \.jsonl or \.csv file"),
    ):
        with pytest.raises(error, match=message):
            open_images(tmp_path / name)


@pytest.mark.parametrize(
    ("header", "columns"), [("file_name", None), ("Image Path", None), ("图片", {"图片": "image"}), ("image", None)]
)
def test_the_column_of_images_may_be_called_otherwise_and_hold_paths_of_windows(tmp_path, header, columns):
    save_image(tmp_path / "trip/a.png")
    (tmp_path / "list.csv").write_text(f"{header},caption\ntrip\\a.png,x\n", encoding="utf-8")
    images = open_images(tmp_path / "list.csv", columns=columns)
    assert images.ids == ["trip/a"]
    assert images[0].load().size == (4, 3)
    with pytest.raises(ValueError, match="there is no column 'photo'"):
        open_images(tmp_path / "list.csv", columns={"photo": "image"})
