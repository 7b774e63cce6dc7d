"""One tiny file of each annotation layout, in the shape that its corpus publishes."""

import gzip
import json
from pathlib import Path
from typing import Any

KARPATHY: dict[str, Any] = {
    "images": [
        {
            "filepath": "val2014",
            "sentids": [770337, 771687],
            "filename": "COCO_val2014_000000391895.jpg",
            "imgid": 0,
            "split": "test",
            "sentences": [
                {"tokens": ["a", "man"], "raw": "A man with a red helmet.", "imgid": 0, "sentid": 770337},
                {"tokens": ["a", "bike"], "raw": "A bike.", "imgid": 0, "sentid": 771687},
            ],
            "cocoid": 391895,
        },
        {
            "filename": "COCO_train2014_000000000009.jpg",
            "imgid": 1,
            "split": "restval",
            "sentences": [{"tokens": ["food"], "raw": "Food.", "imgid": 1, "sentid": 7}],
            "cocoid": 9,
        },
    ],
    "dataset": "coco",
}
KARPATHY_FLICKR = {
    "images": [
        {
            "sentids": [0],
            "imgid": 0,
            "sentences": [{"tokens": ["two", "men"], "raw": "Two men.", "imgid": 0, "sentid": 0}],
            "split": "train",
            "filename": "1000092795.jpg",
        }
    ],
    "dataset": "flickr30k",
}
LXMERT_VQA = [
    {
        "answer_type": "other",
        "img_id": "COCO_val2014_000000294078",
        "label": {"down": 1, "at table": 0.3},
        "question_id": 294078000,
        "question_type": "where",
        "sent": "Where is he looking?",
    },
    {
        "answer_type": "yes/no",
        "img_id": "COCO_val2014_000000294078",
        "label": {},
        "question_id": 294078001,
        "question_type": "is",
        "sent": "Is he?",
    },
]
LXMERT_GQA = [{"img_id": "2405722", "label": {"pipe": 1.0}, "question_id": "07333408", "sent": "What is on the wall?"}]
LXMERT_NLVR2 = [
    {
        "identifier": "dev-850-0-0",
        "img0": "dev-850-0-img0",
        "img1": "dev-850-0-img1",
        "label": 0,
        "sent": "The right image shows a walkway.",
        "uid": "nlvr2_valid_0",
    }
]
LXMERT_PRETRAINING = [
    {
        "img_id": "COCO_val2014_000000294078",
        "labelf": {"vqa": [{"down": 1, "at table": 0.3}]},
        "sentf": {"mscoco": ["A man.", "A table."], "vqa": ["Where?"], "gqa": [], "visual7w": [], "vg": []},
    }
]
VCR = {
    "movie": "1054_Harry_Potter",
    "objects": ["person", "person", "car"],
    "interesting_scores": [0],
    "answer_likelihood": "possible",
    "img_fn": "lsmdc_1054_Harry_Potter/1054_00.06.04.000-00.06.08.000@0.jpg",
    "metadata_fn": "lsmdc_1054_Harry_Potter/1054_00.06.04.000-00.06.08.000@0.json",
    "question": ["How", "are", [0, 2], "?"],
    "answer_choices": [[[1], "is", "sad"], ["a"], ["b"], ["c"]],
    "answer_label": 0,
    "rationale_choices": [["r"], [[2], "runs"], ["t"], ["u"]],
    "rationale_label": 1,
    "img_id": "val-0",
    "question_number": 0,
    "annot_id": "val-0",
    "match_fold": "val-0",
    "match_index": 0,
}
GENOME_QUESTIONS = [
    {
        "id": 1,
        "qas": [
            {
                "a_objects": [],
                "question": "What color is the clock?",
                "image_id": 1,
                "qa_id": 986769,
                "answer": "Green.",
                "q_objects": [],
            }
        ],
    }
]
AOKVQA = [
    {
        "split": "val",
        "image_id": 299207,
        "question_id": "22MexNkBPpdZGX6sxbxVBH",
        "question": "What is the man by the bags awaiting?",
        "choices": ["skateboarder", "train", "delivery", "cab"],
        "correct_choice_idx": 3,
        "direct_answers": ["ride"] * 3 + ["bus"] * 2 + ["taxi", "travelling", "traffic", "his ride", "cab"],
        "difficult_direct_answer": False,
        "rationales": ["He has bags."],
    }
]
TEXTVQA = {
    "dataset_type": "val",
    "dataset_name": "textvqa",
    "dataset_version": "0.5.1",
    "data": [
        {
            "question": "what is the brand of this camera?",
            "image_id": "003a8ae2ef43b901",
            "image_classes": ["Cassette deck"],
            "flickr_original_url": "https://example.org/o.jpg",
            "flickr_300k_url": "https://example.org/z.jpg",
            "image_width": 1024,
            "image_height": 664,
            "answers": ["dakota"] * 9 + ["nikon"],
            "question_tokens": ["what"],
            "question_id": 34602,
            "set_name": "val",
        }
    ],
}
VIZWIZ = [
    {
        "image": "VizWiz_val_00000000.jpg",
        "question": "Ok. There is another picture I hope it is a better one.",
        "answers": [{"answer": "unanswerable", "answer_confidence": "no"}] * 10,
        "answer_type": "unanswerable",
        "answerable": 0,
    }
]
LAVIS = [
    {"image": "val2014/COCO_val2014_000000184613.jpg", "caption": ["A child.", "A boy."]},
    {"image": "val2014/COCO_val2014_000000403013.jpg", "caption": ["A kitchen."]},
]
LAVIS_TRAINING = [
    {"caption": "A woman.", "image": "val2014/COCO_val2014_000000522418.jpg", "image_id": "coco_522418"},
    {"caption": "A cake.", "image": "val2014/COCO_val2014_000000522418.jpg", "image_id": "coco_522418"},
]
LLAVA = [
    {
        "id": "000000033471",
        "image": "coco/train2017/000000033471.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat are the colors of the bus?"},
            {"from": "gpt", "value": "White and red."},
            {"from": "human", "value": "Is it moving?"},
            {"from": "gpt", "value": "No."},
        ],
    }
]
WEB = "a very typical bus station\thttp://lh6.ggpht.com/x.jpg\nsierra looked stunning\thttps://y.org/a?b=1\n"
RESULTS = (
    "image_name| comment_number| comment\n"
    "1000092795.jpg| 0| Two young guys, with | hair .\n"
    "2199200615.jpg| 4   A dog runs across the grass .\n"
)
FLICKR8K = 'image,caption\n1000268201_693b08cb0e.jpg,"A child , in a dress ."\n1000268201_693b08cb0e.jpg,A girl .\n'
METADATA = [
    {"file_name": "train/0001.png", "text": "A photo"},
    {"file_name": "train/0002.JPG", "text": "Another"},
]


