"""Tables of one's own: the same pairs in any kind of file, columns chosen openly, ids kept to the letter."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt.configuration.errors import MmptError
from mmpt.processing.annotations.annotation_formats import read_annotations
from mmpt.processing.annotations.pair_tables import read_dataset, read_table

TABLE = {"caption": ["a dog", "a cat"], "file_name": ["000000391895", "../x/7.jpg"]}
PAIRS = {"text": ["a dog", "a cat"], "image_id": ["000000391895", "../x/7"]}


def write(path: Path, rows: list[dict[str, Any]], names: list[str]) -> Path:
    """Write rows as a file of the kind that its ending says."""
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(names)
            for row in rows:
                values = [row[name] for name in names]
                fields = [value if isinstance(value, (str, type(None))) else json.dumps(value) for value in values]
                writer.writerow(fields)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        pq.write_table(pa.table({name: [row[name] for row in rows] for name in names}), path)
    return path


def columns(pairs: Dataset) -> dict[str, list[Any]]:
    return {name: list(pairs[name]) for name in pairs.column_names}


def rows_of(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


LETTERS = st.characters(blacklist_categories=["Cs"])
TEXTS = st.text(LETTERS, min_size=1, max_size=20).filter(lambda text: text.strip() != "")
ROWS = st.fixed_dictionaries(
    {
        "text": TEXTS,
        "image_id": TEXTS,
        "label": st.integers(0, 2**40),
        "answers": st.lists(TEXTS, max_size=3),
        "box": st.tuples(*[st.floats(0, 1e6) for _ in range(4)]).map(
            lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
        ),
    }
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_every_kind_of_file_gives_the_same_pairs(tmp_path: Path, rows: list[dict[str, Any]]):
    wanted = {name: [row[name] for row in rows] for name in rows[0]}
    for suffix in (".csv", ".tsv", ".json", ".jsonl", ".parquet"):
        assert columns(read_table(write(tmp_path / f"pairs{suffix}", rows, list(rows[0])))) == wanted, suffix


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_ids_stay_data_and_usual_names_are_known(tmp_path: Path, suffix: str):
    path = write(tmp_path / f"pairs{suffix}", rows_of(TABLE | {"likes": [1, 2]}), [*TABLE, "likes"])
    assert columns(read_table(path)) == PAIRS
    assert list(read_table(path, image_id_stem=True)["image_id"]) == ["000000391895", "7"]
    assert not (tmp_path.parent / "x").exists()


def test_columns_are_renamed_as_asked(tmp_path: Path):
    path = write(tmp_path / "pairs.jsonl", [{"image": 7, "caption": "a", "headline": "b"}], [])
    mapping = {"headline": "text", "caption": "text_pair"}
    assert columns(read_table(path, columns=mapping)) == {"text": ["b"], "image_id": ["7"], "text_pair": ["a"]}


@pytest.mark.parametrize(
    ("names", "mapping", "message"),
    [
        (["a", "b"], None, "none of its columns is 'text', got 'a', 'b'; say which: columns={name: 'text'}"),
        (["text", "image", "file_name"], None, "'image' and 'file_name' could both be 'image_id'"),
        (["text", "image"], {"photo": "image_id"}, "has no column 'photo', got 'text', 'image'"),
        (
            ["text", "image"],
            {"image": "picture"},
            "a pair table has no column 'picture', expected one of text, image_id",
        ),
        (["a", "b", "image"], {"a": "text", "b": "text"}, "columns 'a' and 'b' are both to be 'text'"),
    ],
)
def test_columns_that_are_unclear_are_refused(tmp_path: Path, names: list[str], mapping: Any, message: str):
    path = write(tmp_path / "pairs.csv", [dict.fromkeys(names, "x")], names)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(path, columns=mapping)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,image_id\na,1\n ,2\n", "line 3: text is ' ', expected a string that is not blank"),
        ("text,image_id\na,1\nb\n", "line 3: got 1 fields, expected 2"),
        ('text,image_id\n"a" b,1\n', "line 2: "),
        ('text,image_id\n"a,1\n', "unexpected end of data"),
        ("text,text,image_id\na,b,1\n", "line 1: two columns have one name"),
        ("text,image_id,label\na,1,0\na,1,dog\n", "line 3: label is 'dog', expected a whole number from 0 on"),
        ("text,image_id,label\na,1,-1\n", "line 2: label is -1, expected a whole number from 0 on"),
        ("text,image_id,label\na,1,1.5\n", "line 2: label is 1.5"),
        ('text,image_id,box\na,1,"[9,0,1,1]"\n', r"line 2: box is \[9, 0, 1, 1\], expected x1 y1 x2 y2"),
        ("text,image_id\n", "has no pair of a text and an image"),
        ("", "none of its columns is 'text', got none"),
    ],
)
def test_bad_rows_of_a_text_file_are_placed(tmp_path: Path, content: str, message: str):
    path = tmp_path / "pairs.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"(?s)pairs\.csv.*{message}"):
        read_table(path)


def test_words_that_other_readers_take_for_nothing_are_texts(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text("\ufefftext,image_id,text_pair\nNA,null,\nnan,None,NaN\n", encoding="utf-8")
    assert columns(read_table(path)) == {
        "text": ["NA", "nan"],
        "image_id": ["null", "None"],
        "text_pair": [None, "NaN"],
    }


@pytest.mark.parametrize("image", [1.0, True, {"path": "7.jpg"}, ["7"]])
def test_ids_that_are_none_are_refused(tmp_path: Path, image: Any):
    with pytest.raises(ValueError, match=r"line 1: id is .* expected a string or a whole number"):
        read_table(write(tmp_path / "pairs.jsonl", [{"text": "a", "image": image}], []))


def test_a_row_without_an_image_is_refused(tmp_path: Path):
    rows = [{"text": "a", "image_id": "1"}, {"text": "a"}, 7, {"text": "a", "image_id": None}]
    with pytest.raises(
        ValueError, match=r"(?s)pairs.json has 3 bad rows.*row 1: 'image_id' is missing.*row 2: .*row 3: "
    ):
        read_table(write(tmp_path / "pairs.json", rows, []))


def test_two_paths_of_one_stem_are_refused(tmp_path: Path):
    path = write(
        tmp_path / "pairs.csv", rows_of({"text": ["a", "b"], "image": ["x/7.jpg", "y/7.jpg"]}), ["text", "image"]
    )
    with pytest.raises(ValueError, match=r"line 3: images 'x/7.jpg' and 'y/7.jpg' would both be '7'"):
        read_table(path, image_id_stem=True)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_labels_may_be_words(tmp_path: Path, suffix: str):
    names = ["text", "image_id", "label"]
    path = write(
        tmp_path / f"pairs{suffix}",
        rows_of({"text": ["a", "b"], "image_id": ["1", "2"], "label": ["yes", "no"]}),
        names,
    )
    pairs = read_table(path, label_names=["no", "yes"])
    assert (list(pairs["label"]), list(pairs["label_name"])) == ([1, 0], ["yes", "no"])
    with pytest.raises(
        ValueError, match=r"label is 'yes', expected 0\.\.1 or one of no, maybe|label is 'yes', expected a"
    ):
        read_table(path, label_names=["no", "maybe"])
    alone = read_table(path)
    assert (list(alone["label"]), list(alone["label_name"])) == ([1, 0], ["yes", "no"])


def test_a_table_of_plain_words_is_read(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text(
        "Image,Question,Answer,box,choices,label\n"
        "a.JPG,what?,red|dark red,1 2 3 4,a cat|a dog,a dog\n"
        'b c/d.png,how many?,2,"[1, 2, 3, 4]","[""x"", ""y""]",0\n',
        encoding="utf-8",
    )
    assert columns(read_table(path)) == {
        "text": ["what?", "how many?"],
        "image_id": ["a", "b c/d"],
        "answers": [["red", "dark red"], ["2"]],
        "box": [[1.0, 2.0, 3.0, 4.0]] * 2,
        "choices": [["a cat", "a dog"], ["x", "y"]],
        "label": [1, 0],
    }


@pytest.mark.parametrize(
    ("cells", "labels", "names"),
    [
        (["cat", "a dog", "cat"], [1, 0, 1], ["cat", "a dog", "cat"]),
        (["True", "False", ""], [1, 0, None], ["True", "False", None]),
        (["1.0", "0", ""], [1, 0, None], None),  # pandas writes whole numbers so where one is missing
    ],
)
def test_labels_of_a_csv_are_words_or_numbers(tmp_path: Path, cells: list[str], labels: list, names: list | None):
    path = tmp_path / "pairs.csv"
    path.write_text("text,image_id,label\n" + "".join(f"a,1,{cell}\n" for cell in cells), encoding="utf-8")
    table = read_table(path)
    assert list(table["label"]) == labels
    assert (list(table["label_name"]) if "label_name" in table.column_names else None) == names


def test_a_file_of_headers_that_are_not_ours_says_how_to_name_them(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text("图片,描述\na.jpg,红花\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"none of its columns is 'text', got '图片', '描述'.*--columns NAME=text"):
        read_table(path)
    with pytest.raises(ValueError, match=r"has no column 'text', got '图片', '描述'; write 描述=text"):
        read_table(path, columns={"text": "描述"})
    assert columns(read_table(path, columns={"图片": "image_id", "描述": "text"})) == {
        "text": ["红花"],
        "image_id": ["a"],
    }


def test_labels_out_of_range_are_refused(tmp_path: Path):
    path = write(tmp_path / "pairs.jsonl", [{"text": "a", "image_id": "1", "label": 2}], [])
    with pytest.raises(ValueError, match=r"line 1: label is 2, expected 0\.\.1 or one of no, yes"):
        read_table(path, label_names=["no", "yes"])
    other = write(tmp_path / "other.jsonl", [{"text": "a", "image_id": "1"}], [])
    with pytest.raises(ValueError, match="has no column 'label' that label_names could name"):
        read_table(other, label_names=["no", "yes"])


def test_files_that_are_no_tables_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="is not a file"):
        read_table(tmp_path / "pairs.csv")
    (tmp_path / "pairs.xlsx").touch()
    with pytest.raises(ValueError, match=r"ends in '.xlsx', expected one of .csv, .tsv, .json, .jsonl, .parquet"):
        read_table(tmp_path / "pairs.xlsx")
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"pairs.parquet is no Parquet file"):
        read_table(tmp_path / "pairs.parquet")
    (tmp_path / "pairs.csv").write_bytes(b"text,image_id\n\xff,1\n")
    with pytest.raises(ValueError, match=r"pairs.csv, line .*utf-8"):
        read_table(tmp_path / "pairs.csv")


def test_a_dataset_and_its_folder_are_read(tmp_path: Path):
    dataset = Dataset.from_dict(TABLE | {"other": [[1], [2]]})
    assert columns(read_dataset(dataset)) == PAIRS
    dataset.save_to_disk(str(tmp_path / "saved"))
    assert columns(read_dataset(tmp_path / "saved")) == PAIRS
    DatasetDict(train=dataset, dev=dataset).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(ValueError, match="has the splits 'train', 'dev'; choose one of them"):
        read_dataset(tmp_path / "splits")
    assert columns(read_dataset(tmp_path / "splits" / "dev")) == PAIRS
    with pytest.raises(TypeError, match=r"is a dict, expected a datasets.Dataset"):
        read_dataset(PAIRS)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        read_dataset(tmp_path)


def test_a_class_label_gives_its_names():
    features = Features({"text": Value("string"), "image_id": Value("int64"), "label": ClassLabel(names=["no", "yes"])})
    dataset = Dataset.from_dict({"text": ["a", "b"], "image_id": [1, 2], "label": ["yes", 0]}, features=features)
    assert columns(read_dataset(dataset)) == {
        "text": ["a", "b"],
        "image_id": ["1", "2"],
        "label": [1, 0],
        "label_name": ["yes", "no"],
    }
    unknown = Dataset.from_dict({"text": ["a"], "image_id": [1], "label": [-1]}, features=features)
    with pytest.raises(ValueError, match=r"the dataset has 1 bad row.*\n  row 0: label is -1, expected 0\.\.1"):
        read_dataset(unknown)


def test_a_separator_that_the_header_cannot_tell_is_given(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text("image_id^caption\n007^a, b; c\n", encoding="utf-8")
    assert read_annotations(path, separator="^")[:] == {"text": ["a, b; c"], "image_id": ["007"]}
    with pytest.raises(ValueError, match="separator is 'xx', expected one character"):
        read_annotations(path, separator="xx")
    (tmp_path / "a.jsonl").write_text('{"image_id": "1", "text": "a"}\n')
    with pytest.raises(ValueError, match="is no CSV; leave it out"):
        read_annotations(tmp_path / "a.jsonl", separator=";")


def test_damaged_parquet_and_datasets_are_named(tmp_path: Path):
    pairs = Dataset.from_dict({"image_id": ["1", "2"], "text": ["kitten", "puppy"]})
    pq.write_table(pairs.data.table, tmp_path / "pairs.parquet", compression="none", use_dictionary=False)
    pairs.save_to_disk(tmp_path / "set")
    arrow = next((tmp_path / "set").glob("*.arrow"))
    for path in (tmp_path / "pairs.parquet", arrow):
        whole = path.read_bytes()
        for damaged in (whole.replace(b"kitten", b"kit\xff\xffn"), whole[: len(whole) // 2], b""):
            path.write_bytes(damaged)
            with pytest.raises(MmptError, match=r"pairs\.parquet is|set is"):
                read_annotations(tmp_path / "pairs.parquet" if path != arrow else tmp_path / "set")
        path.write_bytes(whole)
    (tmp_path / "set" / "state.json").write_text("{")
    with pytest.raises(MmptError, match="set is a dataset that is damaged"):
        read_annotations(tmp_path / "set")


def test_csv_as_excel_and_people_write_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "pairs.csv"
    for text in (
        "\n\nimage,caption\na.jpg,x\n",  # blank lines before the header
        "image,caption,,\na.jpg,x,,\n",  # columns without a name
        "image,caption\na.jpg,x,,\n",  # separators at the end
    ):
        path.write_text(text)
        assert read_table(path)[:] == {"text": ["x"], "image_id": ["a"]}, text
    path.write_text("image,caption\na.jpg,x,y\n")
    with pytest.raises(ValueError, match="got 3 fields, expected 2"):
        read_table(path)
    path.write_text("a.jpg,a cat\nb.jpg,a dog\n")
    with pytest.raises(ValueError, match="its first line looks like a row, expected the names of the columns there"):
        read_table(path)
    path.write_text("image,caption,label\na.jpg,x,Cat\nb.jpg,y,cat\n")
    read_table(path)
    assert "the labels 'Cat' and 'cat' differ in case alone and are two classes" in caplog.text
    (tmp_path / "pairs.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match="it looks like a table of Excel, save it as CSV"):
        read_annotations(tmp_path / "pairs.xlsx")


def test_boxes_that_are_shares_of_the_image_are_refused(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text("image,expression,box\na.jpg,x,0.1 0.2 0.5 0.6\nb.jpg,y,\n")
    with pytest.raises(ValueError, match=r"every box lies within 0..1, .* expected pixels; multiply x by the image's"):
        read_table(path)
    path.write_text("image,expression,box\na.jpg,x,0.1 0.2 0.5 0.6\nb.jpg,y,0 0 20 30\n")
    assert len(read_table(path)) == 2
