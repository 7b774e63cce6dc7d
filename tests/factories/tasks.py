"""Tables, regions, models and collators of every downstream task, small enough to be looked at."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from mmpt.configuration.configuration_mmpt import MmptConfig, MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.modeling_mmpt.task_base import MmptTaskModel
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.regions import Regions
from mmpt.processing.store.writer import RegionStoreWriter
from mmpt.processing.tasks.collator import TaskDataCollator
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.tasks.table import TASKS
from tests.factories.examples import CLASSES, FEATURE, TOKENIZER, WORDS, random_regions

SIZE = (200, 100)
IMAGES = 6
TEXTS = ("red star", "a small blue dog", "the ring near the star", "big green dog", "blue", "dog above the small ring")


def images() -> dict[str, Regions]:
    """Six images of one to four regions, 200 x 100 pixels."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5, IMAGES).tolist()
    return {
        f"image-{i}": random_regions(count, seed=i, image_id=f"image-{i}", width=SIZE[0], height=SIZE[1])
        for i, count in enumerate(counts)
    }


def table(name: str, rows: int = 6) -> Dataset:
    """A table with the columns of a task; every image and every text comes once in six rows."""
    numbers = [row % IMAGES for row in range(rows)]
    columns: dict[str, Any] = {
        "text": [TEXTS[i] for i in numbers],
        "image_id": [f"image-{i}" for i in numbers],
        "question_id": [f"q{row}" for row in range(rows)],
    }
    regions = images()
    boxes = [(regions[f"image-{i}"].boxes[0] * [*SIZE, *SIZE]).tolist() for i in numbers]
    texts = columns["text"]
    phrases = [
        [{"text": t, "start": 0, "end": len(t), "entity_id": "0", "types": ["thing"], "boxes": [box]}]
        for t, box in zip(texts, boxes, strict=True)
    ]
    answers = [[WORDS[i % 3]] * 6 + [WORDS[3]] * 4 for i in numbers]
    of_task = {
        "vqa": {"answers": answers, "answer_scores": [[1.0] * 10] * rows},
        "classification": {"label": [i % 3 for i in numbers]},
        "entailment": {"label": [i % 3 for i in numbers]},
        "statements": {"label": [i % 2 for i in numbers]},
        "nlvr2": {
            "label": [i % 2 for i in numbers],
            "second_image_id": [f"image-{(i + 1) % IMAGES}" for i in numbers],
        },
        "multiple_choice": {"choices": [["red", "a blue star", "dog"]] * rows, "label": [i % 3 for i in numbers]},
        "grounding": {"box": boxes},
        "phrases": {"phrases": phrases},
        "retrieval": {},
    }
    return Dataset.from_dict(columns | of_task[name])


def dataset(name: str, rows: int = 6) -> TaskDataset:
    return TaskDataset(table(name, rows), images(), TASKS[name].columns)


def config(name: str, stream: str = "single", **fields: Any) -> MmptConfig:
    names = TASKS[name].names
    values: dict[str, Any] = dict(
        vocab_size=len(TOKENIZER),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=24,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.3,
        region_feature_dim=FEATURE,
        objective_weights={},
    )
    if names is not None:
        values["id2label"] = dict(enumerate(names(table(name), 1)))
    if stream == "single":
        return MmptSingleStreamConfig(**(values | fields))
    layers: dict[str, Any] = dict(
        region_num_hidden_layers=1, text_co_attention_layers=[1], region_co_attention_layers=[0]
    )
    return MmptDualStreamConfig(**(values | layers | fields))


def model(name: str, stream: str = "single", **fields: Any) -> MmptTaskModel:
    """A model in evaluation mode, whose weights are large enough that every input matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: Any = TASKS[name].models[stream]
        return made(config(name, stream, **fields)).eval()


def collator(name: str, whole_image_region: bool = False, labels: bool = True, **options: Any) -> TaskDataCollator:
    fields = options.pop("fields", {})
    processor = MmptProcessor(MmptImageProcessor(whole_image_region=whole_image_region), TOKENIZER)
    task = TASKS[name]
    return TaskDataCollator(
        processor, options.pop("config", None) or config(name, **fields), task.inputs,
        task.labels if labels else None, **options,
    )  # fmt: skip


def write_data(folder: Path, name: str, rows: int = 12) -> tuple[Path, Path]:
    """Write a store of the images and a table; return their paths."""
    store, pairs = folder / "store", folder / f"{name}.parquet"
    if not store.exists():
        names = [f"thing {i}" for i in range(CLASSES)]
        with RegionStoreWriter(store, extractor={"name": "random"}, class_names=names) as writer:
            for regions in images().values():
                writer.add(regions)
    table(name, rows).to_parquet(pairs)
    return store, pairs
