"""Annotation files in the layouts of their corpora become pair tables; what is wrong in them is told with its place."""

import contextlib
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from mmpt.processing.annotations.annotation_files import format_image_id
from mmpt.processing.annotations.annotation_formats import ANNOTATION_FORMATS, read_annotations, recognise_format
from mmpt.processing.annotations.caption_annotations import (
    read_coco_captions,
    read_flickr30k_captions,
    read_visual_genome_regions,
)
from mmpt.processing.annotations.flickr30k_entities import read_flickr30k_entities
from mmpt.processing.annotations.question_annotations import read_gqa, read_vqa, soft_scores
from mmpt.processing.annotations.referring_annotations import read_refcoco
from mmpt.processing.annotations.statement_annotations import (
    read_nlvr2_statements,
    read_nlvr_statements,
    read_snli_ve,
)
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.regions import Regions
from tests.factories.annotations import layouts

COCO: dict[str, Any] = {
    "info": {"year": 2014},
    "images": [
        {"license": 5, "file_name": "COCO_train2014_000000057870.jpg", "height": 480, "width": 640, "id": 57870},
        {"license": 1, "file_name": "COCO_train2014_000000384029.jpg", "height": 429, "width": 640, "id": 384029},
    ],
    "licenses": [],
    "annotations": [
        {"image_id": 384029, "id": 48, "caption": "A bicycle replica with a clock."},
        {"image_id": 57870, "id": 787980, "caption": "A restaurant has modern wooden tables.\n"},
    ],
}
VQA_QUESTIONS: dict[str, Any] = {
    "info": {},
    "task_type": "Open-Ended",
    "data_type": "mscoco",
    "license": {},
    "data_subtype": "train2014",
    "questions": [
        {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000},
        {"image_id": 9, "question": "Is it?", "question_id": 9001},
    ],
}
SAID = ["net"] * 5 + ["netting"] * 3 + ["mesh", "a net"]
VQA_ANNOTATIONS: dict[str, Any] = {
    "info": {},
    "data_type": "mscoco",
    "data_subtype": "train2014",
    "annotations": [
        {
            "question_type": "what is this",
            "multiple_choice_answer": answers[0],
            "answers": [
                {"answer": answer, "answer_confidence": "maybe", "answer_id": place}
                for place, answer in enumerate(answers, start=1)
            ],
            "image_id": image,
            "answer_type": "other",
            "question_id": question,
        }
        for image, question, answers in ((9, 9001, ["yes"] * 8 + ["no"] * 2), (458752, 458752000, SAID))
    ],
}
GQA = {
    "02930152": {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (2486325)"}],
        "entailed": ["02930160"],
        "question": "Is the sky dark?",
        "imageId": "2354786",
        "isBalanced": True,
        "answer": "yes",
        "fullAnswer": "Yes, the sky is dark.",
    },
    "07333408": {"question": "What is on the wall?", "imageId": "n161313", "isBalanced": True, "answer": "pipe"},
}
GENOME = [
    {
        "regions": [
            {
                "region_id": 1382,
                "width": 82,
                "height": 139,
                "image_id": 1,
                "phrase": "the clock is green",
                "y": 57,
                "x": 421,
            },
            {"id": 1383, "width": 182, "height": 213, "image": 1, "image_id": 1, "phrase": "shade", "y": 372, "x": 0},
        ],
        "id": 1,
    },
    {"regions": [], "id": 2},
]
NLVR = {
    "sentence": "There is a box with a black item.",
    "label": "true",
    "identifier": "2213-0",
    "directory": "41",
    "evals": {"r0": "true"},
    "structured_rep": [[{"y_loc": 21, "size": 20, "type": "triangle", "x_loc": 27, "color": "Yellow"}], [], []],
}
NLVR2 = {
    "sentence": "The right image shows a curving walkway of dark glass.",
    "left_url": "https://example.org/left.jpg",
    "right_url": "https://example.org/right.jpg",
    "validation": {"81": "True"},
    "identifier": "dev-850-0-1",
    "label": "False",
    "writer": "115",
    "synset": "gazebo",
    "query": "gazebos26",
}
SNLI_VE = {
    "Flickr30K_ID": "3416050480",
    "annotator_labels": ["neutral"],
    "captionID": "3416050480.jpg#4",
    "gold_label": "neutral",
    "pairID": "3416050480.jpg#4r1n",
    "sentence1": "A person on a horse jumps over a broken down airplane.",
    "sentence2": "A person is training his horse for a competition.",
}
REFS = [
    {
        "sent_ids": [0, 1],
        "file_name": "COCO_train2014_000000098304_16.jpg",
        "ann_id": 3007,
        "ref_id": 0,
        "image_id": 98304,
        "split": "train",
        "sentences": [
            {"tokens": ["the", "car"], "raw": "THE CAR", "sent_id": 0, "sent": "the car"},
            {"tokens": ["left"], "raw": "left", "sent_id": 1, "sent": "left"},
        ],
        "category_id": 18,
    },
    {
        "sent_ids": [2],
        "file_name": "COCO_train2014_000000098304_17.jpg",
        "ann_id": 3007,
        "ref_id": 1,
        "image_id": 98304,
        "split": "testA",
        "sentences": [{"tokens": ["it"], "raw": "it", "sent_id": 2, "sent": "it"}],
        "category_id": 18,
    },
]
INSTANCES = {
    "info": {},
    "images": [{"file_name": "COCO_train2014_000000098304.jpg", "height": 424, "width": 640, "id": 98304}],
    "annotations": [
        {
            "area": 197.3,
            "iscrowd": 0,
            "image_id": 98304,
            "bbox": [263.5, 216.25, 21, 15.5],
            "category_id": 18,
            "id": 3007,
        }
    ],
    "categories": [],
}
ENTITIES_XML = """<annotation>
  <filename>36979.jpg</filename>
  <size><width>500</width><height>333</height><depth>3</depth></size>
  <object><name>7</name><name>8</name>
    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
  <object><name>7</name><bndbox><xmin>51</xmin><ymin>61</ymin><xmax>71</xmax><ymax>81</ymax></bndbox></object>
  <object><name>9</name><scene>1</scene><nobndbox>0</nobndbox></object>
</annotation>"""
ENTITIES_TXT = (
    "[/EN#7/people Two friends] play [/EN#8/other/clothing cards] at [/EN#9/scene the bar] .\n"
    "[/EN#0/notvisual It] is fun .\n"
)


