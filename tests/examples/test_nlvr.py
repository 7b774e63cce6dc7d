"""NLVR v1: the program writes stores and tables, and the commands of the page train, evaluate and predict on them."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from examples.nlvr.corpus import read_corpus
from examples.nlvr.prepare import Sizes, main, prepare
from examples.nlvr.scenes import look_up, prototype_ids
from mmpt.commands.main import app
from mmpt.configuration.errors import MmptFileExistsError, MmptFileNotFoundError, MmptValueError
from mmpt.processing.generated_scenes.box_features import box_features
from mmpt.processing.pairs.image_names import read_pairs
from mmpt.processing.store.region_store import RegionStore
from tests.factories.nlvr import write_split
from tests.factories.paths import ROOT

PAGE = ROOT / "examples" / "nlvr" / "README.md"
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_split(folder, "train", [0, 1, 7])
    for split in ("dev", "test"):
        write_split(folder, split, [0, 1])
    return folder


@pytest.fixture(scope="module")
def data(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program wrote what the page's commands read."""
    work = tmp_path_factory.mktemp("work")
    sizes = ["--words", "6", "--simple", "6", "--all", "6", "--mixed", "5", "--copies", "2"]
    main([str(corpus), str(work / "runs/nlvr/data"), *sizes])
    return work / "runs/nlvr/data"


def table(path: Path, store: Path) -> dict[str, list[Any]]:
    return read_pairs(path, RegionStore.open(store)).to_dict()  # type: ignore[return-value]


def test_true_sentences_are_paired_and_false_images_are_hard_negatives(data: Path) -> None:
    pairs = table(data / "captions.parquet", data / "captions")
    assert pairs["image_id"] == [f"train-{group}-{place}" for group in (0, 1, 7) for place in (0, 1)]
    assert pairs["hard_negative_image_ids"][0] == ["train-0-2", "train-0-3"]
    regions = RegionStore.open(data / "captions")["train-0-0"]
    assert regions.type_ids.tolist() == [0, 0, 1, 1, 2, 2]  # type: ignore[union-attr]
    assert (regions.width, regions.height) == (400, 100)
    assert regions.boxes[2, 0] >= 150 / 400
    assert np.allclose(regions.class_probs.sum(1), 1, atol=1e-5)  # type: ignore[union-attr]
    assert len(RegionStore.open(data / "captions")) == 12 + 8 + 8


def test_every_split_is_a_table_of_true_and_false_rows_in_the_first_order_of_boxes(data: Path) -> None:
    for split in ("dev", "test"):
        rows = table(data / f"{split}.parquet", data / "regions")
        assert rows["label"] == [1, 1, 0, 0] * 2
        assert rows["label_name"][:4] == ["true", "true", "false", "false"]
        assert rows["group"] == ["0"] * 4 + ["1"] * 4
        assert rows["question_id"] == rows["image_id"] == [f"{split}-{g}-{k}" for g in (0, 1) for k in range(4)]
        assert Image.open(data / "images" / f"{split}-0-0.png").size == (400, 100)


def test_features_are_looked_up_or_taken_from_the_pixels_of_the_image(corpus: Path, data: Path) -> None:
    examples = read_corpus(corpus).splits
    stores = {name: RegionStore.open(data / name) for name in ("regions", "pixels")}
    assert stores["regions"].arrays == stores["pixels"].arrays == ("type_ids",)
    example = examples["dev"][2]
    own, looked_up = (stores[name][example.image_id] for name in ("pixels", "regions"))
    file = Image.open(data / "images" / f"{example.image_id}.png").convert("RGB")
    np.testing.assert_allclose(own.features[:6], box_features(file, example.boxes), atol=1e-3)
    kinds = np.concatenate([prototype_ids(e.scene) for e in examples["train"]])
    features = np.concatenate([e.features for e in examples["train"]])
    wanted = [np.median(features[kinds == kind], axis=0) for kind in prototype_ids(example.scene)]
    np.testing.assert_array_equal(looked_up.features[:6], np.array(wanted, np.float16))
    for regions in (own, looked_up):
        assert regions.type_ids.tolist() == [0, 0, 1, 1, 2, 2, 0, 1, 2]  # type: ignore[union-attr]
        assert regions.boxes[6:].tolist() == [[0, 0, 1, 1]] * 3


