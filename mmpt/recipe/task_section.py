"""The task section of a recipe: what is fine-tuned for, and how."""

from dataclasses import dataclass
from typing import Any, Literal

TaskName = Literal[
    "vqa", "classification", "entailment", "statements", "nlvr2", "multiple_choice", "grounding", "phrases", "retrieval"
]


@dataclass
class TaskSection:
    """What a model is fine-tuned for.

    Args:
        name: a row of the table of tasks, `mmpt.tasks.table`.
        blank: a modality that the model is not to see, in training and evaluation: what it reaches without tells how
            much of the task the other one gives away.
        layer_lr_decay: factor of the learning rate for each level below the head; 1 is the same rate everywhere.
        head_lr_factor: factor of the learning rate of what is new on top of the backbone.
        freeze: "backbone", "embeddings", or a number of levels from the embeddings (0) up; null trains everything.
        label_smoothing: share of a class label that is spread over all classes.
        class_weights: a weight for each class, or "balanced": rows / (classes * rows of the class).
        min_answer_count: rarer answers of the training questions are no answers of the model; 9 is usual for VQA v2.
        early_stopping_patience: evaluations without a better metric after which training stops; the best checkpoint
            is then what is saved.
        gallery: how many wrong predictions of the evaluation rows are drawn; 0 draws none.
    """

    name: TaskName
    blank: Literal["text", "regions"] | None = None
    layer_lr_decay: float = 1.0
    head_lr_factor: float = 1.0
    freeze: Literal["backbone", "embeddings"] | int | None = None
    label_smoothing: float = 0.0
    class_weights: Literal["balanced"] | list[float] | None = None
    min_answer_count: int = 1
    early_stopping_patience: int | None = None
    gallery: int = 0


@dataclass
class SceneTaskSource:
    """Examples of the task about scenes of shapes, which the package makes itself."""

    train_rows: int = 4000
    evaluation_rows: int = 512
    seed: int = 0


def task_ranges(task: TaskSection, scene_task: SceneTaskSource | None) -> list[tuple[str, Any, float, float | None]]:
    """Return (key, value, lowest, highest) of the numbers of a task; a highest of None is no bound."""
    ranges: list[tuple[str, Any, float, float | None]] = [
        ("task.layer_lr_decay", task.layer_lr_decay, 0, 1),
        ("task.head_lr_factor", task.head_lr_factor, 0, None),
        ("task.label_smoothing", task.label_smoothing, 0, 0.99),
        ("task.min_answer_count", task.min_answer_count, 1, None),
        ("task.early_stopping_patience", task.early_stopping_patience, 1, None),
        ("task.gallery", task.gallery, 0, None),
    ]
    if scene_task is not None:
        ranges += [
            ("data.scene_task.train_rows", scene_task.train_rows, 1, None),
            ("data.scene_task.evaluation_rows", scene_task.evaluation_rows, 1, None),
            ("data.scene_task.seed", scene_task.seed, 0, None),
        ]
    return ranges