def write_json(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def entities(folder: Path) -> Path:
    for kind, name, text in (
        ("Sentences", "36979.txt", ENTITIES_TXT),
        ("Annotations", "36979.xml", ENTITIES_XML),
        ("", "test.txt", "36979\n"),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / name).write_text(text, encoding="utf-8")
    return folder


def refcoco(folder: Path) -> Path:
    write_json(folder / "instances.json", INSTANCES)
    return write_json(folder / "refs(unc).json", REFS)


def columns(pairs: Dataset) -> dict[str, list[Any]]:
    return {name: list(pairs[name]) for name in pairs.column_names}


def test_coco_captions(tmp_path: Path):
    path = write_json(tmp_path / "captions_train2014.json", COCO)
    assert columns(read_coco_captions(path)) == {
        "text": ["A bicycle replica with a clock.", "A restaurant has modern wooden tables.\n"],
        "image_id": ["COCO_train2014_000000384029", "COCO_train2014_000000057870"],
        "example_id": ["48", "787980"],
    }


@pytest.mark.parametrize(("form", "image"), [("{}", "384029"), ("coco_{:012d}.npz", "coco_000000384029.npz")])
def test_image_ids_take_the_form_of_the_store(tmp_path: Path, form: str, image: str):
    path = write_json(tmp_path / "captions.json", COCO)
    assert read_coco_captions(path, image_id_format=form)["image_id"][0] == image


@pytest.mark.parametrize("form", ["COCO", "{:012d} {}", "{name}", "{", "{:s}", "{0.nothing}"])
def test_a_form_that_takes_no_number_is_refused(form: str):
    with pytest.raises(ValueError, match="expected one place for it, as in 'COCO_train2014_"):
        format_image_id(7, form)


def test_pairs_that_were_read_make_a_pair_dataset(tmp_path: Path):
    pairs = read_coco_captions(write_json(tmp_path / "captions.json", COCO))
    regions = {image: Regions(features=[[1.0]], boxes=[[0, 0, 1, 1]]) for image in pairs["image_id"]}
    assert PairDataset(pairs, regions)[0]["text"] == "A bicycle replica with a clock."


def test_bad_captions_are_counted_and_placed(tmp_path: Path):
    bad = [{"image_id": 1, "id": 1, "caption": "a"}, {"image_id": 57870, "id": 2, "caption": " "}, {"id": 3}, []]
    path = write_json(tmp_path / "captions.json", COCO | {"annotations": COCO["annotations"] + bad + bad})
    with pytest.raises(ValueError, match=r"captions.json has 8 bad rows, correct or remove:") as error:
        read_coco_captions(path)
    lines = str(error.value).splitlines()[1:]
    assert lines[0].startswith("  annotation 2: image 1 is not among the 2 images of the file; got {'image_id': 1")
    assert lines[1].startswith("  annotation 3: text is ' ', expected a string that is not blank")
    assert lines[2].startswith("  annotation 4: 'image_id' is missing; got {'id': 3}")
    assert lines[3].startswith("  annotation 5: ")
    assert lines[5] == "  and 3 more"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [', "is no JSON in UTF-8"),
        (b"\xff\xfe", "is no JSON in UTF-8"),
        (b"[" * 100_000, "is no JSON in UTF-8"),
        (b"[]", "has no list 'images' at its top, got a list"),
        (b'{"questions": []}', "has no list 'images' at its top, got the keys 'questions'"),
        (b'{"images": [{"id": 1}], "annotations": []}', "image 0: got .* expected 'id' and 'file_name'"),
        (b'{"images": [], "annotations": []}', "has no pair of a text and an image"),
    ],
)
def test_files_that_are_no_captions_are_named(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "captions.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"captions.json.*{message}"):
        read_coco_captions(path)


def test_text_that_is_half_a_letter_is_refused(tmp_path: Path):
    row = {"image_id": 57870, "id": 2, "caption": "\ud83d"}
    path = write_json(tmp_path / "captions.json", COCO | {"annotations": [row]})
    with pytest.raises(ValueError, match=r"annotation 0: text is '.ud83d'"):
        read_coco_captions(path)


def test_flickr30k_captions(tmp_path: Path):
    path = tmp_path / "results_20130124.token"
    path.write_text("1000092795.jpg#0\tTwo men , outside .\n1000092795.jpg#1\tA\u2028B\tC\r\n\n", encoding="utf-8")
    assert columns(read_flickr30k_captions(path)) == {
        "text": ["Two men , outside .", "A\u2028B\tC"],
        "image_id": ["1000092795"] * 2,
        "example_id": ["1000092795.jpg#0", "1000092795.jpg#1"],
    }
    assert read_flickr30k_captions(path, image_id_format="flickr30k_{:012d}")["image_id"][0] == "flickr30k_001000092795"
    path.write_text("1000092795.jpg#0\ta\n1000092795.jpg b\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2: expected image.jpg#number, a tab and the caption"):
        read_flickr30k_captions(path)


def test_flickr30k_entities(tmp_path: Path):
    pairs = read_flickr30k_entities(entities(tmp_path))
    text = "Two friends play cards at the bar ."
    assert columns(pairs) == {
        "text": [text, "It is fun ."],
        "image_id": ["36979", "36979"],
        "example_id": ["36979.jpg#0", "36979.jpg#1"],
        "phrases": [
            [
                {
                    "text": "Two friends",
                    "start": 0,
                    "end": 11,
                    "entity_id": "7",
                    "types": ["people"],
                    "boxes": [[0, 1, 29, 39], [50, 60, 70, 80]],
                },
                {
                    "text": "cards",
                    "start": 17,
                    "end": 22,
                    "entity_id": "8",
                    "types": ["other", "clothing"],
                    "boxes": [[0, 1, 29, 39]],
                },
                {"text": "the bar", "start": 26, "end": 33, "entity_id": "9", "types": ["scene"], "boxes": []},
            ],
            [{"text": "It", "start": 0, "end": 2, "entity_id": "0", "types": ["notvisual"], "boxes": []}],
        ],
    }
    assert text[17:22] == "cards"
    assert list(read_flickr30k_entities(tmp_path, split="test")["split"]) == ["test", "test"]


def test_entities_that_would_be_expanded_are_refused(tmp_path: Path):
    laughs = (
        '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation><object><name>&y;</name></object></annotation>'
    )
    (entities(tmp_path) / "Annotations" / "36979.xml").write_text(laughs, encoding="utf-8")
    with pytest.raises(ValueError, match=r"image 36979: 36979.xml declares a document type or entities"):
        read_flickr30k_entities(tmp_path)
    (tmp_path / "Annotations" / "36979.xml").write_bytes(laughs.encode("utf-16"))
    with pytest.raises(ValueError, match="image 36979: "):
        read_flickr30k_entities(tmp_path)
    (tmp_path / "Annotations" / "36979.xml").write_text(ENTITIES_XML[:200], encoding="utf-8")
    with pytest.raises(ValueError, match=r"36979.xml is no XML"):
        read_flickr30k_entities(tmp_path)
    (tmp_path / "Annotations" / "36979.xml").write_text(ENTITIES_XML.replace("<xmin>51", "<xmin>x"), encoding="utf-8")
    with pytest.raises(ValueError, match="image 36979: could not convert"):
        read_flickr30k_entities(tmp_path)


def test_a_folder_of_entities_that_lacks_files_is_named(tmp_path: Path):
    entities(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no train.txt, expected the list"):
        read_flickr30k_entities(tmp_path, split="train")
    (tmp_path / "Sentences" / "36979.txt").write_text("[/EN#7 Two friends] .\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has a phrase that is not"):
        read_flickr30k_entities(tmp_path)
    (tmp_path / "Annotations" / "36979.xml").unlink()
    with pytest.raises(FileNotFoundError, match="image 36979 has no"):
        read_flickr30k_entities(tmp_path)
    shutil.rmtree(tmp_path / "Annotations")
    with pytest.raises(FileNotFoundError, match="has no folder 'Annotations'"):
        read_flickr30k_entities(tmp_path)


def test_visual_genome_regions(tmp_path: Path):
    path = write_json(tmp_path / "region_descriptions.json", GENOME)
    assert columns(read_visual_genome_regions(path)) == {
        "text": ["the clock is green", "shade"],
        "image_id": ["1", "1"],
        "example_id": ["1382", "1383"],
        "box": [[421, 57, 503, 196], [0, 372, 182, 585]],
    }
    region = GENOME[0]["regions"][0] | {"width": -1}
    with pytest.raises(ValueError, match=r"image 0, region 0: box is .* expected x1 y1 x2 y2 in pixels"):
        read_visual_genome_regions(write_json(path, [{"id": 1, "regions": [region]}]))
    with pytest.raises(ValueError, match=r"image 0, region 0: box is .*nan"):
        read_visual_genome_regions(write_json(path, [{"id": 1, "regions": [region | {"width": float("nan")}]}]))


def test_vqa_with_answers(tmp_path: Path):
    questions = write_json(tmp_path / "questions.json", VQA_QUESTIONS)
    annotations = write_json(tmp_path / "annotations.json", VQA_ANNOTATIONS)
    assert columns(read_vqa(questions, annotations=annotations)) == {
        "text": ["What is this photo taken looking through?", "Is it?"],
        "image_id": ["COCO_train2014_000000458752", "COCO_train2014_000000000009"],
        "question_id": ["458752000", "9001"],
        "split": ["train2014", "train2014"],
        "answers": [SAID, ["yes"] * 8 + ["no"] * 2],
        "answer_scores": [[1.0] * 5 + [0.9] * 3 + [0.3, 0.3], [1.0] * 8 + [0.6] * 2],
    }


def test_vqa_scores_are_the_official_accuracy():
    for matches in range(1, 11):
        answers = ["a"] * matches + ["b"] * (10 - matches)
        leave_one_out = [min(1, (matches - (person < matches)) / 3) for person in range(10)]
        assert soft_scores(answers)[0] == pytest.approx(sum(leave_one_out) / 10, abs=1e-12)
    with pytest.raises(ValueError, match="got 9 answers, expected 10"):
        soft_scores(["a"] * 9)
    assert soft_scores(["a b", "a\nb", "a\r\nb", *"cdefghi"])[:4] == [0.9, 0.9, 0.9, 0.3]


def test_vqa_of_the_test_split_has_no_answers(tmp_path: Path):
    path = write_json(tmp_path / "questions.json", VQA_QUESTIONS | {"data_subtype": "test-dev2015"})
    pairs = read_vqa(path)
    assert pairs.column_names == ["text", "image_id", "question_id", "split"]
    assert pairs[0]["image_id"] == "COCO_test2015_000000458752"
    assert read_vqa(path, image_id_format="{}")["image_id"][0] == "458752"


def test_vqa_of_two_splits_is_refused(tmp_path: Path):
    questions = write_json(tmp_path / "questions.json", VQA_QUESTIONS)
    first, second = VQA_ANNOTATIONS["annotations"]
    path = write_json(tmp_path / "annotations.json", {"annotations": [first]})
    write_json(path, {"annotations": [first | {"question_id": 4}, second | {"question_id": 5}]})
    with pytest.raises(ValueError, match=r"none of the 2 questions of .* has answers among the 2 annotations of"):
        read_vqa(questions, annotations=path)
    write_json(path, {"annotations": [first, second | {"image_id": 5}]})
    with pytest.raises(ValueError, match="question 458752000 is of image 458752, its answers of 5"):
        read_vqa(questions, annotations=path)
    write_json(path, {"annotations": [first, {}]})
    with pytest.raises(ValueError, match=r"annotations.json, annotation 1: got \{\}"):
        read_vqa(questions, annotations=path)
    with pytest.raises(ValueError, match="has data_subtype None"):
        read_vqa(write_json(questions, {"questions": []}))


def test_gqa(tmp_path: Path):
    path = write_json(tmp_path / "testdev_balanced_questions.json", GQA)
    assert columns(read_gqa(path)) == {
        "text": ["Is the sky dark?", "What is on the wall?"],
        "image_id": ["2354786", "n161313"],
        "question_id": ["02930152", "07333408"],
        "answers": [["yes"], ["pipe"]],
        "answer_scores": [[1.0], [1.0]],
    }
    no_answers = {number: {k: v for k, v in question.items() if k != "answer"} for number, question in GQA.items()}
    assert read_gqa(write_json(path, no_answers)).column_names == ["text", "image_id", "question_id"]
    with pytest.raises(ValueError, match="question 07333408: 'answer' is missing"):
        read_gqa(write_json(path, GQA | {"07333408": no_answers["07333408"]}))
    with pytest.raises(ValueError, match="holds a list, expected an object of questions"):
        read_gqa(write_json(path, []))


def test_nlvr(tmp_path: Path):
    path = write_lines(tmp_path / "train.json", NLVR, NLVR | {"identifier": "2213-1", "label": "false"})
    assert columns(read_nlvr_statements(path)) == {
        "text": [NLVR["sentence"]] * 2,
        "image_id": ["train-2213-0", "train-2213-1"],
        "example_id": ["2213-0", "2213-1"],
        "label": [1, 0],
        "label_name": ["true", "false"],
        "split": ["train", "train"],
    }
    assert read_nlvr_statements(path, image_id_format="nlvr_{}")["image_id"][0] == "nlvr_2213-0"
    other = write_lines(tmp_path / "mine.json", NLVR)
    with pytest.raises(ValueError, match="is of no split that is known, got 'mine'; give split="):
        read_nlvr_statements(other)
    assert read_nlvr_statements(other, split="dev")["image_id"] == ["dev-2213-0"]


def test_nlvr2(tmp_path: Path):
    path = write_lines(tmp_path / "dev.json", NLVR2)
    assert columns(read_nlvr2_statements(path)) == {
        "text": [NLVR2["sentence"]],
        "image_id": ["dev-850-0-img0"],
        "second_image_id": ["dev-850-0-img1"],
        "example_id": ["dev-850-0-1"],
        "label": [0],
        "label_name": ["false"],
        "split": ["dev"],
    }
    assert read_nlvr2_statements(path, image_id_format="nlvr2_{}")["second_image_id"] == ["nlvr2_dev-850-0-img1"]
    with pytest.raises(ValueError, match="line 1: identifier is '850-0', expected split-set-pair-sentence"):
        read_nlvr2_statements(write_lines(path, NLVR2 | {"identifier": "850-0"}))


@pytest.mark.parametrize("label", ["maybe", None, 1])
def test_labels_that_are_none_are_refused(tmp_path: Path, label: Any):
    with pytest.raises(ValueError, match=r"line 2: label is .* expected false or true"):
        read_nlvr2_statements(write_lines(tmp_path / "dev.json", NLVR2, NLVR2 | {"label": label}))
    with pytest.raises(ValueError, match=r"line 2: label is .* expected contradiction or neutral or entailment"):
        read_snli_ve(write_lines(tmp_path / "dev.jsonl", SNLI_VE, SNLI_VE | {"gold_label": label}))


@pytest.mark.parametrize("key", ["Flickr30K_ID", "Flikr30kID"])
def test_snli_ve(tmp_path: Path, key: str):
    rows = [
        {k: v for k, v in SNLI_VE.items() if k != "Flickr30K_ID"} | {key: "3416050480.jpg", "gold_label": label}
        for label in ("contradiction", "neutral", "entailment")
    ]
    path = write_lines(tmp_path / "snli_ve_dev.jsonl", *rows)
    assert columns(read_snli_ve(path)) == {
        "text": [SNLI_VE["sentence2"]] * 3,
        "image_id": ["3416050480"] * 3,
        "example_id": [SNLI_VE["pairID"]] * 3,
        "label": [0, 1, 2],
        "label_name": ["contradiction", "neutral", "entailment"],
    }
    with pytest.raises(ValueError, match="line 1: expected the image under Flickr30K_ID or Flikr30kID"):
        read_snli_ve(write_lines(path, {"sentence2": "a", "gold_label": "neutral", "pairID": "1"}))
    path.write_text(json.dumps(SNLI_VE) + "\n{\n")
    with pytest.raises(
        ValueError, match=r"(?s)snli_ve_dev.jsonl has 1 bad row.*line 2: no JSON .* expected one object a line"
    ):
        read_snli_ve(path)


def test_refcoco(tmp_path: Path):
    path = refcoco(tmp_path)
    assert columns(read_refcoco(path)) == {
        "text": ["the car", "left", "it"],
        "image_id": ["COCO_train2014_000000098304"] * 3,
        "example_id": ["0", "1", "2"],
        "box": [[263.5, 216.25, 284.5, 231.75]] * 3,
        "split": ["train", "train", "testA"],
    }
    assert list(read_refcoco(path, split="testA", image_id_format="{}")["image_id"]) == ["98304"]
    with pytest.raises(ValueError, match="has no split 'val', expected one of testA, train"):
        read_refcoco(path, split="val")
    write_json(tmp_path / "instances.json", INSTANCES | {"annotations": []})
    with pytest.raises(ValueError, match="reference 0, sentence 0: image 98304 with annotation 3007 is not in"):
        read_refcoco(path, split="train")
    (tmp_path / "instances.json").unlink()
    with pytest.raises(FileNotFoundError, match="with the boxes of the references, is not a file; give instances="):
        read_refcoco(path)


def test_refcoco_pickle_needs_leave(tmp_path: Path):
    wanted = columns(read_refcoco(refcoco(tmp_path)))
    path = tmp_path / "refs(unc).p"
    for protocol in (0, 2, 5):
        path.write_bytes(pickle.dumps(REFS, protocol=protocol))
        assert columns(read_refcoco(path, allow_pickle=True)) == wanted
    with pytest.raises(ValueError, match="is a pickled file, which could hold more than data; give allow_pickle=True"):
        read_refcoco(path)


def test_refcoco_pickle_of_python_2_is_read(tmp_path: Path):
    refcoco(tmp_path)
    path = tmp_path / "refs(unc).p"
    raw = b"\xff\xfe"  # a Latin-1 string in a key that is not read
    key = b"U" + bytes([3]) + b"raw" + b"U" + bytes([len(raw)]) + raw
    sentence = b"}(U\x04sentU\x02itU\x07sent_idK\x02" + key + b"u"
    ref = (
        b"}(U\x05splitU\x05testAU\x08image_idJ" + (98304).to_bytes(4, "little") + b"U\x06ann_idM"
        b"" + (3007).to_bytes(2, "little") + b"U\x09sentences](" + sentence + b"eu"
    )
    path.write_bytes(b"\x80\x02](" + ref + b"e.")
    assert read_refcoco(path, allow_pickle=True)[0]["text"] == "it"


class Payload:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


def test_refcoco_pickle_runs_nothing(tmp_path: Path):
    refcoco(tmp_path)
    path = tmp_path / "refs(unc).p"
    for data in (Payload(tmp_path / "made"), [{"split": Payload(tmp_path / "made")}]):
        for protocol in (0, 2, 5):
            path.write_bytes(pickle.dumps(data, protocol=protocol))
            with pytest.raises(
                ValueError, match=r"is refused: the pickle names .*only numpy arrays and plain values are read"
            ):
                read_refcoco(path, allow_pickle=True)
    path.write_bytes(b"\x80\x04broken")
    with pytest.raises(ValueError, match="is refused"):
        read_refcoco(path, allow_pickle=True)
    assert not (tmp_path / "made").exists()


ODD = (None, {}, [[]], True, 10**400, "\ud83d")


def with_odd_values(data: Any) -> Iterator[Any]:
    """Yield the data with each value in it, however deep, replaced by each odd one or taken out."""
    yield from ODD
    places = list(data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ())
    for place, value in places[:7]:
        for odd in with_odd_values(value):
            changed = data.copy()
            changed[place] = odd
            yield changed
        changed = data.copy()
        del changed[place]
        yield changed


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("coco_captions", COCO | {"images": COCO["images"][:1], "annotations": COCO["annotations"][1:]}),
        ("visual_genome", GENOME[:1]),
        ("vqa", VQA_QUESTIONS),
        ("gqa", {"07333408": GQA["07333408"]}),
        ("nlvr", NLVR),
        ("nlvr2", NLVR2),
        ("snli_ve", SNLI_VE),
        ("refcoco", REFS[1:]),
    ],
)
def test_odd_values_are_read_or_refused_by_name(tmp_path: Path, name: str, data: Any):
    path = tmp_path / "train.json"
    write_json(tmp_path / "instances.json", INSTANCES)
    refused = 0
    for changed in with_odd_values(data):
        write_json(path, changed)
        for read in (recognise_format, partial(read_annotations, format=name)):
            with contextlib.suppress(ValueError):
                read(path)
                continue
            refused += 1
            with pytest.raises(ValueError, match=r"train\.json"):
                read(path)
    assert refused > 20


