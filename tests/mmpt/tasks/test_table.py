"""The table of tasks: names, predictions, scores, ranking and error analysis."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from datasets import Dataset

from mmpt.configuration.configuration_mmpt import MmptSingleStreamConfig
from mmpt.processing.generated_scenes.tasks import SCENE_TASKS
from mmpt.processing.tasks.collator import without_labels
from mmpt.recipe.task_section import TaskName
from mmpt.tasks.class_names import answer_names, balanced_weights, class_names
from mmpt.tasks.predictions import (
    label_names,
    label_numbers,
    predict_answers,
    predict_classes,
    predict_phrases,
    predict_regions,
)
from mmpt.tasks.table import TASKS, task_of
from mmpt.training.curves import _TASK_METRICS
from tests.factories.tasks import collator, config, dataset, model, table


def test_the_table_is_what_recipes_curves_and_generated_tasks_name() -> None:
    assert set(TASKS) == set(get_args(TaskName))
    assert {task.metric for task in TASKS.values()} <= set(_TASK_METRICS)
    assert set(SCENE_TASKS) <= set(TASKS)
    with pytest.raises(ValueError, match="task is 'vcr', expected one of vqa, "):
        task_of("vcr")


def logits(*values: list[float], **others: Any) -> SimpleNamespace:
    return SimpleNamespace(logits=torch.tensor(values), decision_weights=None, **others)


def test_a_class_is_named_with_its_probability() -> None:
    output = logits([0.0, 0.0], [0.0, torch.log(torch.tensor(3.0)).item()])
    found = predict_classes(output, {}, config("statements"))
    assert [each["prediction"] for each in found] == ["false", "true"]
    assert [each["confidence"] for each in found] == pytest.approx([0.5, 0.75])


def test_more_than_ten_names_keep_their_numbers_when_they_are_saved(tmp_path: Path) -> None:
    saved = config("vqa", id2label={number: f"answer {number}" for number in range(12)})
    saved.save_pretrained(tmp_path)
    loaded = MmptSingleStreamConfig.from_pretrained(tmp_path)
    assert label_names(loaded) == [f"answer {number}" for number in range(12)]
    assert label_numbers(loaded)["answer 10"] == 10


def test_an_answer_has_the_probability_that_its_loss_gives_it() -> None:
    output = logits([0.0, 2.0, 0.0])
    names = {"id2label": {0: "a", 1: "b", 2: "c"}}
    (alone,) = predict_answers(output, {}, config("vqa", **names))
    (among,) = predict_answers(output, {}, config("vqa", answer_loss="kl", **names))
    assert alone["prediction"] == among["prediction"] == "b"
    assert alone["confidence"] == pytest.approx(torch.sigmoid(torch.tensor(2.0)).item())
    assert among["confidence"] == pytest.approx(torch.tensor([0.0, 2.0, 0.0]).softmax(0)[1].item())


@pytest.mark.parametrize(("fusion", "who"), [("late", ["text", "regions"]), ("hybrid", ["both", "text", "regions"])])
def test_late_predictions_are_listed_per_modality(fusion: str, who: list[str]) -> None:
    task_model, rows = model("entailment", fusion=fusion), dataset("entailment")
    batch = without_labels(collator("entailment", config=task_model.config))([rows[0], rows[1]])
    batch.pop("rows")
    with torch.no_grad():
        output = task_model(**batch)
    first = predict_classes(output, batch, task_model.config)[0]
    assert list(first["decisions"]) == who
    assert sum(said["weight"] for said in first["decisions"].values()) == pytest.approx(1.0, abs=1e-5)
    text = first["decisions"]["text"]
    assert text["confidence"] == pytest.approx(output.text_logits[0].softmax(-1).max().item())


def test_only_candidates_are_predicted() -> None:
    batch = {
        "candidates": torch.tensor([[False, True, True], [False, False, False]]),
        "candidate_boxes": torch.tensor([[[0.0] * 4, [1.0, 2, 3, 4], [5.0, 6, 7, 8]], [[0.0] * 4] * 3]),
    }
    found = predict_regions(logits([9.0, 1.0, 2.0], [9.0, 1.0, 2.0]), batch, config("grounding"))
    assert found[0]["prediction"] == [5.0, 6.0, 7.0, 8.0]
    assert found[0]["region"] == 2
    assert found[0]["confidence"] == pytest.approx(torch.tensor([1.0, 2.0]).softmax(0)[1].item())
    assert found[1] == {"prediction": None, "confidence": 0.0, "region": None}


def test_a_phrase_that_was_cut_off_has_no_box() -> None:
    batch = {
        "candidates": torch.tensor([[True, True]]),
        "candidate_boxes": torch.tensor([[[0.0, 0, 1, 1], [2.0, 2, 3, 3]]]),
        "phrase_positions": torch.tensor([[1, -100]]),
    }
    (found,) = predict_phrases(logits([[0.0, 1.0], [0.0, 1.0]]), batch, config("phrases"))
    assert found["prediction"] == [[2.0, 2.0, 3.0, 3.0], None]


def perfect(name: str) -> list[dict[str, Any]]:
    """Return the predictions of a model that is always right on the table of a task."""
    rows = table(name)
    if name == "vqa":
        return [{"prediction": answers[0], "confidence": 1.0} for answers in rows["answers"]]
    if name == "grounding":
        return [{"prediction": box, "confidence": 1.0} for box in rows["box"]]
    if name == "phrases":
        return [{"prediction": [p["boxes"][0] for p in ps] + [None], "confidence": 1.0} for ps in rows["phrases"]]
    if name == "retrieval":
        scores = [[float(i == j) for j in range(len(rows))] for i in range(len(rows))]
        return [
            {"prediction": i, "confidence": 1.0, "scores": s} for i, s in zip(rows["image_id"], scores, strict=True)
        ]
    names = list(config(name).id2label.values())  # type: ignore[union-attr]
    choice = name == "multiple_choice"
    return [{"prediction": i if choice else names[i], "number": i, "confidence": 1.0} for i in rows["label"]]


@pytest.mark.parametrize("name", TASKS)
def test_a_perfect_prediction_scores_one_and_a_wrong_row_is_counted_and_assessed(name: str) -> None:
    rows, found, task = dataset(name), perfect(name), TASKS[name]
    numbers = {label: i for i, label in config(name).id2label.items()}  # type: ignore[union-attr]
    right = task.score(found, rows, numbers)
    assert right[task.metric] == 1
    assert all(task.assess(each, row, rows, numbers).right for row, each in enumerate(found))
    other = found[1] | {key: found[0][key] for key in found[0] if key != "confidence"}
    wrong = task.score([found[0], other, *found[2:]], rows, numbers)
    assert wrong[task.metric] == pytest.approx(5 / 6, abs=0.06)  # VQA gives an answer of four people something
    judged = task.assess(other, 1, rows, numbers)
    assert not judged.right
    assert judged.gold != ""


def test_ranking_scores_every_text_with_every_image_as_the_model_does_one_by_one() -> None:
    rows, task_model = dataset("retrieval"), model("retrieval")
    collate = without_labels(collator("retrieval", config=task_model.config))

    def forward(batch: dict[str, torch.Tensor]) -> Any:
        with torch.no_grad():
            return task_model(**batch)

    rank = TASKS["retrieval"].rank
    assert rank is not None
    ranked = rank(forward, collate, rows, 5)
    halves = rank(forward, collate, rows, 5, (0, 2)) | rank(forward, collate, rows, 5, (1, 2))
    for row in range(len(rows)):
        for place in range(len(rows)):
            batch = collate([rows[row] | {"regions": rows[place]["regions"]}])
            batch.pop("rows")
            assert ranked[row]["scores"][place] == pytest.approx(forward(batch).logits.item(), abs=1e-4)
        assert halves[row]["scores"] == pytest.approx(ranked[row]["scores"], abs=1e-4)
        best = max(range(len(rows)), key=lambda place: ranked[row]["scores"][place])
        assert ranked[row]["prediction"] == rows.column("image_id")[best] == ranked[row]["ranked"][0]


def test_names_come_from_the_training_table() -> None:
    # "star" is an answer to all six questions, "red", "blue" and "green" to two each.
    assert answer_names(table("vqa"), 1) == ["star", "blue", "green", "red"]
    assert answer_names(table("vqa"), 3) == ["star"]
    broken = Dataset.from_dict({"answers": [["a cat\n", "a\r\ncat"], ["a\tcat"], ["dog"]]})
    assert answer_names(broken, 1) == ["a cat", "dog"]
    with pytest.raises(ValueError, match="no answer occurs in 99 questions or more"):
        answer_names(table("vqa"), 99)
    assert class_names(table("classification"), 1) == ["0", "1", "2"]
    named = table("statements").add_column("label_name", ["no", "yes"] * 3)  # type: ignore[call-arg]
    assert class_names(named, 1) == ["no", "yes"]
    twice = table("statements").add_column("label_name", ["no", "yes", "nay", "yes", "no", "yes"])  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="label 0 is named 'no' and 'nay'"):
        class_names(twice, 1)


def test_balanced_weights_give_every_class_the_same_sum() -> None:
    assert balanced_weights([0, 0, 0, 1], 2) == pytest.approx([4 / 6, 2.0])
    with pytest.raises(ValueError, match="class 1 has no row"):
        balanced_weights([0, 2], 3)
