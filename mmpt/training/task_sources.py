"""The data of a downstream task, opened: tables joined with regions, and the facts a model needs of them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from mmpt.configuration.errors import MmptError, MmptValueError
from mmpt.processing.generated_scenes.scenes import render
from mmpt.processing.generated_scenes.tasks import SceneTask
from mmpt.processing.pairs.image_names import ENDING, read_pairs
from mmpt.processing.region_extraction.image_sources import open_images
from mmpt.processing.regions import Regions
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.recipe.recipe import DataSection
from mmpt.tasks.table import TASKS

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("text", "text_pair", "choices")

Picture = Callable[[str], Image.Image | None]
"""The image of an id, or None where only its regions are known."""


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
    return TaskTable(dataset, opened.class_names, no_picture if images is None else Pictures(images))


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


def no_picture(image_id: str) -> None:
    """Return nothing: the source has regions, and no images."""


class Pictures:
    """The images that a store's regions were found in, by id.

    Args:
        source: what `mmpt extract --images` was given: a folder, a table of files, or a saved dataset.

    Raises:
        FileNotFoundError, ValueError: if it holds no images.
    """

    def __init__(self, source: str) -> None:
        self._images = open_images(source)
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
