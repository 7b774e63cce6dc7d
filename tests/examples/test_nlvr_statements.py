"""Statements about NLVR scenes: true of the one, false of its rearrangement, by an evaluation that reads the text."""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.nlvr.augmentation import augment, misspells
from examples.nlvr.corpus import read_corpus, true_pairs
from examples.nlvr.scenes import (
    SIDE,
    Scene,
    is_tower,
    permute_panels,
    prototype_ids,
    rearrange,
    regions_of,
)
from examples.nlvr.statements import Level, draw_statement, statement_pair, write_statements
from examples.nlvr.wording import Boxes

COLOURS = ["yellow", "black", "blue"]
SHAPES = ["square", "circle", "triangle"]
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SEEDS = st.integers(0, 2**32 - 1)
PROTOTYPES = np.eye(27, 30, dtype=np.float32)


def tower(*columns: str) -> Scene:
    """Towers from the lowest block up: y yellow, k black, b blue."""
    rows = [
        (panel, 40, 80 - 21 * level, 20, "ykb".index(colour), 0)
        for panel, column in enumerate(columns)
        for level, colour in enumerate(column)
    ]
    return np.array(rows, dtype=np.int16)


@st.composite
def towers(draw: st.DrawFn) -> Scene:
    return tower(*(draw(st.text("ykb", min_size=1, max_size=4)) for _ in range(3)))


