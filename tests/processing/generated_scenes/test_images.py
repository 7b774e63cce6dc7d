"""Generated scenes as files: images of a corpus, and annotated scenes."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from mmpt.processing.generated_scenes.corpus import GeneratedScenes
from mmpt.processing.generated_scenes.images import write_corpus, write_detector_scenes
from mmpt.processing.generated_scenes.scenes import CLASS_NAMES, render


@pytest.fixture(scope="module")
def corpus() -> GeneratedScenes:
    return GeneratedScenes.build(6, 3, seed=5, statements=0.5, partial_captions=0.5)


def test_the_corpus_of_given_arguments_is_what_it_was() -> None:
    corpus = GeneratedScenes.build(40, 20, seed=5, statements=0.5)
    names = ("train", "evaluation", "changed", "swapped", "compositions", "statements")
    texts = hashlib.sha256(b"".join(json.dumps(getattr(corpus, name).to_dict()).encode() for name in names))
    assert texts.hexdigest() == "1b3274414f3dadddf10d0b9b933973ba8d53a99739adae02fef1ad0ad71612fd"
    boxes = hashlib.sha256(b"".join(box.tobytes() for box in corpus.found.values()))
    assert boxes.hexdigest() == "9e68253e2ce7281321add2e970933b26b810c1f561e775d6875bea1857a9359a"
    scenes = hashlib.sha256(repr(corpus.scenes).encode())  # what is rendered, pixel noise included
    assert scenes.hexdigest() == "954375bac21593096071fb0af4351314ebac3a84261be0b477f8be605e736be4"


def test_every_image_is_written_under_its_id_and_holds_its_scene(corpus: GeneratedScenes, tmp_path: Path) -> None:
    write_corpus(tmp_path, corpus)
    assert {path.stem for path in (tmp_path / "images").glob("*.png")} == set(corpus.regions)
    for image_id, scene in corpus.scenes.items():
        written = np.asarray(Image.open(tmp_path / "images" / f"{image_id}.png"))
        assert np.array_equal(written, np.asarray(render(scene)))


def test_tables_are_those_of_the_corpus(corpus: GeneratedScenes, tmp_path: Path) -> None:
    write_corpus(tmp_path, corpus)
    for name in ("train", "evaluation"):
        table = load_dataset("json", data_files=str(tmp_path / f"{name}.jsonl"), split="train", cache_dir=str(tmp_path))
        assert list(table) == list(getattr(corpus, name))


def test_annotations_are_the_objects_in_pixels(tmp_path: Path) -> None:
    write_detector_scenes(tmp_path, 12, seed=0)
    coco = json.loads((tmp_path / "annotations.json").read_text())
    assert [category["name"] for category in coco["categories"]] == list(CLASS_NAMES)
    assert {image["file_name"] for image in coco["images"]} == {path.name for path in (tmp_path / "images").iterdir()}
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    grey = np.asarray([190, 190, 186])
    for item in coco["annotations"]:
        pixels = np.asarray(Image.open(tmp_path / "images" / names[item["image_id"]])).astype(int)
        x, y, width, height = item["bbox"]
        middle = pixels[y + height // 2 - 2 : y + height // 2 + 2, x + width // 2 - 2 : x + width // 2 + 2]
        assert np.abs(middle.mean((0, 1)) - grey).max() > 25
        assert np.abs(pixels[y, x - 2 : x].mean(0) - grey).max() < 25


def test_detector_scenes_are_not_those_of_the_corpus(corpus: GeneratedScenes, tmp_path: Path) -> None:
    write_detector_scenes(tmp_path / "annotated", 6, seed=5)
    write_corpus(tmp_path / "corpus", corpus)
    found = {
        name: {path.read_bytes() for path in (tmp_path / name / "images").iterdir()} for name in ("annotated", "corpus")
    }
    assert not found["annotated"] & found["corpus"]


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_detector_scenes(tmp_path / name, 3, seed=1)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_a_folder_with_images_is_left_alone(corpus: GeneratedScenes, tmp_path: Path) -> None:
    write_detector_scenes(tmp_path, 1, seed=0)
    for write in (lambda: write_corpus(tmp_path, corpus), lambda: write_detector_scenes(tmp_path, 1, seed=0)):
        with pytest.raises(FileExistsError, match="already has files; remove it, or choose another folder"):
            write()


def test_no_scene_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count is 0, expected at least 1 scene"):
        write_detector_scenes(tmp_path, 0, seed=0)
