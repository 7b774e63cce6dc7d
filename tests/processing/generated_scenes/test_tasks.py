"""Tasks about scenes: every label follows from text and scene, and neither alone tells it."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from scipy.optimize import linear_sum_assignment

from mmpt.processing.annotations.pair_columns import COLUMNS, check_row
from mmpt.processing.generated_scenes.corpus import BOX_JITTER
from mmpt.processing.generated_scenes.scenes import CLASS_NAMES, COLOURS, PLACES, SHAPES, Scene, SceneObject
from mmpt.processing.generated_scenes.tasks import SCENE_TASKS, SceneTask, blind_accuracy
from mmpt.processing.word_tokenizer import build_word_tokenizer

GROUP_ROWS = {
    "vqa": 162,
    "entailment": 9,
    "statements": 8,
    "nlvr2": 8,
    "multiple_choice": 16,
    "grounding": 4,
    "phrases": 3,
    "retrieval": 3,
    "classification": 6,
}
GUESSED = {  # (from text, from image) alone
    "vqa": ((12 / 6 + 12 / 4 + 12 / 9 + 18 / 3) / 54, 12 / 54),
    "entailment": (1 / 3, 1 / 3),
    "statements": (1 / 2, 1 / 2),
    "nlvr2": (1 / 2, 1 / 2),
    "multiple_choice": (1 / 4, 1 / 4),
}
NUMBERS = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4}
COLOUR, SHAPE = "|".join(COLOURS), "|".join(SHAPES)


@pytest.fixture(scope="module")
def tasks() -> dict[str, SceneTask]:
    """Every task with rows of whole groups."""
    sizes = {name: rows * (4 if name == "vqa" else 24) for name, rows in GROUP_ROWS.items()}
    return {name: SceneTask.build(name, size, size // 2, seed=3) for name, size in sizes.items()}


def rows_of(task: SceneTask) -> Iterator[tuple[dict[str, Any], list[Scene]]]:
    """Yield every row with its scenes."""
    for table in (task.train, task.evaluation):
        for row in table:
            assert isinstance(row, dict)
            names = [row[name] for name in ("image_id", "second_image_id") if name in row]
            yield row, [task.scenes[name] for name in names]


# What follows reads the texts, and knows nothing of how they were written.


def meant(phrase: str, scene: Scene) -> list[SceneObject]:
    """Return the objects that a phrase such as "two red circles in the top row" fits."""
    found = re.fullmatch(
        rf"(?:the |a |one |two )?(?:({COLOUR}) )?(?:({SHAPE}|object)s?)(?: in the (top|middle|bottom) row)?"
        r"(?: in the (left|middle|right) column)?",
        phrase,
    )
    assert found, phrase
    colour, shape, row, column = found.groups()
    return [
        item
        for item in scene.objects
        if colour in (None, item.colour)
        and shape in ("object", item.shape)
        and row in (None, ("top", "middle", "bottom")[item.cell // 3])
        and column in (None, ("left", "middle", "right")[item.cell % 3])
    ]


def answer_to(question: str, scene: Scene) -> str:
    if found := re.fullmatch(r"how many (.+) are there", question):
        return ("zero", "one", "two", "three", "four")[len(meant(found[1], scene))]
    patterns = {r"what colour is (.+)": "colour", r"what shape is (.+)": "shape", r"where is (.+)": "place"}
    for pattern, name in patterns.items():
        if found := re.fullmatch(pattern, question):
            (item,) = meant(found[1], scene)
            return getattr(item, name)
    raise AssertionError(question)


def is_true(statement: str, scenes: list[Scene]) -> bool:
    if found := re.fullmatch(r"there is a (.+)", statement):
        return bool(meant(found[1], scenes[0]))
    if found := re.fullmatch(r"there (?:is|are) exactly (\w+) (.+)", statement):
        return len(meant(found[2], scenes[0])) == NUMBERS[found[1]]
    left, right = scenes
    if found := re.fullmatch(r"(both images|exactly one image) (?:have|has) (a .+)", statement):
        number = sum(bool(meant(found[2], scene)) for scene in scenes)
        return number == (2 if found[1] == "both images" else 1)
    if found := re.fullmatch(r"the (left|right) image has (a .+)", statement):
        return bool(meant(found[2], left if found[1] == "left" else right))
    if found := re.fullmatch(r"the (left|right) image has more (.+) than the (left|right) image", statement):
        assert found[1] != found[3]
        more, less = (left, right) if found[1] == "left" else (right, left)
        return len(meant(found[2], more)) > len(meant(found[2], less))
    raise AssertionError(statement)


def relation_to(statement: str, scene: Scene) -> str:
    """Return whether the scene entails the statement, contradicts it, or does not show what it is about."""
    found = re.fullmatch(rf"the ({SHAPE}) is ({COLOUR})|the ({COLOUR}) object is a ({SHAPE})", statement)
    assert found, statement
    shape, colour = found[1] or found[4], found[2] or found[3]
    subjects = [item for item in scene.objects if (item.shape == shape if found[1] else item.colour == colour)]
    if not subjects:
        return "neutral"
    (subject,) = subjects
    return "entailment" if (subject.colour, subject.shape) == (colour, shape) else "contradiction"


def caption_parts(text: str) -> set[tuple[str, str, str]]:
    parts = [part for part in re.split(r" , | and | \.", text) if part]
    found = [
        (re.search(rf"\b({COLOUR})\b", part), re.search(rf"\b({SHAPE})\b", part), re.search("|".join(PLACES), part))
        for part in parts
    ]
    return {(colour[0], shape[0], place[0]) for colour, shape, place in found if colour and shape and place}


def test_answers_are_what_the_scene_answers(tasks):
    task = tasks["vqa"]
    for row, (scene,) in rows_of(task):
        assert (row["answers"], row["answer_scores"]) == ([answer_to(row["text"], scene)], [1.0])
        assert row["answers"][0] in task.labels
    assert len(set(task.labels)) == len(task.labels) == 6 + 4 + 9 + 3


def test_the_right_choice_is_the_answer_and_the_scene_shows_one_other(tasks):
    kinds = Counter()
    for row, (scene,) in rows_of(tasks["multiple_choice"]):
        answer = answer_to(row["text"], scene)
        assert row["choices"][row["label"]] == answer
        name = next(
            name for name in ("colour", "shape", "place") if answer in {getattr(o, name) for o in scene.objects}
        )
        assert len(set(row["choices"])) == 4
        assert len(set(row["choices"]) & {getattr(item, name) for item in scene.objects}) == 2
        kinds[name] += 1
    assert len(set(kinds.values())) == 1
    assert len(kinds) == 3


@pytest.mark.parametrize("name", ["statements", "nlvr2"])
def test_statements_are_as_true_as_their_labels_say(tasks, name):
    for row, scenes in rows_of(tasks[name]):
        assert is_true(row["text"], scenes) == row["label"] == (row["label_name"] == "true"), row


def test_entailment_follows_from_the_scene(tasks):
    names = ("contradiction", "neutral", "entailment")
    assert tasks["entailment"].labels == names
    for row, (scene,) in rows_of(tasks["entailment"]):
        assert row["label_name"] == names[row["label"]] == relation_to(row["text"], scene), row


def test_an_expression_means_one_object_and_the_box_is_its_own(tasks):
    for row, (scene,) in rows_of(tasks["grounding"]):
        (item,) = meant(row["text"], scene)
        assert row["box"] == [item.left, item.top, item.left + item.diameter, item.top + item.diameter]
        assert len(scene.objects) == 4


def test_a_phrase_has_the_boxes_of_all_objects_that_it_fits(tasks):
    plural = 0
    for row, (scene,) in rows_of(tasks["phrases"]):
        boxes = []
        for phrase in row["phrases"]:
            items = meant(phrase["text"], scene)
            assert phrase["boxes"] == [[o.left, o.top, o.left + o.diameter, o.top + o.diameter] for o in items]
            assert len(items) == (2 if phrase["text"].startswith("two ") else 1)
            boxes += phrase["boxes"]
        assert len(row["phrases"]) == len({phrase["entity_id"] for phrase in row["phrases"]}) == 3
        assert len(boxes) == len(scene.objects)  # nothing is left unsaid
        plural += len(boxes) == 4
    assert plural == (len(tasks["phrases"].train) + len(tasks["phrases"].evaluation)) / 2


def test_a_caption_is_true_of_one_scene_of_its_task(tasks):
    task = tasks["retrieval"]
    told = {
        image_id: {(item.colour, item.shape, item.place) for item in scene.objects}
        for image_id, scene in task.scenes.items()
    }
    for row, _ in rows_of(task):
        said = caption_parts(row["text"])
        assert [image_id for image_id, objects in told.items() if said <= objects] == [row["image_id"]]
    captions = Counter(task.evaluation["image_id"])
    assert set(captions.values()) == {3}
    assert len(set(task.evaluation["text"])) == len(task.evaluation)


@pytest.mark.parametrize("name", list(GUESSED))
def test_one_modality_alone_gives_no_more_than_chance(tasks, name):
    for table in (tasks[name].train, tasks[name].evaluation):
        for sees, expected in zip(("text", "image"), GUESSED[name], strict=True):
            assert blind_accuracy(table, sees) == pytest.approx(expected, abs=1e-9), (sees, len(table))


@pytest.mark.parametrize("name", ["entailment", "statements", "nlvr2", "multiple_choice"])
def test_labels_are_equally_frequent(tasks, name):
    for table in (tasks[name].train, tasks[name].evaluation):
        counts = Counter(table["label"])
        assert len(set(counts.values())) == 1
        assert len(counts) == {"entailment": 3, "multiple_choice": 4}.get(name, 2)


def test_each_half_of_a_pair_of_images_tells_nothing_either(tasks):
    for name in ("image_id", "second_image_id"):
        table = tasks["nlvr2"].train
        halves = Dataset.from_dict({"image_id": table[name], "label": table["label"]})
        assert blind_accuracy(halves, "image") == 0.5


def test_every_region_of_a_scene_is_meant_equally_often(tasks):
    assert blind_accuracy(tasks["grounding"].train, "image") == 1 / 4
    # Each phrase stands once in each place of the three captions of its image.
    places: dict[tuple[str, int], set[str]] = {}
    for row, _ in rows_of(tasks["phrases"]):
        for place, phrase in enumerate(row["phrases"]):
            places.setdefault((row["image_id"], place), set()).add(phrase["entity_id"])
    assert set(map(len, places.values())) == {3}


def test_regions_stand_where_the_objects_are_and_in_another_order(tasks):
    for name in ("grounding", "phrases"):
        task = tasks[name]
        same_order = []
        for image_id in list(task.scenes)[:30]:
            scene, regions = task.scenes[image_id], task.regions[image_id]
            distance = np.abs(regions.boxes[:, None] * 120 - scene.boxes[None]).max(-1)
            rows, columns = linear_sum_assignment(distance)
            assert distance[rows, columns].max() <= BOX_JITTER + 1e-3
            assert [CLASS_NAMES[label] for label in regions.labels[rows]] == [
                " ".join(scene.objects[column].composition) for column in columns
            ]
            same_order.append(bool((columns == np.arange(len(columns))).all()))
        assert np.mean(same_order) < 0.5


@pytest.mark.parametrize("name", SCENE_TASKS)
def test_tables_have_the_columns_of_pairs_and_rows_their_ids(tasks, name):
    task = tasks[name]
    for table in (task.train, task.evaluation):
        assert set(table.column_names) <= set(COLUMNS)
        assert len(set(table["question_id"])) == len(table)
        for row in table:
            assert isinstance(row, dict)
            assert None not in row.values()
            check_row(row)


@pytest.mark.parametrize("name", SCENE_TASKS)
def test_no_scene_is_in_both_tables_or_twice(tasks, name):
    task = tasks[name]
    images = [
        {image for column in ("image_id", "second_image_id") if column in t.column_names for image in t[column]}
        for t in (task.train, task.evaluation)
    ]
    assert not images[0] & images[1]
    assert images[0] | images[1] == set(task.scenes) == set(task.found)
    layouts = [frozenset((o.colour, o.shape, o.cell) for o in scene.objects) for scene in task.scenes.values()]
    assert len(set(layouts)) == len(layouts)
    assert all(2 < len(scene.objects) < 5 for scene in task.scenes.values())


@pytest.mark.parametrize("name", SCENE_TASKS)
def test_a_seed_gives_its_rows_and_more_rows_begin_with_the_fewer(name):
    one, again, more, other = (
        SceneTask.build(name, rows, 7, seed=seed) for rows, seed in ((20, 5), (20, 5), (33, 5), (20, 6))
    )
    assert (len(one.train), len(one.evaluation), len(more.train)) == (20, 7, 33)
    assert (one.train.to_dict(), one.evaluation.to_dict()) == (again.train.to_dict(), again.evaluation.to_dict())
    assert more.train.select(range(20)).to_dict() == one.train.to_dict()
    assert one.scenes == again.scenes
    assert all(np.array_equal(one.found[image_id], again.found[image_id]) for image_id in one.found)
    assert not set(map(repr, other.scenes.values())) & set(map(repr, one.scenes.values()))


def test_regions_are_those_of_the_images_asked_about_and_the_same_again(tasks):
    one = SceneTask.build("nlvr2", 8, 8, seed=1)
    again = SceneTask.build("nlvr2", 8, 8, seed=1)
    asked_about = {*one.train["image_id"], *one.evaluation["image_id"]}
    asked_about |= {*one.train["second_image_id"], *one.evaluation["second_image_id"]}
    assert set(one.regions) == asked_about
    for image_id, regions in one.regions.items():
        assert regions.features.shape == (3, one.feature_dim)
        assert regions.class_probs is not None
        assert regions.class_probs.shape == (3, len(one.class_names))
        assert regions.image_id == image_id
        assert again.regions[image_id].features.tobytes() == regions.features.tobytes()


@pytest.mark.parametrize("name", SCENE_TASKS)
def test_a_tokenizer_of_the_texts_knows_every_word_of_the_evaluation(tasks, name):
    task = tasks[name]
    tokenizer = build_word_tokenizer(task.texts)
    texts = list(task.evaluation["text"])
    texts += [choice for choices in task.evaluation.to_dict().get("choices", []) for choice in choices]
    assert tokenizer.unk_token_id not in {token for text in texts for token in tokenizer(text)["input_ids"]}


def test_hints_at_a_class_are_there_or_not_independently():
    task = SceneTask.build("classification", 1200, 6)
    told, shown = [], []
    for row, (scene,) in rows_of(task):
        named = re.findall(COLOUR, row["text"])
        assert named in ([], [row["label_name"]])
        seen = {item.colour for item in scene.objects}
        told.append(bool(named))
        shown.append(seen == {row["label_name"]})
    assert np.mean(told) == pytest.approx(0.7, abs=0.04)
    assert np.mean(shown) == pytest.approx(0.7, abs=0.04)
    assert np.mean(np.logical_or(told, shown)) == pytest.approx(1 - 0.3 * 0.3, abs=0.03)
    assert blind_accuracy(task.train, "text") == pytest.approx(0.7 + 0.3 / 6, abs=0.04)
    assert Counter(task.train["label"]) == dict.fromkeys(range(6), 200)


def test_a_guess_from_text_is_counted_by_hand():
    table = Dataset.from_dict({"text": ["a", "a", "a", "b"], "image_id": ["1", "2", "2", "2"], "label": [0, 1, 1, 0]})
    assert blind_accuracy(table, "text") == (2 + 1) / 4
    assert blind_accuracy(table, "image") == (1 + 2) / 4
    with pytest.raises(ValueError, match="no label to guess, expected one of label, answers, box"):
        blind_accuracy(table.select_columns(["text"]), "text")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "captioning"}, "there is no task 'captioning', expected one of vqa, entailment"),
        ({"train_rows": 0}, "train_rows is 0, expected at least 1"),
        ({"evaluation_rows": -1}, "evaluation_rows is -1, expected at least 1"),
        ({"seed": -3}, "seed is -3, expected 0 or more"),
    ],
)
def test_an_impossible_task_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        SceneTask.build(**{"name": "vqa", "train_rows": 1, "evaluation_rows": 1, **arguments})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": ["red"]}, "choices is .*, expected two texts or more"),
        ({"choices": ["red", " "]}, "choices is .*, expected two texts or more"),
        ({"label": 2}, "label is 2, expected the place of the right one among 2 choices, from 0"),
    ],
)
def test_choices_that_do_not_fit_are_an_error(change, message):
    row = {"text": "what colour is the star", "image_id": "1", "choices": ["red", "blue"], "label": 1}
    check_row(row)
    with pytest.raises(ValueError, match=message):
        check_row(row | change)
