"""Bad rows of annotations are an error, or are left out with their places and reasons in errors.jsonl."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mmpt.commands.main import app
from mmpt.processing.annotations.annotation_formats import read_annotations
from tests.factories.annotations import KARPATHY, LLAVA, LXMERT_PRETRAINING, LXMERT_VQA, VCR, layouts


def notes(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_bad_rows_are_noted_and_the_others_read(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "pairs.csv"
    path.write_text('image_id,caption\n1,a\n2\n3, \n4,"b" c\n5,d\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"(?s)has 3 bad rows.*line 3: got 1 fields.*strict=False \(--skip-bad\)"):
        read_annotations(path)
    assert not (tmp_path / "errors.jsonl").exists()
    assert list(read_annotations(path, strict=False)["text"]) == ["a", "d"]
    rows = notes(tmp_path / "errors.jsonl")
    assert [row["where"] for row in rows] == ["line 3", "line 4", "line 5"] or len(rows) == 3
    assert all(row["file"] == str(path) and row["reason"] and row["row"] for row in rows)
    assert "left out 3 bad rows; the reasons are in" in caplog.text
    path.write_text("image_id,caption\n1,a\n", encoding="utf-8")
    read_annotations(path, strict=False)
    assert not (tmp_path / "errors.jsonl").exists()


def test_no_file_of_the_user_is_overwritten_by_notes(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text("image_id,caption\n1,a\n2, \n", encoding="utf-8")
    (tmp_path / "errors.jsonl").write_text("mine\n")
    with pytest.raises(FileExistsError, match="was not written by this command"):
        read_annotations(path, strict=False)
    assert (tmp_path / "errors.jsonl").read_text() == "mine\n"
    read_annotations(path, strict=False, errors=tmp_path / "other" / "bad.jsonl")
    assert notes(tmp_path / "other" / "bad.jsonl")[0]["where"] == "line 3"
    with pytest.raises(ValueError, match="where strict is False"):
        read_annotations(path, errors=tmp_path / "bad.jsonl")


def test_a_file_of_bad_rows_alone_is_an_error(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text("image_id,caption\n1, \n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"(?s)has no pair of a text and an image.*line 2: text is ' '"):
        read_annotations(path, strict=False)


def test_one_bad_entry_of_every_layout_is_left_out(tmp_path: Path):
    """Each layout that is a list or lines of entries, with an entry that is none put behind the good ones."""
    for name, (_, path) in layouts(tmp_path).items():
        wanted = read_annotations(path)[:]
        if path.suffix == ".gz" or name == "captions.txt":
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            data = json.loads(text)
            entries = data if isinstance(data, list) else data.get("images") or data["data"]
            entries.insert(0, {"id": 7, "image": "x.jpg"})
            path.write_text(json.dumps(data), encoding="utf-8")
        else:
            bad = "{\n" if path.suffix == ".jsonl" else "\n\n'nothing\n"
            path.write_text(f"{bad}{text}" if path.suffix == ".jsonl" else f"{text}{bad}", encoding="utf-8")
        with pytest.raises(ValueError, match="bad row"):
            read_annotations(path)
        assert read_annotations(path, strict=False)[:] == wanted, name
        assert len(notes(tmp_path / "errors.jsonl")) == 1, name


def test_a_bad_sentence_costs_no_other_of_its_image(tmp_path: Path):
    path = tmp_path / "dataset_coco.json"
    data = json.loads(json.dumps(KARPATHY))
    data["images"][0]["sentences"][0]["raw"] = ""
    del data["images"][1]["sentences"]
    path.write_text(json.dumps(data), encoding="utf-8")
    assert list(read_annotations(path, strict=False)["text"]) == ["A bike."]
    assert [row["where"] for row in notes(tmp_path / "errors.jsonl")] == ["image 0, sentence 0", "image 1"]


def test_entries_without_a_text_or_of_another_split_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "dataset_coco.json"
    data = json.loads(json.dumps(KARPATHY))
    data["images"].append(data["images"][1] | {"sentences": []})
    path.write_text(json.dumps(data), encoding="utf-8")
    assert list(read_annotations(path, split="restval")["text"]) == ["Food."]
    assert "1 entries have no sentence in 'sentences' and give no row" in caplog.text
    assert "2 entries give no row: they have no text, or are of another split" in caplog.text
    lxmert = tmp_path / "minival.json"
    lxmert.write_text(json.dumps([*LXMERT_PRETRAINING, {"img_id": "7", "sentf": {"vqa": []}}]), encoding="utf-8")
    assert len(read_annotations(lxmert)) == 3
    assert "1 entries give no row" in caplog.text
    llava = tmp_path / "llava.json"
    llava.write_text(json.dumps([LLAVA[0] | {"conversations": []}]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"conversation is of no turns, expected human, gpt"):
        read_annotations(llava)


def test_bad_images_and_answers_beside_the_rows_are_noted(tmp_path: Path):
    coco = {
        "images": [{"id": 1}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [{"image_id": number, "id": number, "caption": "c"} for number in (1, 2)],
    }
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(coco), encoding="utf-8")
    assert list(read_annotations(path, strict=False)["image_id"]) == ["b"]
    assert len(notes(tmp_path / "errors.jsonl")) == 2
    questions = [{"image_id": n, "question": "q?", "question_id": n} for n in (1, 2, 3, 4)]
    answers = [{"answer": "a"}] * 10
    annotations = [
        {"question_id": 1, "image_id": 1, "answers": answers},
        {"question_id": 2, "image_id": 9, "answers": answers},
        {"question_id": 3, "image_id": 3, "answers": answers[:9]},
        {"question_id": 4},
    ]
    vqa, answered = tmp_path / "questions.json", tmp_path / "annotations.json"
    vqa.write_text(json.dumps({"data_subtype": "val2014", "questions": questions}), encoding="utf-8")
    answered.write_text(json.dumps({"annotations": annotations}), encoding="utf-8")
    pairs = read_annotations(vqa, annotations=answered, strict=False)
    assert list(pairs["question_id"]) == ["1"]
    assert len(notes(tmp_path / "errors.jsonl")) == 3


def test_answers_of_some_questions_are_taken_with_a_count(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    questions = [{"image_id": n, "question": "q?", "question_id": n} for n in (1, 2, 3)]
    annotations = [{"question_id": n, "image_id": n, "answers": [{"answer": "a"}] * 10} for n in (2, 5)]
    vqa, answered = tmp_path / "questions.json", tmp_path / "annotations.json"
    vqa.write_text(json.dumps({"data_subtype": "val2014", "questions": questions}), encoding="utf-8")
    answered.write_text(json.dumps({"annotations": annotations}), encoding="utf-8")
    assert list(read_annotations(vqa, annotations=answered)["question_id"]) == ["2"]
    assert "1 of 3 questions have answers in" in caplog.text
    assert "1 annotations are of no question" in caplog.text
    result = CliRunner().invoke(
        app, ["pairs", str(vqa), "--annotations", str(answered), "--out", str(tmp_path / "a.csv")]
    )
    assert result.exit_code == 0, result.output
    assert "1 rows" in result.output


def test_the_command_notes_bad_rows_beside_the_table(tmp_path: Path):
    path = tmp_path / "val.jsonl"
    path.write_text(f"{json.dumps(VCR)}\n{{}}\nnothing\n", encoding="utf-8")
    out = tmp_path / "new" / "pairs.tsv"
    result = CliRunner().invoke(app, ["pairs", str(path), "--out", str(out)])
    assert result.exit_code == 2
    assert not out.exists()
    result = CliRunner().invoke(app, ["pairs", str(path), "--out", str(out), "--skip-bad"])
    assert result.exit_code == 0, result.output
    assert [row["where"] for row in notes(tmp_path / "new" / "errors.jsonl")] == ["line 2", "line 3"]
    assert len(read_annotations(out)) == 1


def test_scores_that_are_none_are_bad_rows(tmp_path: Path):
    path = tmp_path / "minival.json"
    path.write_text(json.dumps([*LXMERT_VQA, LXMERT_VQA[0] | {"label": {"a": 2}}]), encoding="utf-8")
    assert len(read_annotations(path, strict=False)) == 2
    assert "answer_scores" in notes(tmp_path / "errors.jsonl")[0]["reason"]
