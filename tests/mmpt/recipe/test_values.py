"""YAML of recipes, and values against types."""

from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmpt.recipe.values import describe, fits, is_text, read_yaml, write_yaml

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.from_regex(r"[-+.0-9eExo_:]+")
)


class Strategy(Enum):
    NO = "no"
    STEPS = "steps"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2E+3", 2000.0),
        ("-.5", -0.5),
        ("no", "no"),
        ("off", "off"),
        ("true", True),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        ("010", 10),
        ("0x1f", 31),
        ("null", None),
        ("[1, 2.0, a]", [1, 2.0, "a"]),
    ],
)
def test_scalars_are_read_as_yaml_1_2(text: str, value: Any) -> None:
    got = read_yaml(text, "here")
    assert got == value
    assert type(got) is type(value)


@settings(deadline=None)
@example({"\x85": "\u2028 \u2029"})
@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)))
def test_written_values_are_read_back_equal(values: Any) -> None:
    assert read_yaml(write_yaml(values), "here") == values


def test_key_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"r\.yaml, line 2, column 1: not valid YAML: key 'seed' is given twice"):
        read_yaml("seed: 1\nseed: 2", "r.yaml")


def test_yaml_cannot_make_python_objects() -> None:
    with pytest.raises(ValueError, match="could not determine a constructor"):
        read_yaml("!!python/object/apply:os.getcwd []", "r.yaml")


def test_broken_yaml_names_source_and_line() -> None:
    with pytest.raises(ValueError, match=r"r\.yaml, line 3, column 1: not valid YAML"):
        read_yaml("a: [1,\n  2\n", "r.yaml")


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, float, True),
        (True, float, False),
        (True, int, False),
        (1.0, int, False),
        (float("nan"), float, False),
        (float("inf"), float, False),
        (10**400, float, False),
        ("1", int, False),
        (None, int | None, True),
        (None, int, False),
        (True, Literal[1, 2], False),
        ("b", Literal["a", "b"], True),
        ([1, 2], list[int], True),
        ([1, "2"], list[int], False),
        ({"a": 1}, dict[str, float], True),
        ({1: 1}, dict[str, float], False),
        ({"a": object}, dict, True),
        ("steps", Strategy | str, True),
        ("stepps", Strategy | str, False),
        (object(), Any, True),
    ],
)
def test_value_fits_type(value: Any, annotation: Any, expected: bool) -> None:
    assert fits(value, annotation) is expected


def test_types_are_described_in_words() -> None:
    assert describe(int | None) == "a whole number or null"
    assert describe(Strategy | str | None) == "one of 'no', 'steps' or null"
    assert describe(list[float]) == "a list of a number"
    assert describe(Literal["single", "dual"]) == "'single' or 'dual'"


def test_only_texts_and_null_are_taken_as_they_are() -> None:
    assert is_text(str)
    assert is_text(str | None)
    assert not is_text(str | bool)
    assert not is_text(int | None)
