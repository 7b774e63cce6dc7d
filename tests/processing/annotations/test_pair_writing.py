"""Tables of pairs of every kind are written and read back without a loss, whole, and never over their input."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mmpt.commands.main import app
from mmpt.processing.annotations.annotation_formats import ANNOTATION_FORMATS, read_annotations
from mmpt.processing.annotations.pair_columns import COLUMNS, build_pairs
from mmpt.processing.annotations.pair_tables import read_table
from mmpt.processing.annotations.pair_writing import WRITERS, write_pairs
from tests.factories.annotations import layouts
from tests.processing.annotations.test_annotations import (
    COCO,
    GENOME,
    GQA,
    NLVR,
    NLVR2,
    SNLI_VE,
    VQA_ANNOTATIONS,
    VQA_QUESTIONS,
    entities,
    refcoco,
)

LETTERS = st.characters(blacklist_categories=["Cs"])
STRINGS = st.text(LETTERS, max_size=12)
TEXTS = STRINGS.filter(lambda text: text.strip() != "")
NUMBERS = st.floats(-1e6, 1e6)
BOXES = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS).map(
    lambda box: [min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])]
)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a row with every column that a pair table can have; those that are not required may be none."""
    text, choices = draw(TEXTS), draw(st.lists(TEXTS, min_size=2, max_size=4))
    answers = draw(st.lists(STRINGS, max_size=3))
    start = draw(st.integers(0, len(text) - 1))
    part = text[start:]
    phrase = {"text": part, "start": start, "end": len(text), "entity_id": "7", "types": [draw(STRINGS)]}
    values = {
        "second_image_id": draw(TEXTS),
        "text_pair": draw(TEXTS),
        "example_id": draw(STRINGS.filter(str.strip)),
        "question_id": draw(TEXTS),
        "group": draw(TEXTS),
        "label": draw(st.integers(0, len(choices) - 1)),
        "label_name": draw(TEXTS),
        "choices": choices,
        "box": draw(BOXES),
        "phrases": [phrase | {"boxes": draw(st.lists(BOXES, max_size=2))}] if part.strip() else [],
        "split": draw(TEXTS),
        "hard_negative_image_ids": draw(st.lists(TEXTS, max_size=3)),
        "hard_negative_texts": draw(st.lists(TEXTS, max_size=3)),
        "answers": answers,
        "answer_scores": [draw(st.floats(0, 1)) for _ in answers],
    }
    given = {name: None if draw(st.booleans()) and name != "answer_scores" else value for name, value in values.items()}
    return {"text": text, "image_id": draw(TEXTS)} | given


@settings(max_examples=15, deadline=None, derandomize=True)
@given(table=st.lists(rows(), min_size=1, max_size=3))
def test_every_column_survives_every_kind_of_file(
    tmp_path_factory: pytest.TempPathFactory, table: list[dict[str, Any]]
):
    pairs = build_pairs("rows", "row", enumerate(table), lambda row: [row], list(COLUMNS))
    folder = tmp_path_factory.mktemp("pairs")
    for suffix in WRITERS:
        write_pairs(pairs, folder / f"pairs{suffix}")
        assert read_table(folder / f"pairs{suffix}")[:] == pairs[:], suffix