def test_statements_to_pre_train_on_have_a_true_and_a_false_scene(data: Path) -> None:
    for level in ("words", "simple", "all"):
        pairs = table(data / f"{level}.parquet", data / "regions")
        assert len(pairs["text"]) == 6
        assert all(
            [image] != false for image, false in zip(pairs["image_id"], pairs["hard_negative_image_ids"], strict=True)
        )


def test_statements_stand_behind_changed_copies_of_the_sentences(data: Path) -> None:
    rows, copies = (table(data / f"{name}.parquet", data / "regions") for name in ("mixed", "augmented"))
    assert copies["label"] == [1, 1, 0, 0] * 3 * 2
    assert rows["label"] == copies["label"] + [1, 0] * 5
    texts, groups = rows["text"][24:], rows["group"][24:]
    assert texts[::2] == texts[1::2]
    assert groups == [str(group) for group in range(8, 13) for _ in range(2)]
    assert rows["image_id"][24] != rows["image_id"][25]


def test_a_scene_that_comes_again_is_stored_once(data: Path) -> None:
    store = RegionStore.open(data / "regions")
    words = table(data / "words.parquet", data / "regions")
    named = {name for names in (words["image_id"], *words["hard_negative_image_ids"]) for name in names}
    assert all(re.fullmatch(r"train-\d-\d", name) for name in named)  # "words" only pairs scenes that are there
    assert len(store) <= 12 + 8 + 8 + 2 * 6 + 2 * 6 + 2 * 12 + 2 * 5


def test_a_tenth_of_the_groups_is_held_out(corpus: Path, tmp_path: Path) -> None:
    prepare(corpus, tmp_path, Sizes(2, 0, 0, 0, 0), held_out=True)
    held, kept = (table(tmp_path / f"{name}.parquet", tmp_path / "regions") for name in ("held_out", "mixed"))
    assert set(held["group"]) == {"7"}
    assert set(kept["group"]) == {"0", "1"}
    assert not (tmp_path / "simple.parquet").exists()
    assert kept == table(tmp_path / "sentences.parquet", tmp_path / "regions")


def test_what_cannot_be_prepared_is_said(corpus: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(MmptFileNotFoundError, match=r"has no train-\*\.parquet; NLVR v1 is at https://github.com/lil"):
        prepare(tmp_path, tmp_path / "out", Sizes())
    with pytest.raises(MmptFileExistsError, match="already holds a region store"):
        prepare(corpus, data, Sizes())
    with pytest.raises(MmptValueError, match="'copies': -1"):
        prepare(corpus, tmp_path / "out", Sizes(copies=-1))
    for split, groups in (("train", [0]), ("dev", [1])):
        write_split(tmp_path / "few", split, groups)
    with pytest.raises(MmptValueError, match="0 of 4 examples are of a group n"):
        prepare(tmp_path / "few", tmp_path / "out", Sizes(), held_out=True)
    with pytest.raises(MmptValueError, match="has a black square of 20 pixels, but none"):
        look_up(np.full((27, 2), np.nan, np.float32), np.array([[0, 40, 80, 20, 1, 0]], np.int16), "a")


def commands() -> list[list[str]]:
    """Return the commands of mmpt that the page shows, in their order."""
    lines = re.findall(r"^mmpt .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line)[1:] for line in lines]


def test_the_commands_of_the_page_train_evaluate_and_predict(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = ["--max_steps", "2", "--warmup_steps", "0", "--per_device_train_batch_size", "4", "--logging_steps", "1"]
    short += [
        "--use_cpu",
        "true",
        "--disable_tqdm",
        "true",
        "--overwrite",
        "--save_strategy",
        "no",
        "--eval_strategy",
        "no",
    ]
    monkeypatch.chdir(data.parents[2])
    (data.parents[2] / "examples").symlink_to(ROOT / "examples")
    shown = commands()
    assert {words[0] for words in shown} == {"pretrain", "finetune", "evaluate", "predict"}
    for words in shown:
        trains = words[0] in ("pretrain", "finetune")
        result = RUNNER.invoke(app, [*words, *(short if trains else ["--device", "cpu"])])
        assert result.exit_code == 0, f"{words}: {result.output} {result.exception!r}"
    metrics = json.loads(Path("runs/nlvr/dev/metrics.json").read_text())
    assert metrics["task"] == "statements"
    assert metrics["evaluation"]["accuracy_total"] == 8
    assert metrics["evaluation"]["consistency_total"] == 2  # of groups, not of texts
    assert "<img" in Path("runs/nlvr/dev/gallery.html").read_text()
