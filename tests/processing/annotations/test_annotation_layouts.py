"""The standard files of other corpora and projects are recognised and read as they are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmpt.processing.annotations.annotation_formats import read_annotations, recognise_format
from mmpt.processing.region_extraction.image_sources import open_images
from tests.factories.annotations import AOKVQA, KARPATHY, LLAVA, LXMERT_NLVR2, TEXTVQA, VCR, layouts, without

COCO = "COCO_val2014_000000294078"
WANTED: dict[str, dict[str, list[Any]]] = {
    "dataset_coco": {
        "text": ["A man with a red helmet.", "A bike.", "Food."],
        "image_id": ["COCO_val2014_000000391895"] * 2 + ["COCO_train2014_000000000009"],
        "example_id": ["770337", "771687", "7"],
        "split": ["test", "test", "restval"],
    },
    "dataset_flickr30k": {"text": ["Two men."], "image_id": ["1000092795"], "example_id": ["0"], "split": ["train"]},
    "vqa_minival": {
        "text": ["Where is he looking?", "Is he?"],
        "image_id": [COCO] * 2,
        "question_id": ["294078000", "294078001"],
        "answers": [["down", "at table"], []],
        "answer_scores": [[1.0, 0.3], []],
    },
    "vqa_test": {
        "text": ["Where is he looking?", "Is he?"],
        "image_id": [COCO] * 2,
        "question_id": ["294078000", "294078001"],
    },
    "gqa_valid": {
        "text": ["What is on the wall?"],
        "image_id": ["2405722"],
        "question_id": ["07333408"],
        "answers": [["pipe"]],
        "answer_scores": [[1.0]],
    },
    "nlvr2_valid": {
        "text": ["The right image shows a walkway."],
        "image_id": ["dev-850-0-img0"],
        "second_image_id": ["dev-850-0-img1"],
        "example_id": ["dev-850-0-0"],
        "label": [0],
        "label_name": ["false"],
    },
    "nlvr2_test": {
        "text": ["The right image shows a walkway."],
        "image_id": ["dev-850-0-img0"],
        "second_image_id": ["dev-850-0-img1"],
        "example_id": ["dev-850-0-0"],
    },
    "mscoco_minival": {
        "text": ["A man.", "A table.", "Where?"],
        "image_id": [COCO] * 3,
        "example_id": [f"{COCO}_mscoco_000", f"{COCO}_mscoco_001", f"{COCO}_vqa_000"],
        "answers": [None, None, ["down", "at table"]],
        "answer_scores": [None, None, [1.0, 0.3]],
    },
    "question_answers": {
        "text": ["What color is the clock?"],
        "image_id": ["1"],
        "question_id": ["986769"],
        "answers": [["Green."]],
        "answer_scores": [[1.0]],
    },
    "aokvqa_v1p0_val": {
        "text": ["What is the man by the bags awaiting?"],
        "image_id": ["000000299207"],
        "question_id": ["22MexNkBPpdZGX6sxbxVBH"],
        "choices": [["skateboarder", "train", "delivery", "cab"]],
        "split": ["val"],
        "label": [3],
        "answers": [AOKVQA[0]["direct_answers"]],
        "answer_scores": [[1.0] * 3 + [2 / 3] * 2 + [1 / 3] * 5],
    },
    "TextVQA_0.5.1_val": {
        "text": ["what is the brand of this camera?"],
        "image_id": ["003a8ae2ef43b901"],
        "question_id": ["34602"],
        "split": ["val"],
        "answers": [["dakota"] * 9 + ["nikon"]],
        "answer_scores": [[1.0] * 9 + [0.3]],
    },
    "vizwiz_val": {
        "text": ["Ok. There is another picture I hope it is a better one."],
        "image_id": ["VizWiz_val_00000000"],
        "question_id": ["VizWiz_val_00000000"],
        "answers": [["unanswerable"] * 10],
        "answer_scores": [[1.0] * 10],
    },
    "coco_karpathy_val": {
        "text": ["A child.", "A boy.", "A kitchen."],
        "image_id": ["val2014/COCO_val2014_000000184613"] * 2 + ["val2014/COCO_val2014_000000403013"],
    },
    "coco_karpathy_train": {
        "text": ["A woman.", "A cake."],
        "image_id": ["val2014/COCO_val2014_000000522418"] * 2,
    },
    "llava_instruct_150k": {
        "text": ["What are the colors of the bus?", "Is it moving?"],
        "image_id": ["coco/train2017/000000033471"] * 2,
        "question_id": ["000000033471-0", "000000033471-1"],
        "answers": [["White and red."], ["No."]],
        "answer_scores": [[1.0], [1.0]],
    },
    "val.jsonl": {
        "text": ["How are person 1 and car 3 ?"],
        "image_id": ["lsmdc_1054_Harry_Potter/1054_00.06.04.000-00.06.08.000@0"],
        "example_id": ["val-0"],
        "choices": [["person 2 is sad", "a", "b", "c"]],
        "label": [0],
    },
    "Train_GCC-training.tsv": {
        "text": ["a very typical bus station", "sierra looked stunning"],
        "image_id": ["http://lh6.ggpht.com/x.jpg", "https://y.org/a?b=1"],
    },
    "results.csv": {
        "text": ["Two young guys, with | hair .", "A dog runs across the grass ."],
        "image_id": ["1000092795", "2199200615"],
        "example_id": ["1000092795.jpg#0", "2199200615.jpg#4"],
    },
    "captions.txt": {"text": ["A child , in a dress .", "A girl ."], "image_id": ["1000268201_693b08cb0e"] * 2},
    "metadata.jsonl": {"text": ["A photo", "Another"], "image_id": ["train/0001", "train/0002"]},
    "metadata.csv": {"text": ["A photo", "Another"], "image_id": ["train/0001", "train/0002"]},
}


def test_every_layout_is_recognised_and_read(tmp_path: Path):
    for name, (format, path) in layouts(tmp_path).items():
        assert recognise_format(path) == format, name
        pairs = read_annotations(path)
        if name in WANTED:
            assert {column: list(pairs[column]) for column in pairs.column_names} == WANTED[name], name
        else:  # a test split, without answers and labels
            assert not {"label", "answers"} & set(pairs.column_names) or name == "packed", name


def write(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "form", "wanted"),
    [
        ("dataset_coco", "{:012d}", "000000391895"),
        ("dataset_flickr30k", "flickr_{:012d}", "flickr_001000092795"),
        ("Train_GCC-training.tsv", "{:09d}", "000000000"),
        ("aokvqa_v1p0_val", "COCO_val2017_{}", "COCO_val2017_299207"),
        ("coco_karpathy_val", "{}", "184613"),
        ("vizwiz_val", "x_{}", "x_VizWiz_val_00000000"),
        ("question_answers", "vg_{}", "vg_1"),
    ],
)
def test_ids_take_the_form_of_a_store(tmp_path: Path, name: str, form: str, wanted: str):
    assert read_annotations(layouts(tmp_path)[name][1], image_id_format=form)[0]["image_id"] == wanted


def test_a_split_of_karpathy_is_chosen(tmp_path: Path):
    path = write(tmp_path / "dataset_coco.json", KARPATHY)
    assert read_annotations(path, split="restval")["text"] == ["Food."]
    with pytest.raises(ValueError, match="has no split 'dev', expected one of restval, test"):
        read_annotations(path, split="dev")


def test_rationales_of_vcr_stand_behind_the_right_answer(tmp_path: Path):
    path = write(tmp_path / "val.jsonl", VCR)
    row = read_annotations(path, rationales=True)[0]
    assert row["text"] == "How are person 1 and car 3 ? person 2 is sad"
    assert (row["choices"], row["label"]) == (["r", "car 3 runs", "t", "u"], 1)
    write(path, without([VCR], "answer_label")[0])
    with pytest.raises(ValueError, match="has no answer_label"):
        read_annotations(path, rationales=True)
    with pytest.raises(ValueError, match=r"object 3 is not among the 3 objects"):
        read_annotations(write(path, VCR | {"question": [[3]]}))


def test_a_folder_of_images_with_metadata_joins_with_the_ids_of_extract(tmp_path: Path):
    layouts(tmp_path)
    (tmp_path / "train").mkdir()
    for name in ("0001.png", "0002.JPG"):
        (tmp_path / "train" / name).touch()
    assert list(read_annotations(tmp_path)["image_id"]) == ["train/0001", "train/0002"]
    assert list(open_images(tmp_path).ids) == ["train/0001", "train/0002"]


def test_files_of_one_stem_keep_their_suffixes(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text("image,caption\na/7.jpg,x\na/7.png,y\nb/7.png,z\n./c.v2.JPEG,z\n", encoding="utf-8")
    assert read_annotations(path)["image_id"] == ["a/7.jpg", "a/7.png", "b/7", "c.v2"]


def test_indented_files_are_recognised(tmp_path: Path):
    for name, (format, path) in layouts(tmp_path).items():
        if path.suffix == ".json":
            for indent in (0, 2):
                path.write_text(json.dumps(json.loads(path.read_text()), indent=indent))
                assert recognise_format(path) == format, name


def test_conversations_without_an_image_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = write(tmp_path / "llava.json", [*LLAVA, {"id": 1, "conversations": []}])
    assert len(read_annotations(path)) == 2
    assert "left out 1 conversations without an image" in caplog.text
    bad = LLAVA[0] | {"conversations": LLAVA[0]["conversations"][1:]}
    with pytest.raises(ValueError, match="conversation is of gpt, human, gpt, expected human, gpt"):
        read_annotations(write(path, [bad]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"image_id": 1, "objects": []}], "it is Visual Genome's objects; give region_descriptions.json"),
        ({"boxes": [], "segms": [], "names": []}, "it is VCR's metadata of an image; give val.jsonl"),
        ({"2407890": {"width": 1, "height": 1, "objects": {}}}, "holds GQA's scene graphs"),
        ({"data": {"dialogs": [], "questions": []}}, "holds dialogues of VisDial"),
        (without(LXMERT_NLVR2, "sent", "identifier"), "none of its columns is 'text'"),
        (
            TEXTVQA | {"data": without(TEXTVQA["data"], "question")},  # type: ignore[arg-type]
            r"(?s)'question' is missing.*recognised as 'textvqa' \(`TextVQA_0.5.1_train.json`",
        ),
        ([{"image": "a.jpg", "caption": []}], "entry 0: caption is an empty list"),
        (without([VCR], "objects")[0], r"(?s)'objects' is missing.*recognised as 'vcr' \(`train.jsonl`"),
    ],
)
def test_what_is_refused_names_the_layout_and_what_is_missing(tmp_path: Path, data: Any, message: str):
    path = write(tmp_path / "file.json", data)
    with pytest.raises(ValueError, match=message):
        read_annotations(path)


def test_pages_and_pointers_in_place_of_files_are_named(tmp_path: Path):
    path = tmp_path / "dataset_coco.json"
    path.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(ValueError, match=re.escape("is a web page, not the file itself")):
        read_annotations(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="is a git-lfs pointer"):
        read_annotations(path)
