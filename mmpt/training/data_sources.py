"""Load the data a recipe names: pairs or task tables joined with regions, and the model's fields that follow."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from mmpt.configuration.errors import MmptError, MmptValueError
from mmpt.processing.generated_scenes.corpus import GeneratedScenes
from mmpt.processing.generated_scenes.scenes import render
from mmpt.processing.generated_scenes.tasks import SceneTask
from mmpt.processing.generated_scenes.texts import ATTRIBUTE_WORDS
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.pairs.image_names import ENDING, read_pairs
from mmpt.processing.region_extraction.image_sources import open_images
from mmpt.processing.regions import Regions
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.recipe.sections import DataSection, GeneratedSource
from mmpt.tasks.table import TASKS

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("text", "text_pair", "hard_negative_texts", "choices")

Picture = Callable[[str], Image.Image | None]
"""The image of an id, or None where only its regions are known."""


def no_picture(image_id: str) -> None:
    """Return nothing: the source has regions, and no images."""


@dataclass
class Corpus:
    """What a recipe trains on.

    Args:
        texts: every training text, for a tokenizer that is built from them.
        facts: fields of the configuration that the data decides.
        attribute_words: words whose accuracy measures grounding, with their kind; empty where the corpus has none.
        compositions: pairs with attributes together that training never shows together, to measure grounding on too.
        hard_negatives: evaluation pairs with one kind of hard negative, by the kind's name.
        picture: the image of an id, or None where only its regions are known.
    """

    train: PairDataset
    evaluation: PairDataset | None
    texts: Sequence[str]
    facts: dict[str, Any]
    attribute_words: Mapping[str, str] = field(default_factory=dict)
    compositions: PairDataset | None = None
    hard_negatives: dict[str, PairDataset] = field(default_factory=dict)
    picture: Picture = no_picture


def open_corpus(data: DataSection) -> Corpus:
    """Return the corpus that the section names.

    Raises:
        FileNotFoundError: if a file or folder is not there.
        ValueError: if a table lacks a column, or names images that the store does not have.
    """
    if data.generated is not None:
        return _generated(data.generated)
    return _store(data)


def _generated(source: GeneratedSource) -> Corpus:
    arguments = asdict(source)
    store_path = arguments.pop("region_store")
    scenes = GeneratedScenes.build(**arguments)
    regions: Mapping[str, Regions]
    if store_path is None:
        regions, facts = scenes.regions, _class_facts(scenes.feature_dim, len(scenes.class_names))
    else:
        regions = store = RegionStore.open(Path(store_path))
        facts = _class_facts(store.feature_dim, store.num_classes or 0)
    return Corpus(
        train=PairDataset(scenes.train, regions),
        evaluation=PairDataset(scenes.evaluation, regions, for_evaluation=True),
        texts=scenes.texts,
        facts=facts,
        attribute_words=ATTRIBUTE_WORDS,
        compositions=PairDataset(scenes.compositions, regions, for_evaluation=True),
        hard_negatives={
            "changed": PairDataset(scenes.changed, regions, for_evaluation=True),
            "swapped": PairDataset(scenes.swapped, regions, for_evaluation=True),
        },
        picture=lambda image_id: render(scenes.scenes[image_id]),
    )


def _store(data: DataSection) -> Corpus:
    store = RegionStore.open(Path(str(data.store)))
    pairs = read_pairs(str(data.pairs), store, **data.reading())
    facts: dict[str, Any] = {"region_feature_dim": store.feature_dim}
    if store.num_classes:
        facts |= {"num_region_classes": store.num_classes} | _background(store)
    evaluation = None
    if data.eval_pairs is not None:
        eval_pairs = read_pairs(data.eval_pairs, store, **data.reading(evaluation=True))
        evaluation = PairDataset(eval_pairs, store, for_evaluation=True)
    return Corpus(train=PairDataset(pairs, store), evaluation=evaluation, texts=texts_of(pairs), facts=facts)


def _background(store: RegionStore) -> dict[str, Any]:
    """Return where the background is among the store's classes, if the store tells."""
    space = store.extractor.get("label_space", "no_background" if "backend" in store.extractor else None)
    return {"region_background_class": 0 if space == "background_first" else None} if space else {}


def _class_facts(feature_dim: int, classes: int) -> dict[str, Any]:
    """The corpora of this package have classes without a background among them."""
    return {"region_feature_dim": feature_dim, "num_region_classes": classes, "region_background_class": None}


@dataclass
class TaskTable:
    """A table of a task, and what its gallery shows.

    Args:
        class_names: names of the regions' classes, where they are known.
    """

    dataset: TaskDataset
    class_names: Sequence[str] | None
    picture: Picture