def without(rows: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in keys} for row in rows]


def layouts(folder: Path) -> dict[str, tuple[str, Path]]:
    """Write a file of each layout; return its format and path by a name of its own."""
    as_json: dict[str, tuple[str, Any]] = {
        "dataset_coco": ("karpathy", KARPATHY),
        "dataset_flickr30k": ("karpathy", KARPATHY_FLICKR),
        "vqa_minival": ("lxmert_questions", LXMERT_VQA),
        "vqa_test": ("lxmert_questions", without(LXMERT_VQA, "label", "answer_type", "question_type")),
        "gqa_valid": ("lxmert_questions", LXMERT_GQA),
        "nlvr2_valid": ("lxmert_nlvr2", LXMERT_NLVR2),
        "nlvr2_test": ("lxmert_nlvr2", without(LXMERT_NLVR2, "label")),
        "mscoco_minival": ("lxmert_pretraining", LXMERT_PRETRAINING),
        "question_answers": ("visual_genome_questions", GENOME_QUESTIONS),
        "aokvqa_v1p0_val": ("aokvqa", AOKVQA),
        "aokvqa_v1p0_test": ("aokvqa", without(AOKVQA, "correct_choice_idx", "direct_answers", "rationales")),
        "TextVQA_0.5.1_val": ("textvqa", TEXTVQA),
        "TextVQA_0.5.1_test": ("textvqa", TEXTVQA | {"data": without(TEXTVQA["data"], "answers")}),  # type: ignore[arg-type]
        "vizwiz_val": ("vizwiz", VIZWIZ),
        "vizwiz_test": ("vizwiz", without(VIZWIZ, "answers", "answer_type", "answerable")),
        "coco_karpathy_val": ("lavis", LAVIS),
        "coco_karpathy_train": ("lavis", LAVIS_TRAINING),
        "llava_instruct_150k": ("llava", LLAVA),
    }
    as_text = {
        "val.jsonl": ("vcr", json.dumps(VCR) + "\n"),
        "test.jsonl": ("vcr", json.dumps(without([VCR], "answer_label", "rationale_label")[0]) + "\n"),
        "Train_GCC-training.tsv": ("conceptual_captions", WEB),
        "results.csv": ("flickr30k", RESULTS),
        "captions.txt": ("table", FLICKR8K),
        "metadata.jsonl": ("table", "".join(json.dumps(row) + "\n" for row in METADATA)),
        "metadata.csv": ("table", "file_name,text\ntrain/0001.png,A photo\ntrain/0002.JPG,Another\n"),
    }
    found: dict[str, tuple[str, Path]] = {}
    for name, (format, data) in as_json.items():
        (folder / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
        found[name] = format, folder / f"{name}.json"
    for name, (format, text) in as_text.items():
        (folder / name).write_text(text, encoding="utf-8")
        found[name] = format, folder / name
    (folder / "packed.json.gz").write_bytes(gzip.compress(json.dumps(KARPATHY).encode()))
    return found | {"packed": ("karpathy", folder / "packed.json.gz")}