def test_large_files_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmpt.processing.annotations.pair_columns.PIECE_ROWS", 2)
    path = tmp_path / "results.token"
    path.write_text("".join(f"7.jpg#{number}\tcaption {number}\n" for number in range(5)), encoding="utf-8")
    assert list(read_flickr30k_captions(path)["text"]) == [f"caption {number}" for number in range(5)]


def test_formats_are_recognised_by_what_the_file_holds(tmp_path: Path):
    (tmp_path / "refcoco").mkdir()
    flickr = tmp_path / "captions"
    flickr.write_text("1000092795.jpg#0\tTwo men .\n", encoding="utf-8")
    Dataset.from_dict({"text": ["a"], "image_id": ["1"]}).save_to_disk(str(tmp_path / "saved"))
    csv = tmp_path / "pairs.csv"
    csv.write_text("text,image_id\na,1\n", encoding="utf-8")
    indented = tmp_path / "indented.json"
    indented.write_text(json.dumps(COCO, indent=1), encoding="utf-8")
    (tmp_path / "split").mkdir()
    files = {
        write_json(tmp_path / "a.json", COCO): "coco_captions",
        indented: "coco_captions",
        flickr: "flickr30k",
        entities(tmp_path / "entities"): "flickr30k_entities",
        write_json(tmp_path / "b.json", GENOME): "visual_genome",
        write_json(tmp_path / "c.json", VQA_QUESTIONS): "vqa",
        write_json(tmp_path / "d.json", GQA): "gqa",
        write_lines(tmp_path / "split" / "train.json", NLVR, NLVR): "nlvr",
        write_lines(tmp_path / "e.json", NLVR2): "nlvr2",
        write_lines(tmp_path / "f.jsonl", SNLI_VE, SNLI_VE): "snli_ve",
        refcoco(tmp_path / "refcoco"): "refcoco",
        csv: "table",
        write_lines(tmp_path / "g.jsonl", {"caption": "a", "image": "1"}): "table",
        write_json(tmp_path / "h.json", [{"caption": "a", "image": "1"}]): "table",
        tmp_path / "saved": "dataset",
    }
    sampled = {name for name, _ in layouts(tmp_path / "refcoco").values()}
    assert sampled | set(files.values()) == set(ANNOTATION_FORMATS)
    for path, name in files.items():
        assert recognise_format(path) == name, path
        assert {"text", "image_id"} <= set(read_annotations(path).column_names)