@st.composite
def scattered(draw: st.DrawFn) -> Scene:
    """Objects on a grid of cells of 33 pixels, some moved to the wall."""
    rows = []
    for panel in range(3):
        for cell in sorted(draw(st.sets(st.integers(0, 8), min_size=1, max_size=5))):
            size = draw(st.sampled_from((10, 20, 30)))
            left, top = (33 * k if k < 2 or not draw(st.booleans()) else SIDE - size for k in (cell % 3, cell // 3))
            rows.append((panel, left + (left == 0), top, size, draw(st.integers(0, 2)), draw(st.integers(0, 2))))
    return np.array(rows, dtype=np.int16)


# The slow evaluation: it reads the sentence and walks over the rows of the scene.

AMOUNT = r"(?:(exactly|at least|atleast|at most|only|more than|less than) )?(\d+|" + "|".join(NUMBERS) + ")"
COLOUR = "(yellow|black|blue)"
WHAT = (
    r"(?:(small|medium sized|medium|big|large) )?(?:(yellow|black|blue) )?(square|circle|triangle|item|object|block)s?"
)


def number_of(word: str) -> int:
    return int(word) if word.isdigit() else NUMBERS.index(word)


def amount_holds(bound: str | None, number: str, found: int) -> bool:
    wanted = number_of(number)
    return {
        "at least": found >= wanted,
        "atleast": found >= wanted,
        "at most": found <= wanted,
        "more than": found > wanted,
        "less than": found < wanted,
    }.get(bound or "", found == wanted)


def fits(row: np.ndarray, size: str | None, colour: str | None, noun: str) -> bool:
    sides = {"small": 10, "medium": 20, "medium sized": 20, "big": 30, "large": 30}
    if size is not None and row[3] != sides[size]:
        return False
    if colour is not None and COLOURS[row[4]] != colour:
        return False
    return noun not in SHAPES or SHAPES[row[5]] == noun


def column(scene: Scene, panel: int) -> list[str]:
    rows = sorted((row for row in scene.tolist() if row[0] == panel), key=lambda row: -row[2])
    return [COLOURS[row[4]] for row in rows]


def evaluate(text: str, scene: Scene) -> bool | None:
    """Return whether the sentence is true, None if it is of no form that is known here."""
    columns = [column(scene, panel) for panel in range(3)]
    if found := re.fullmatch(rf"there (?:is|are) {AMOUNT} {WHAT}", text):
        bound, number, *what = found.groups()
        return amount_holds(bound, number, sum(fits(row, *what) for row in scene))
    if found := re.fullmatch(rf"there is a (?:box|tower) (?:with|which has|that has) {AMOUNT} {WHAT}", text):
        bound, number, *what = found.groups()
        counts = [sum(fits(row, *what) for row in scene if row[0] == panel) for panel in range(3)]
        return any(amount_holds(bound, number, count) for count in counts)
    if found := re.fullmatch(
        rf"there (?:is|are) {AMOUNT} towers? (?:with|which has|which have|that has|that have) a {COLOUR} block at the "
        r"(base|bottom|top)",
        text,
    ):
        bound, number, colour, end = found.groups()
        return amount_holds(bound, number, sum(c[-1 if end == "top" else 0] == colour for c in columns))
    if found := re.fullmatch(
        rf"there is a {COLOUR} block as the (base|bottom|top) of a tower with {AMOUNT} blocks?", text
    ):
        colour, end, bound, number = found.groups()
        return any(c[-1 if end == "top" else 0] == colour and amount_holds(bound, number, len(c)) for c in columns)
    if found := re.fullmatch(
        rf"there is a {COLOUR} block (above|on|over|below|bellow|under) (?:a|the) {COLOUR} block", text
    ):
        first, side, second = found.groups()
        pair = [first, second] if side in ("below", "bellow", "under") else [second, first]
        return any(c[k : k + 2] == pair for c in columns for k in range(3))
    if found := re.fullmatch(
        rf"the (first|second|third) (?:block|color) from the (base|bottom|top) of a tower is {COLOUR}", text
    ):
        place, end, colour = found.groups()
        turned = [c[::-1] if end == "top" else c for c in columns]
        return any(c[k : k + 1] == [colour] for c in turned for k in [["first", "second", "third"].index(place)])
    if found := re.fullmatch(
        rf"there is a (?:box|tower) with only {COLOUR} and {COLOUR} (?:items|blocks|objects)", text
    ):
        return any(set(c) == set(found.groups()) for c in columns)
    if found := re.fullmatch(
        rf"there (is no|is a|is|are) ?(?:{AMOUNT})? ?{WHAT} (not touching|touching|closely touching) "
        r"(?:the |a |any |right |an )*(bottom|base|bottom base|roof|top|edge|wall|side|corner|box corner)"
        r"(?: of a box)?",
        text,
    ):
        article, bound, number, *what, verb, place = found.groups()
        count = 0
        for row in scene.tolist():
            gaps = {"left": row[1], "top": row[2], "right": SIDE - row[1] - row[3], "bottom": SIDE - row[2] - row[3]}
            near = {name for name, gap in gaps.items() if gap == 0}
            walls = {
                "bottom": {"bottom"},
                "base": {"bottom"},
                "bottom base": {"bottom"},
                "roof": {"top"},
                "top": {"top"},
            }
            wanted = {"right"} if "right wall" in text else walls.get(place, set(gaps))
            touches = (
                bool(near & {"left", "right"}) and bool(near & {"top", "bottom"})
                if "corner" in place
                else bool(near & wanted)
            )
            count += fits(np.array(row), *what) and touches != (verb == "not touching")
        if number is None:
            return count == 0 if article == "is no" else count > 0
        return amount_holds(bound, number, count)
    return None


@settings(max_examples=60, deadline=None)
@given(st.one_of(towers(), scattered()), SEEDS)
def test_statements_are_as_true_as_a_slow_evaluation_of_their_text_says(scene: Scene, seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = Boxes(scene)
    for _ in range(40):
        statement = draw_statement(boxes, rng)
        truth = evaluate(statement.text, scene)
        if truth is not None:
            assert statement.holds(boxes) == truth, f"{statement.text}: {scene.tolist()}"


def test_the_slow_evaluation_reads_a_fifth_of_the_statements() -> None:
    rng = np.random.default_rng(0)
    scenes = [tower("yk", "b", "kkb"), np.array([[2, 70, 0, 30, 1, 2], [0, 0, 80, 20, 0, 0], [0, 50, 50, 10, 2, 1]])]
    read = [evaluate(draw_statement(Boxes(scene), rng).text, scene) is not None for scene in scenes for _ in range(100)]
    assert sum(read) > 40


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("there is exactly one tower with a black block at the base", True),
        ("there is exactly one tower with a black block at the top", False),
        ("there is a black block on a yellow block", True),
        ("there is a yellow block on a black block", False),
        ("the second block from the base of a tower is blue", True),
        ("there is a tower with only yellow and black blocks", True),
        ("there are 3 yellow blocks", True),
    ],
)
def test_the_slow_evaluation_reads_towers_as_a_person_does(text: str, truth: bool) -> None:
    assert evaluate(text, tower("yk", "yyk", "kb")) is truth


def kinds(scene: Scene) -> Counter:
    return Counter(map(tuple, scene[:, 3:].tolist()))


@settings(max_examples=60, deadline=None)
@given(st.one_of(towers(), scattered()), SEEDS)
def test_a_rearrangement_keeps_the_objects_and_is_a_scene(scene: Scene, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(5):
        other = rearrange(scene, rng)
        assert kinds(other) == kinds(scene)
        assert is_tower(other) == is_tower(scene)
        low, high = other[:, 1:3], other[:, 1:3] + other[:, 3:4]
        assert (low >= 0).all()
        assert (high <= SIDE).all()
        for panel in range(3):
            here = np.flatnonzero(other[:, 0] == panel)
            apart = (low[here][:, None] >= high[here][None]).any(2)
            apart |= apart.T | np.eye(len(here), dtype=bool)
            assert apart.all()
        if is_tower(scene):
            assert set(np.bincount(other[:, 0], minlength=3)) <= {1, 2, 3, 4}


@settings(max_examples=40, deadline=None)
@given(st.one_of(towers(), scattered()), SEEDS)
def test_each_statement_has_a_true_scene_and_a_false_one_of_the_same_objects(scene: Scene, seed: int) -> None:
    pair = statement_pair(scene, np.random.default_rng(seed))
    if pair is None:
        return
    statement, true, false = pair
    assert statement.holds(Boxes(true))
    assert not statement.holds(Boxes(false))
    assert kinds(true) == kinds(false) == kinds(scene)
    assert any(np.array_equal(scene, given) for given in (true, false))


@settings(max_examples=60, deadline=None)
@given(st.one_of(towers(), scattered()), SEEDS)
def test_augmentation_keeps_the_truth(scene: Scene, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        text = draw_statement(Boxes(scene), rng).text
        truth = evaluate(text, scene)
        if truth is not None:
            other_text, other = augment(text, scene, rng)
            assert evaluate(other_text, other) == truth


def test_augmentation_changes_words_and_scene_together() -> None:
    scene = tower("yk", "b", "kk")
    seen = {augment("There is a Yellow block", scene, np.random.default_rng(seed))[0] for seed in range(30)}
    assert {text.lower() for text in seen} == {f"there is a {colour} block" for colour in COLOURS}
    kept = {augment("there is a yelllow block", scene, np.random.default_rng(seed))[0] for seed in range(30)}
    assert kept == {"there is a yelllow block"}
    loose = np.array([[0, 3, 3, 20, 0, 0], [1, 3, 3, 10, 1, 1], [2, 3, 3, 10, 1, 2]], dtype=np.int16)
    shapes = {augment("two squares", loose, np.random.default_rng(seed))[0] for seed in range(30)}
    assert shapes == {"two squares", "two circles", "two triangles"}
    grey = {augment("one grey square has a circle", loose, np.random.default_rng(seed))[0] for seed in range(30)}
    assert grey == {"one grey square has a circle"}


@pytest.mark.parametrize(
    ("text", "is_wrong"), [("a yelow item", True), ("blacks", True), ("blue blocks", False), ("ablue circle", True)]
)
def test_misspelt_colours_are_noticed(text: str, is_wrong: bool) -> None:
    assert misspells(text, tuple(COLOURS)) is is_wrong


def test_regions_are_objects_then_boxes_each_box_an_image_of_its_own() -> None:
    scene = np.array([[2, 70, 0, 30, 1, 2], [0, 0, 80, 20, 0, 0], [0, 50, 50, 10, 2, 1]], dtype=np.int16)
    regions = regions_of(scene, PROTOTYPES[prototype_ids(scene)])
    assert np.allclose(regions.boxes[0], [0.7, 0, 1, 0.3])
    assert regions.type_ids.tolist() == [2, 0, 0, 0, 1, 2]
    assert regions.features[:3].argmax(1).tolist() == prototype_ids(scene).tolist() == [17, 1, 21]
    assert np.allclose(regions.features[3], (PROTOTYPES[1] + PROTOTYPES[21]) / 40)
    assert not regions.features[4].any()
    assert np.allclose(regions.boxes[3:], [0, 0, 1, 1])
    moved = regions_of(permute_panels(scene, (2, 0, 1)), PROTOTYPES[prototype_ids(scene)])
    assert moved.type_ids.tolist() == [0, 1, 1, 0, 1, 2]
    assert np.array_equal(moved.boxes, regions.boxes)


@pytest.mark.parametrize("level", ["words", "simple", "all"])
def test_written_statements_depend_on_seed_and_number(level: Level) -> None:
    scenes = [tower("yk", "b", "kkb"), tower("y", "yk", "yyk")]
    more, fewer = ([*write_statements(scenes, count, seed=4, level=level)] for count in (30, 20))
    for one, other in zip(more[:20], fewer, strict=True):
        assert one.statement.text == other.statement.text
        assert np.array_equal(one.true, other.true)
        assert np.array_equal(one.false, other.false)
    assert all(each.statement.holds(Boxes(each.true)) and not each.statement.holds(Boxes(each.false)) for each in more)
    with pytest.raises(ValueError, match="3 statements about 0 scenes"):
        next(write_statements([], 3, 0))
    with pytest.raises(ValueError, match=r"no statement of level .* expected scenes that differ; got 1"):
        next(write_statements([tower("y", "y", "y")], 1, 0, "words"))


@pytest.mark.skipif(
    not (Path(os.environ.get("MMPT_TEST_DATA", "")) / "nlvr").is_dir(),
    reason="MMPT_TEST_DATA has no folder nlvr; examples/nlvr/README.md tells how to make it",
)
def test_the_real_corpus_is_read_whole_and_statements_agree_with_people() -> None:
    splits, class_names = read_corpus(Path(os.environ["MMPT_TEST_DATA"]) / "nlvr")
    assert (len(splits["train"]), len(splits["dev"]), len(class_names)) == (12410, 989, 9)
    assert [len(true_pairs(splits[name])) for name in ("train", "dev")] == [6996, 547]
    agreed = [
        truth == bool(example.label)
        for example in splits["train"]
        if (truth := evaluate(example.text.lower().strip(" ."), example.scene)) is not None
    ]
    assert len(agreed) > 2000
    assert np.mean(agreed) > 0.92  # a rater a row: people disagree too
