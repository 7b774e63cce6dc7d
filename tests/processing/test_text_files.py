"""Text files in any encoding, with any separator, compressed or not, are read; an error names the likely encoding."""

import csv
import gzip
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmpt.commands.main import app
from mmpt.processing.annotations.annotation_formats import read_annotations
from mmpt.processing.region_extraction.image_sources import open_images
from mmpt.processing.text_files import read_delimited, read_lines, read_text

CHINESE = [("图一", "一只狗在草地上奔跑。"), ("图二", "两个人在看海。")]
FRENCH = [("café", "Un garçon mange une crème brûlée."), ("été", "À la plage.")]


def table(rows: list[tuple[str, str]], separator: str = ",") -> str:
    return f"image_id{separator}caption\n" + "".join(f"{image}{separator}{text}\n" for image, text in rows)


@pytest.mark.parametrize(
    ("rows", "encoding", "likely"),
    [
        (CHINESE, "gbk", "gbk"),
        (CHINESE, "utf-16-le", "utf-16-le"),
        (CHINESE, "utf-16-be", "utf-16-be"),
        (FRENCH, "latin-1", "latin-1"),
        ([("a", "It costs 5 € “cheap”")], "cp1252", "cp1252"),
        (FRENCH, "utf-16-le", "utf-16-le"),
    ],
)
def test_the_likely_encoding_is_named_and_then_read(tmp_path: Path, rows, encoding: str, likely: str):
    path = tmp_path / "pairs.csv"
    path.write_bytes(table(rows).encode(encoding))
    with pytest.raises(ValueError, match=re.escape(f"give encoding={likely!r} (--encoding {likely})")):
        read_annotations(path)
    pairs = read_annotations(path, encoding=likely)
    assert list(zip(pairs["image_id"], pairs["text"], strict=True)) == rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["pairs.csv", "PAIRS.CSV", "pairs.Tsv", "pairs.csv.gz", "PAIRS.TSV.GZ"])
def test_marks_separators_suffixes_and_gzip_need_no_option(tmp_path: Path, encoding: str, separator: str, name: str):
    data = table(CHINESE + FRENCH, separator).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
    pairs = read_annotations(tmp_path / name)
    assert list(zip(pairs["image_id"], pairs["text"], strict=True)) == CHINESE + FRENCH


@pytest.mark.parametrize("encoding", ["utf-16", "gbk"])
def test_other_text_formats_have_encodings_too(tmp_path: Path, encoding: str):
    options = {} if encoding == "utf-16" else {"encoding": encoding}
    path = tmp_path / "results.token"
    path.write_bytes("1.jpg#0\t一只狗在草地上奔跑。\r\n1.jpg#1\tb\n".encode(encoding))
    assert list(read_annotations(path, **options)["text"]) == ["一只狗在草地上奔跑。", "b"]
    path = tmp_path / "pairs.JSONL"
    path.write_bytes(json.dumps({"image_id": "1", "text": "狗"}, ensure_ascii=False).encode(encoding))
    assert list(read_annotations(path, **options)["text"]) == ["狗"]


def test_an_encoding_that_is_none_is_refused(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text(table(FRENCH), encoding="utf-8")
    for encoding in ("klingon", "base64"):
        with pytest.raises(ValueError, match=f"encoding is '{encoding}', which Python does not know"):
            read_annotations(path, encoding=encoding)
    path.write_bytes(b"\xff\xfea")  # half a letter of UTF-16
    with pytest.raises(ValueError, match="no text in UTF-16"):
        read_annotations(path)
    path.write_bytes(gzip.compress(table(FRENCH).encode())[:-9])
    with pytest.raises(ValueError, match="is damaged gzip"):
        read_annotations(path)


def test_separators_inside_cells_change_nothing(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text('caption;image\n"a, b, c";1\n"d; ""e""\nf";2\n', encoding="utf-8")
    assert list(read_annotations(path)["text"]) == ["a, b, c", 'd; "e"\nf']
    path.write_text("sep=;\ncaption;image\na,b;1\n", encoding="utf-8")
    assert list(read_annotations(path)["text"]) == ["a,b"]
    path.write_text('image, caption\n1, "a, b"\n', encoding="utf-8")
    assert list(read_annotations(path)["text"]) == ["a, b"]


def test_cells_may_be_of_any_length(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    limit = csv.field_size_limit()
    path.write_text(f"image_id,caption\n1,{'a' * 300_000}\n")
    assert len(read_annotations(path)[0]["text"]) == 300_000
    boxes = json.dumps([[1, 2, 3, 4]] * 20_000)
    path.write_text(f'image,boxes\nphotos/a.jpg,"{boxes}"\n')
    assert len(open_images(path)[0].boxes) == 20_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("name", ["list.csv", "LIST.CSV", "list.csv.gz", "list.tsv"])
def test_lists_of_images_are_read_alike(tmp_path: Path, name: str):
    path = tmp_path / name
    data = "image;labels\nphotos/café.jpg;\n".encode("latin-1")
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(ValueError, match="--encoding latin-1"):
        open_images(path)
    assert list(open_images(path, encoding="latin-1").ids) == ["photos/café"]
    command = ["extract", "--images", str(path), "--model", str(tmp_path), "--out", str(tmp_path / "store")]
    assert "--encoding latin-1" in CliRunner().invoke(app, command).output.replace("\n", " ")


def test_a_quote_that_is_not_closed_takes_no_other_row(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text('image_id,caption\n1,a\n2,"b\n3,c\n4,"d"\n5,e\n6,"f\n7,g\n', encoding="utf-8")
    names, rows = read_delimited(path)
    assert names == ["image_id", "caption"]
    good = [row["image_id"] for _, row in rows if isinstance(row, dict)]
    assert good == ["1", "3", "4", "5", "7"]
    assert [line for line, row in rows if not isinstance(row, dict)] == [3, 7]


def test_lines_are_numbered_and_blank_ones_are_none(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes("a\r\n\r\n\u2028b\n".encode("utf-16"))
    assert list(read_lines(path)) == [(1, "a"), (3, "\u2028b")]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("shift_jis", "猫がいます"),
        ("cp1251", "красный цветок на столе"),
        ("gbk", "沙滩上的两只狗"),
        ("cp1252", "l\u2019été"),
    ],
)
def test_the_error_names_an_encoding_that_reads_the_text(tmp_path: Path, encoding: str, text: str):
    path = tmp_path / "pairs.csv"
    path.write_bytes(f"image,caption\na.jpg,{text}\n".encode(encoding))
    with pytest.raises(ValueError, match=rf"give encoding='{encoding}'"):
        read_text(path)