def test_files_of_no_format_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="holds answers of VQA; give the file of the questions"):
        read_annotations(write_json(tmp_path / "a.json", VQA_ANNOTATIONS))
    with pytest.raises(ValueError, match="holds boxes without texts; give the file of the references"):
        read_annotations(write_json(tmp_path / "a.json", INSTANCES))
    for data in ({}, [], {"a": {"b": 1}}, [1]):
        with pytest.raises(ValueError, match="is in no format that can be recognised; give format=, one of coco_"):
            read_annotations(write_json(tmp_path / "a.json", data))
    (tmp_path / "a.txt").write_text("words")
    for path in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(ValueError, match="is in no format that can be recognised"):
            read_annotations(path)
    with pytest.raises(FileNotFoundError, match="are not there"):
        read_annotations(tmp_path / "nothing")
    path = write_json(tmp_path / "a.json", COCO)
    with pytest.raises(ValueError, match="annotation format is 'coco', expected one of coco_captions"):
        read_annotations(path, "coco")
    with pytest.raises(TypeError, match="image_id_form"):
        read_annotations(path, image_id_form="{}")
    assert read_annotations(path, image_id_format="{}")["image_id"][0] == "384029"


def bombs() -> dict[str, bytes]:
    """Return small pickles that ask for much memory or time."""
    doubled: Any = ["x"] * 10
    for _ in range(40):
        doubled = [doubled, doubled]
    endless: list[Any] = []
    endless.append(endless)
    ref = REFS[0] | {"sentences": [{"sent": "x" * 1_000_000, "sent_id": 1}] * 100_000}
    return {
        "memo": b"\x80\x02]r\xff\xff\xff\x0f.",  # the nine bytes that make Python's unpickler take 2 GB
        "length": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\x00\x00.",
        "bytes": b"\x80\x02T\xff\xff\xff\x7f.",
        "doubled": pickle.dumps([REFS[0] | {"x": doubled}]),
        "endless": pickle.dumps(endless),
        "texts": pickle.dumps([ref]),
        "number": pickle.dumps([REFS[0] | {"image_id": 1 << 100_000}]),
        "deep": b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b".",
    }


def test_a_small_pickle_takes_little_memory_and_time(tmp_path: Path):
    refcoco(tmp_path)
    path = tmp_path / "refs(unc).p"
    code = (
        "import resource, sys\n"
        "from mmpt.processing.annotations.referring_annotations import read_refcoco\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    read_refcoco(sys.argv[1], allow_pickle=True)\n"
        "except ValueError as error:\n    print(len(str(error)))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    for name, data in bombs().items():
        path.write_bytes(data)
        if name == "memo":  # the one that grows: measured in a process of its own
            out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
            shown, grown = map(int, out.stdout.split())
            assert shown < 1000
            assert grown < 100, f"{grown} MB"
        with pytest.raises(ValueError, match=r"refs\(unc\)\.p"):
            read_refcoco(path, allow_pickle=True)