@dataclass
class TaskCorpus:
    """What a task is learnt and measured on.

    Args:
        texts: every training text, for a tokenizer that is built from them.
        facts: fields of the configuration that the data decides.
    """

    train: TaskDataset
    evaluation: TaskTable | None
    texts: Sequence[str]
    facts: dict[str, Any]


def open_task_corpus(data: DataSection, name: str) -> TaskCorpus:
    """Return the corpus that the section names, for the task of this name.

    Raises:
        FileNotFoundError: if a file or folder is not there.
        ValueError: if a table lacks what the task needs, or names images that have no regions.
    """
    if data.scene_task is not None:
        task = SceneTask.build(name, **asdict(data.scene_task))
        texts = [*task.texts, *texts_of(task.train)]
        train = join(task.train, task.regions, name)
        return TaskCorpus(train, _scenes(task, name), texts, {"region_feature_dim": task.feature_dim})
    train = store_table(str(data.pairs), str(data.store), name=name, **data.reading()).dataset
    evaluation = None
    if data.eval_pairs is not None:
        evaluation = store_table(
            data.eval_pairs, str(data.store), name=name, images=data.images, **data.reading(evaluation=True)
        )
    store: Any = train.regions
    return TaskCorpus(train, evaluation, texts_of(train.table), {"region_feature_dim": store.feature_dim})


def evaluation_table(data: DataSection, name: str) -> TaskTable:
    """Return the evaluation rows of the corpus that the section names.

    Raises:
        FileNotFoundError, ValueError: as `open_task_corpus`, and if there are none.
    """
    if data.scene_task is not None:
        return _scenes(SceneTask.build(name, **asdict(data.scene_task)), name)
    if data.eval_pairs is None:
        raise MmptValueError("the recipe has no data.eval_pairs; give --pairs and --store")
    return _evaluation_pairs(data, data.eval_pairs, name)


def store_table(
    pairs: str,
    store: str,
    format: str | None,
    name: str,
    with_labels: bool = True,
    images: str | None = None,
    **reading: Any,
) -> TaskTable:
    """Return a table or an annotation file joined with a store.

    Args:
        format: one of `ANNOTATION_FORMATS`; the content tells by default.
        name: of the task.
        with_labels: whether every row must have what the task is scored against.
        images: what the store was extracted from, for the gallery; boxes are drawn on empty sheets without.
        reading: options of `read_annotations`.

    Raises:
        FileNotFoundError: if a file or folder is not there.
        ValueError: if the table lacks what the task needs, or names images that are not in the store.
    """
    opened = RegionStore.open(Path(store))
    dataset = join(read_pairs(pairs, opened, format, **reading), opened, name, with_labels)
    return TaskTable(
        dataset, opened.class_names, no_picture if images is None else Pictures(images, reading.get("encoding"))
    )


def join(table: datasets.Dataset, regions: Mapping[str, Regions], name: str, with_labels: bool = True) -> TaskDataset:
    """Return a table with the regions of its images, checked for what the task of this name reads.

    Args:
        with_labels: also for what it learns from.

    Raises:
        ValueError: if a column is not there, or null in a row.
    """
    task = TASKS[name]
    return TaskDataset(table, regions, (*task.columns, *(task.label_columns if with_labels else ())))


def texts_of(table: datasets.Dataset) -> list[str]:
    """Return every text of a table."""
    texts: list[str] = []
    for name in TEXT_COLUMNS:
        for value in table[name] if name in table.column_names else ():
            texts += [value] if isinstance(value, str) else value or []
    return texts


def _evaluation_pairs(data: DataSection, pairs: str, name: str) -> TaskTable:
    reading = data.reading(evaluation=True)
    return store_table(pairs, str(data.store), name=name, images=data.images, **reading)


def _scenes(task: SceneTask, name: str) -> TaskTable:
    dataset = join(task.evaluation, task.regions, name)
    return TaskTable(dataset, task.class_names, lambda image_id: render(task.scenes[image_id]))


class Pictures:
    """The images that a store's regions were found in, by id.

    Args:
        source: what `mmpt extract --images` was given: a folder, a table of files, or a saved dataset.
        encoding: that of a table in CSV.

    Raises:
        FileNotFoundError, ValueError: if it holds no images.
    """

    def __init__(self, source: str, encoding: str | None = None) -> None:
        self._images = open_images(source, encoding=encoding)
        self._positions = {image_id: position for position, image_id in enumerate(self._images.ids)}

    def __call__(self, image_id: str) -> Image.Image | None:
        """Return the image of an id, or None where it is not there or cannot be read."""
        position = self._positions.get(image_id)
        position = self._positions.get(ENDING.sub("", image_id)) if position is None else position
        try:
            return None if position is None else self._images[position].load()
        except (MmptError, OSError) as error:
            logger.warning("image %s is not shown: %s", image_id, error)
            return None
