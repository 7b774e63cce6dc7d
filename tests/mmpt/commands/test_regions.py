"""The commands about region features, run as a user runs them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mmpt.commands.main import app
from mmpt.inference.region_picture import choose_regions, draw_regions, find_font
from mmpt.processing.generated_scenes.scenes import TRAIN_COMPOSITIONS, render, sample_scene
from mmpt.processing.store.filling import fill_store
from mmpt.processing.store.region_store import RegionStore
from tests.factories.detectors import save_detector
from tests.factories.sources import ListSource, contents, tiny_regions

RUNNER = CliRunner()
COUNT = 6


def run(*words: str | Path) -> Result:
    return RUNNER.invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        render(sample_scene(np.random.default_rng(number), TRAIN_COMPOSITIONS)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detector("yolos", tmp_path_factory.mktemp("detector"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    fill_store(tmp_path / "s", ListSource([*map(tiny_regions, range(8)), "broken"]), shard_bytes=3000)
    return tmp_path / "s"


def test_extracted_parts_merge_to_the_whole(photos: Path, detector: Path, tmp_path: Path) -> None:
    options = ("--images", photos, "--model", detector, "--device", "cpu", "--max-regions", "3")
    whole = run("extract", *options, "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    assert whole.stdout.splitlines()[-1] == f"{tmp_path / 'whole'}: 6 images, 0 images rejected"
    for part in ("1/2", "2/2"):
        assert run("extract", *options, "--out", tmp_path / "part", "--shard", part).exit_code == 0
    parts = [tmp_path / f"part-0000{part}-of-00002" for part in (1, 2)]
    assert run("merge", *parts, "--out", tmp_path / "merged").exit_code == 0
    one, other = RegionStore.open(tmp_path / "whole"), RegionStore.open(tmp_path / "merged")
    assert list(one) == list(other) == [str(number) for number in range(COUNT)]
    for image_id in one:
        np.testing.assert_allclose(one[image_id].features, other[image_id].features, atol=1e-2)
        assert len(one[image_id]) == 3


def test_bad_image_is_counted_in_the_exit_code_and_the_last_line(photos: Path, detector: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "3.png").write_bytes(b"no image")
    result = run("extract", "--images", folder, "--model", detector, "--device", "cpu", "--out", tmp_path / "s")
    assert result.exit_code == 1
    last = result.stdout.splitlines()[-1]
    assert (
        last == f"{tmp_path / 's'}: 5 images, 1 images rejected; the reasons are in {tmp_path / 's' / 'errors.jsonl'}"
    )
    (row,) = map(json.loads, (tmp_path / "s" / "errors.jsonl").read_text().splitlines())
    assert (row["position"], row["image_id"]) == (3, "3")
    strict = run("extract", "--images", folder, "--model", detector, "--out", tmp_path / "t", "--strict")
    assert (strict.exit_code, strict.stderr.splitlines()[-1].startswith("error: 3.png: ")) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shard", "3/2"], "got --shard '3/2', expected i/n with i from 1 to n"),
        (["--box-format", "cm"], "got --box-format 'cm', expected pixel or normalized"),
        (["--shard-bytes", "0"], "got --shard-bytes 0, expected 1 or more"),
    ],
)
def test_wrong_options_are_one_line(photos: Path, detector: Path, tmp_path: Path, words: list, message: str) -> None:
    result = run("extract", "--images", photos, "--model", detector, "--device", "cpu", "--out", tmp_path / "s", *words)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]


def test_second_writer_is_one_line(store: Path, tmp_path: Path) -> None:
    from mmpt.processing.store.writer import RegionStoreWriter

    with RegionStoreWriter(tmp_path / "busy", extractor={}) as writer:
        writer.add(tiny_regions(0))
        result = run("merge", store, "--out", tmp_path / "busy")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "is being written by another process" in result.stderr


def test_feature_file_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "features.tsv"
    write_bottom_up(path, ["a", "b"])
    result = run("import", path, "--out", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert list(RegionStore.open(tmp_path / "s")) == ["a", "b"]
    again = run("import", path, "--out", tmp_path / "s")
    assert again.stdout.splitlines()[0] == "2 rows were there from a run before"


def write_bottom_up(path: Path, names: list[str]) -> None:
    import base64

    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        for seed, name in enumerate(names):
            rng = np.random.default_rng(seed)
            boxes = np.asarray([[0, 0, 50, 40], [10, 20, 90, 80]], np.float32)
            arrays = (boxes, rng.random((2, 5), dtype=np.float32))
            writer.writerow([name, 100, 80, 2, *(base64.b64encode(array.tobytes()).decode() for array in arrays)])


def test_validate_finds_damage_and_repair_mends_it(store: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(store, tmp_path / "copy"))
    assert run("validate", store, "--deep").exit_code == 0
    shard = store / "shard-00001.arrow"
    wanted = tiny_regions(4).features.astype(np.float16).tobytes()
    shard.write_bytes(shard.read_bytes().replace(wanted, bytes(len(wanted))))
    assert run("validate", store).exit_code == 0
    deep = run("validate", store, "--deep")
    assert deep.exit_code == 1
    assert "1 of 3 images are damaged: 'image 4'" in deep.stdout
    mended = run("validate", store, "--repair", "--source", whole)
    assert mended.exit_code == 0, mended.output
    assert mended.stdout.splitlines()[-1] == f"{store}: 1 files written again, 1 images mended, 0 dropped"
    assert contents(store) == contents(whole)
    assert run("validate", store, "--source", whole).exit_code == 2


def test_validate_checks_the_join_with_pairs(store: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("image_id,text\nimage 0,a dog\nimage 1,a cat\n")
    assert run("validate", store, "--pairs", table).exit_code == 0
    table.write_text("image_id,text\nimage 0,a dog\nimage 77,a cat\n")
    result = run("validate", store, "--pairs", table)
    assert result.exit_code == 1
    assert "coverage 50.0 %" in result.stdout
    assert "image 77" in result.stdout


def test_info_counts(store: Path) -> None:
    text = run("info", store).stdout
    for part in (
        "8 images",
        "16; 2 to 2 per image, mean 2.0",
        "dimension 300",
        "rejected: 1",
        "class_probs, scores",
    ):
        assert part in text
    assert sum(int(line.split()[2]) for line in text.splitlines() if line.startswith("  class")) == 16


def test_show_draws_the_boxes(store: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "picture.png"
    assert run("show", store, "image 1", "--out", out).exit_code == 0
    with Image.open(out) as picture:
        assert max(picture.size) == 1000
        assert len(picture.getcolors(1 << 20) or ()) > 3
    assert run("show", store, "image 1", "--image", photos / "0.png", "--out", out).exit_code == 0
    assert run("show", store, "image 1", "--top", "1", "--threshold", "0.01", "--out", out).exit_code == 0
    none = run("show", store, "image 1", "--threshold", "0.9999", "--out", out)
    assert (none.exit_code, "no region has a score of 0.9999 or more, the highest is 0." in none.stderr) == (2, True)
    missing = run("show", store, "nowhere", "--out", out)
    assert missing.exit_code == 2
    assert "image 'nowhere' is not in" in missing.stderr


def test_pairs_turns_annotations_into_a_table(tmp_path: Path) -> None:
    source = tmp_path / "captions_val2014.json"
    images = [{"id": 7, "file_name": "COCO_val2014_000000000007.jpg"}]
    source.write_text(json.dumps({"images": images, "annotations": [{"id": 1, "image_id": 7, "caption": "a dog"}]}))
    for name in ("pairs.csv", "pairs.jsonl", "pairs.parquet"):
        result = run("pairs", source, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert (tmp_path / name).stat().st_size
    assert run("pairs", source, "--out", tmp_path / "pairs.xls").exit_code == 2


def test_show_refuses_the_picture_of_another_size_and_keeps_the_best(store: Path, tmp_path: Path) -> None:
    regions = tiny_regions(0, width=40, height=30)
    small = Image.new("RGB", (30, 30))
    with pytest.raises(ValueError, match="40 x 30 pixels, the given image has 30 x 30"):
        draw_regions(regions, small)
    assert draw_regions(regions, Image.new("RGB", (40, 30))).size == (1000, 750)
    best = int(np.argmax(regions.scores))
    np.testing.assert_array_equal(choose_regions(regions, top=1).boxes, regions.boxes[[best]])
    assert len(choose_regions(regions, threshold=float(regions.scores.min()))) == 2


def test_labels_that_no_font_has_are_numbers_and_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    assert find_font("dog caf\u00e9 0.93")[1] == []
    rare = "\U00013000\U00013001"  # hieroglyphs, which none of the fonts looked for has
    assert find_font(f"dog {rare}")[1] == list(rare)
    regions = tiny_regions(0, labels=np.asarray([0, 1]))
    drawn = draw_regions(regions, None, [f"dog {rare}", "cat"])
    assert "classes with such names are drawn as numbers" in caplog.text
    assert drawn.tobytes() == draw_regions(regions, None, ["class 0", "cat"]).tobytes()
    with pytest.raises(ValueError, match="cannot be read as a font"):
        find_font("dog", __file__)


def test_images_that_were_deleted_since_are_named(photos: Path, detector: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    words = ("extract", "--images", folder, "--model", detector, "--device", "cpu", "--out", tmp_path / "s")
    assert run(*words).exit_code == 0
    (folder / "3.png").unlink()
    result = run(*words)
    assert result.exit_code == 0
    gone = f"1 images are in {tmp_path / 's'} and no longer in the source (3): their regions stay"
    assert gone in result.stdout
    assert gone in run(*words).stdout  # as long as it is so
    assert len(RegionStore.open(tmp_path / "s")) == COUNT


def test_repaired_and_added_images_are_taken_up(photos: Path, detector: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    shutil.move(folder / "5.png", tmp_path)
    (folder / "2.png").write_bytes(b"torn")
    words = ("extract", "--images", folder, "--model", detector, "--device", "cpu", "--max-regions", "3")
    words = (*words, "--out", tmp_path / "s")
    first = run(*words)
    assert (first.exit_code, "rejected: 2\n" in first.stdout) == (1, True), first.output
    shutil.copy(photos / "2.png", folder)
    shutil.move(tmp_path / "5.png", folder)
    again = run(*words)
    assert again.exit_code == 0, again.output
    assert "2 images taken in that were repaired or added since" in again.stdout
    assert again.stdout.splitlines()[-1] == f"{tmp_path / 's'}: 6 images, 0 images rejected"
    assert sorted(RegionStore.open(tmp_path / "s")) == [str(number) for number in range(COUNT)]
    other = run(*words, "--threshold", "0.5")
    assert other.exit_code == 2
    assert "holds a store made by threshold 0.0, asked for threshold 0.5" in other.stderr
    assert other.stderr.splitlines()[-1].startswith("error: ")
