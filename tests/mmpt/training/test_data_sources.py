"""The data section opened: generated scenes whose regions come from a store."""

from pathlib import Path

import numpy as np
import pytest

from mmpt.processing.generated_scenes.corpus import GeneratedScenes
from mmpt.processing.pairs.dataset import MissingRegionsError
from mmpt.processing.regions import Regions
from mmpt.processing.store.writer import RegionStoreWriter
from mmpt.recipe.sections import DataSection, GeneratedSource
from mmpt.training.data_sources import open_corpus

FEATURE_DIM, CLASSES = 5, 3


def store_of(folder: Path, scenes: GeneratedScenes, leave_out: str = "", classes: int | None = CLASSES) -> str:
    """Write random regions of the scenes' images, one to four each, and return the store's folder."""
    rng = np.random.default_rng(0)
    with RegionStoreWriter(folder / "store", extractor={"name": "random"}) as writer:
        for image_id in scenes.scenes:
            if image_id == leave_out:
                continue
            count = int(rng.integers(1, 5))
            boxes = np.tile(np.asarray([0.1, 0.1, 0.5, 0.5], dtype=np.float32), (count, 1))
            probs = None if classes is None else np.full((count, classes), 1 / classes, dtype=np.float32)
            features = rng.normal(size=(count, FEATURE_DIM)).astype(np.float32)
            writer.add(Regions(features, boxes, class_probs=probs, image_id=image_id))
    return str(folder / "store")


@pytest.fixture(scope="module")
def scenes() -> GeneratedScenes:
    return GeneratedScenes.build(8, 4, seed=0)


def source(store: str | None) -> DataSection:
    return DataSection(generated=GeneratedSource(train_scenes=8, eval_scenes=4, region_store=store))


def test_generated_scenes_keep_their_texts_and_take_regions_and_facts_from_a_store(
    tmp_path: Path, scenes: GeneratedScenes
) -> None:
    drawn, found = open_corpus(source(None)), open_corpus(source(store_of(tmp_path, scenes)))
    assert found.texts == drawn.texts
    assert found.attribute_words == drawn.attribute_words
    assert found.facts == {
        "region_feature_dim": FEATURE_DIM,
        "num_region_classes": CLASSES,
        "region_background_class": None,
    }
    assert drawn.evaluation is not None
    assert found.compositions is not None
    pairs = [found.train, found.evaluation, found.compositions, *found.hard_negatives.values()]
    assert [len(table) for table in pairs if table is not None] == [
        len(table) for table in (scenes.train, scenes.evaluation, scenes.compositions, scenes.changed, scenes.swapped)
    ]
    assert found.train.regions_of(0).feature_dim == FEATURE_DIM
    assert found.train[0]["text"] == drawn.train[0]["text"]


def test_a_store_without_classes_switches_the_region_classifier_off(tmp_path: Path, scenes: GeneratedScenes) -> None:
    corpus = open_corpus(source(store_of(tmp_path, scenes, classes=None)))
    assert corpus.facts["num_region_classes"] == 0


@pytest.mark.parametrize("image_id", ["train-000000", "evaluation-000001", "compositions-000002"])
def test_a_store_without_an_image_is_refused(tmp_path: Path, scenes: GeneratedScenes, image_id: str) -> None:
    with pytest.raises(MissingRegionsError) as caught:
        open_corpus(source(store_of(tmp_path, scenes, leave_out=image_id)))
    assert caught.value.missing_ids == [image_id]


def test_a_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_corpus(source(str(tmp_path / "nowhere")))
