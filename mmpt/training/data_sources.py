"""The data section of a recipe, opened: pairs to train and to evaluate on, and the facts a model needs of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmpt.processing.generated_scenes.corpus import GeneratedScenes
from mmpt.processing.generated_scenes.texts import ATTRIBUTE_WORDS
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.pairs.image_names import read_pairs
from mmpt.processing.regions import Regions
from mmpt.processing.store.region_store import RegionStore
from mmpt.recipe.recipe import DataSection, GeneratedSource


@dataclass
class Corpus:
    """What a recipe trains on.

    Args:
        texts: every training text, for a tokenizer that is built from them.
        facts: fields of the configuration that the data decides.
        attribute_words: words whose accuracy measures grounding, with their kind; empty where the corpus has none.
        compositions: pairs with attributes together that training never shows together, to measure grounding on too.
        hard_negatives: evaluation pairs with one kind of hard negative, by the kind's name.
    """

    train: PairDataset
    evaluation: PairDataset | None
    texts: Sequence[str]
    facts: dict[str, Any]
    attribute_words: Mapping[str, str] = field(default_factory=dict)
    compositions: PairDataset | None = None
    hard_negatives: dict[str, PairDataset] = field(default_factory=dict)


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
    texts = [*pairs["text"]]
    if "text_pair" in pairs.column_names:
        texts += [text for text in pairs["text_pair"] if text is not None]
    if "hard_negative_texts" in pairs.column_names:
        texts += [text for false in pairs["hard_negative_texts"] for text in false or ()]
    return Corpus(train=PairDataset(pairs, store), evaluation=evaluation, texts=texts, facts=facts)


def _background(store: RegionStore) -> dict[str, Any]:
    """Return where the background is among the store's classes, if the store tells."""
    space = store.extractor.get("label_space", "no_background" if "backend" in store.extractor else None)
    return {"region_background_class": 0 if space == "background_first" else None} if space else {}


def _class_facts(feature_dim: int, classes: int) -> dict[str, Any]:
    """The corpora of this package have classes without a background among them."""
    return {"region_feature_dim": feature_dim, "num_region_classes": classes, "region_background_class": None}