def test_every_format_of_annotations_survives_every_kind_of_file(tmp_path: Path):
    for folder in ("nlvr", "genome", "others", "refs", "saved"):
        (tmp_path / folder).mkdir()
    found = {name: (path, {}) for name, (_, path) in layouts(tmp_path / "others").items()}

    def add(name: str, data: Any, lines: bool = False, **options: Any) -> None:
        path = tmp_path / "nlvr" / f"{name}.json"
        path.write_text(json.dumps(data) + "\n" * lines, encoding="utf-8")
        found[name] = path, options

    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(VQA_ANNOTATIONS), encoding="utf-8")
    add("coco_captions", COCO)
    add("visual_genome", GENOME)
    add("vqa", VQA_QUESTIONS, annotations=answers)
    add("gqa", GQA)
    add("train", NLVR, lines=True)
    add("nlvr2", NLVR2, lines=True)
    add("snli_ve", SNLI_VE, lines=True)
    found["entities"] = entities(tmp_path / "entities"), {}
    found["refcoco"] = refcoco(tmp_path / "refs"), {}
    negatives = {"text": ["a"], "image_id": ["1"], "hard_negative_image_ids": [[f"image_{n}" for n in range(1500)]]}
    Dataset.from_dict(negatives).save_to_disk(str(tmp_path / "saved" / "set"))
    found["dataset"] = tmp_path / "saved" / "set", {}
    assert len(found) > len(ANNOTATION_FORMATS)
    for name, (path, options) in found.items():
        pairs = read_annotations(path, **options)
        for suffix in (*WRITERS, ".CSV"):
            out = tmp_path / "out" / f"pairs{suffix}"
            write_pairs(pairs, out)
            again = read_annotations(out)
            assert again.column_names == sorted(pairs.column_names, key=list(COLUMNS).index), (name, suffix)
            assert {column: again[column][:] for column in pairs.column_names} == pairs[:], (name, suffix)
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_the_command_writes_long_lists_whole(tmp_path: Path):
    source = tmp_path / "hn.jsonl"
    negatives = [f"image_{number}" for number in range(1500)]
    source.write_text(json.dumps({"image_id": "1", "caption": "a cat", "hard_negative_image_ids": negatives}) + "\n")
    for suffix in WRITERS:
        out = tmp_path / f"pairs{suffix}"
        assert CliRunner().invoke(app, ["pairs", str(source), "--out", str(out)]).exit_code == 0
        assert read_table(out)[0]["hard_negative_image_ids"] == negatives


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pairs = read_annotations(layouts(tmp_path)["vqa_minival"][1])
    for suffix in WRITERS:
        out = tmp_path / f"out{suffix}"
        out.write_text("old")

        def fail(*_: Any, **__: Any) -> Any:
            yield {"text": "a"}
            raise OSError("no space left")

        monkeypatch.setattr("mmpt.processing.annotations.pair_writing.iterate_rows", fail)
        monkeypatch.setattr(Dataset, "iter", fail)
        with pytest.raises((OSError, AttributeError)):  # in the first row or batch, or behind it
            write_pairs(pairs, out)
        monkeypatch.undo()
        assert out.read_text() == "old"
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_command_never_writes_over_its_input(tmp_path: Path):
    for name in ("metadata.csv", "metadata.jsonl", "Train_GCC-training.tsv", "results.csv"):
        source = layouts(tmp_path)[name][1]
        before = source.read_bytes()
        link = tmp_path / f"link{source.suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(source)
        for out in (source, link, tmp_path / "." / name, tmp_path / "x" / ".." / name):
            (tmp_path / "x").mkdir(exist_ok=True)
            result = CliRunner().invoke(app, ["pairs", str(source), "--out", str(out)])
            assert result.exit_code == 2
            assert "would destroy what is read" in result.output
            assert source.read_bytes() == before
    result = CliRunner().invoke(app, ["pairs", str(tmp_path), "--out", str(tmp_path / "metadata.csv")])
    assert "would destroy what is read" in result.output


def test_options_of_the_formats_are_options_of_the_command(tmp_path: Path):
    table = tmp_path / "votes.csv"
    table.write_text("Bild;Titel;label\nx/7.jpg;Two tables?;yes\n", encoding="latin-1")
    command = ["pairs", str(table), "--out", str(tmp_path / "a.jsonl"), "--columns", "Bild=image_id,Titel=text"]
    result = CliRunner().invoke(app, [*command, "--label-names", "no,yes", "--image-id-stem", "--encoding", "latin-1"])
    assert result.exit_code == 0, result.output
    wanted = {"text": "Two tables?", "image_id": "7", "label": 1, "label_name": "yes"}
    assert read_table(tmp_path / "a.jsonl")[0] == wanted
    assert CliRunner().invoke(app, [*command, "--split", "val"]).exit_code == 2
    assert CliRunner().invoke(app, [*command[:-1], "text"]).exit_code == 2


def test_a_label_stays_a_place_where_a_choice_is_written_like_it(tmp_path: Path):
    row = {"text": "a", "image_id": "b", "choices": ["x", "y", "0"], "label": 0}
    pairs = build_pairs("rows", "row", enumerate([row]), lambda entry: [entry], list(row))
    for suffix in WRITERS:
        write_pairs(pairs, tmp_path / f"pairs{suffix}")
        assert read_table(tmp_path / f"pairs{suffix}")["label"] == [0], suffix
