"""Write NLVR v1 as region stores and pair tables, which the commands of mmpt train, evaluate and predict on.

python -m examples.nlvr.prepare data/nlvr runs/nlvr/data

regions/              objects and grey boxes of every scene; features looked up by colour, shape and size
pixels/               the same for the images of the corpus, features from the pixels of each image
captions/             the objects of these images with class probabilities, boxes in the whole image
words.parquet         statements with computed truth, to pre-train on; so are simple.parquet and all.parquet
captions.parquet      the training sentences, each with the images that it is true of
sentences.parquet     the training sentences, true and false; augmented.parquet has changed copies of them
mixed.parquet         augmented.parquet, then statements with computed truth, true and false
dev.parquet           the sentences of a split, true and false; dev_pairs.parquet has the true ones
tokenizer/            the words of words.parquet and of the training sentences
images/               pictures of the scenes that are evaluated on
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from examples.nlvr.augmentation import augment
from examples.nlvr.corpus import (
    Example,
    fit_prototypes,
    hold_out,
    measured_regions,
    read_corpus,
    true_pairs,
    whole_image_regions,
)
from examples.nlvr.pictures import draw_scene
from examples.nlvr.scenes import Scene, look_up, regions_of
from examples.nlvr.statements import Level, write_statements
from mmpt.commands.errors import clear_errors
from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.pair_writing import write_pairs
from mmpt.processing.regions import Regions
from mmpt.processing.store.writer import RegionStoreWriter
from mmpt.processing.word_tokenizer import build_word_tokenizer

PRE_TRAINING_SEED, MIXED_SEED = 0, 1  # fine-tuning has other statements than pre-training
EXTRACTOR = {"corpus": "nlvr"}
WHOLE_IMAGE = EXTRACTOR | {"boxes": "whole image", "label_space": "no_background"}
ORIGIN = {"source": "https://github.com/lil-lab/nlvr", "licence": "CC-BY-4.0"}
TRUTH = ("false", "true")


class Sizes(NamedTuple):
    """How much is written.

    Args:
        words: statements of words.parquet; simple and all likewise.
        mixed: statements behind the sentences of mixed.parquet, each with a true and a false row.
        copies: of each training sentence in augmented.parquet.
    """

    words: int = 50_000
    simple: int = 50_000
    all: int = 80_000
    mixed: int = 60_000
    copies: int = 8


class SceneImages:
    """Writes the regions of scenes into a store, each scene of training once."""

    def __init__(self, writer: RegionStoreWriter, prototypes: NDArray[np.float32]) -> None:
        self._writer, self._prototypes = writer, prototypes
        self._ids: dict[bytes, str] = {}

    def add(self, scene: Scene, image_id: str) -> None:
        """Add a scene under this id."""
        self._writer.add(regions_of(scene, look_up(self._prototypes, scene, image_id), image_id))

    def id_of(self, scene: Scene, image_id: str) -> str:
        """Return the id of a training scene, which is added under this one if it is new."""
        known = self._ids.setdefault(scene.tobytes(), image_id)
        if known == image_id:
            self.add(scene, image_id)
        return known


class Row(NamedTuple):
    """A row of a table of sentences that are true or false; `name` is what it is called by."""

    text: str
    image_id: str
    label: int
    group: str
    name: str


def prepare(source: Path, target: Path, sizes: Sizes, held_out: bool = False) -> None:
    """Write stores and tables; see the top of the file.

    Args:
        source: folder of `<split>-*.parquet`.
        held_out: keep a tenth of the training groups out of every training table, for held_out.parquet.

    Raises:
        FileNotFoundError: if the source lacks train or dev.
        FileExistsError: if the target has a store already.
        ValueError: if a size is negative, or an object of a scene is of a kind that none of the first images shows.
    """
    if min(sizes) < 0:
        raise MmptValueError(f"sizes are {sizes._asdict()}, expected 0 or more of each")
    with RegionStoreWriter(target / "regions", extractor=EXTRACTOR, origin=ORIGIN) as writer:
        splits, class_names = read_corpus(source)
        everything = [example for examples in splits.values() for example in examples]
        whole = train = splits.pop("train")
        if held_out:
            train, splits["held_out"] = hold_out(whole)
        _write_store(target / "pixels", measured_regions(everything), EXTRACTOR)
        objects = whole_image_regions(everything, whole, len(class_names))
        _write_store(target / "captions", objects, WHOLE_IMAGE, class_names)
        images = SceneImages(writer, fit_prototypes(whole))
        for example in train:
            if images.id_of(example.scene, example.image_id) != example.image_id:
                images.add(example.scene, example.image_id)  # the corpus has scenes twice
        _write_training(target, train, images, sizes)
        _write_evaluation(target, splits, images)


def _write_store(
    path: Path, regions: Iterable[Regions], extractor: dict[str, Any], class_names: Sequence[str] | None = None
) -> None:
    with RegionStoreWriter(path, extractor=extractor, class_names=class_names, origin=ORIGIN) as writer:
        for each in regions:
            writer.add(each)


def _write_training(target: Path, train: list[Example], images: SceneImages, sizes: Sizes) -> None:
    scenes = [example.scene for example in train]
    texts = [example.text for example in train]
    for level in get_args(Level):
        count = getattr(sizes, level)
        if count:
            table = _statement_pairs(scenes, count, level, images)
            write_pairs(table, target / f"{level}.parquet")
            texts += table["text"] if level == "words" else []
    build_word_tokenizer(texts).save_pretrained(target / "tokenizer")
    write_pairs(true_pairs(train), target / "captions.parquet")
    _write_rows(target / "sentences.parquet", _sentences(train))
    augmented = [*_augmented(train, sizes.copies, images.id_of)] or [*_sentences(train)]
    _write_rows(target / "augmented.parquet", augmented)
    first = 1 + max(example.group for example in train)
    _write_rows(target / "mixed.parquet", [*augmented, *_statement_rows(scenes, sizes.mixed, first, images.id_of)])


def _write_evaluation(target: Path, splits: dict[str, list[Example]], images: SceneImages) -> None:
    (target / "images").mkdir(exist_ok=True)
    for split, examples in splits.items():
        for example in examples:
            images.add(example.scene, example.image_id)
            draw_scene(example.scene).save(target / "images" / f"{example.image_id}.png")
        _write_rows(target / f"{split}.parquet", _sentences(examples))
        write_pairs(true_pairs(examples), target / f"{split}_pairs.parquet")


def _statement_pairs(scenes: list[Scene], count: int, level: Level, images: SceneImages) -> Dataset:
    """Return a pair table: a statement, a scene that it is true of, one that it is false of, the template's name."""
    rows: dict[str, list[Any]] = {"text": [], "image_id": [], "hard_negative_image_ids": [], "family": []}
    for number, written in enumerate(write_statements(scenes, count, PRE_TRAINING_SEED, level)):
        true, false = (images.id_of(each, f"{level}-{number}-{at}") for at, each in enumerate(written[1:]))
        values = (written.statement.text, true, [false], written.statement.family)
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
    return Dataset.from_dict(rows)


def _sentences(examples: Iterable[Example]) -> Iterator[Row]:
    return (Row(e.text, e.image_id, e.label, str(e.group), e.image_id) for e in examples)


def _augmented(train: list[Example], copies: int, id_of: Callable[[Scene, str], str]) -> Iterator[Row]:
    """Yield each row so many times, each time changed anew; a row depends on its number and its copy's alone."""
    for copy in range(copies):
        for number, example in enumerate(train):
            text, scene = augment(example.text, example.scene, np.random.default_rng((0, copy, number)))
            name = f"{example.image_id}-augmented-{copy}"
            yield Row(text, id_of(scene, name), example.label, str(example.group), name)


def _statement_rows(
    scenes: list[Scene], count: int, first_group: int, id_of: Callable[[Scene, str], str]
) -> Iterator[Row]:
    for number, written in enumerate(write_statements(scenes, count, MIXED_SEED)):
        for label, scene in ((1, written.true), (0, written.false)):
            name = f"mixed-{number}-{1 - label}"
            yield Row(written.statement.text, id_of(scene, name), label, str(first_group + number), name)


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    texts, image_ids, labels, groups, names = map(list, zip(*rows, strict=True))
    columns = {"text": texts, "image_id": image_ids, "label": labels, "label_name": [TRUTH[each] for each in labels]}
    write_pairs(Dataset.from_dict(columns | {"group": groups, "question_id": names}), path)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and prepare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of NLVR's <split>-*.parquet (README.md)")
    parser.add_argument("target", type=Path, help="folder to write")
    for name, default in Sizes()._asdict().items():
        about = "changed copies of each sentence" if name == "copies" else f"statements for {name}.parquet"
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{about}; {default} by default")
    parser.add_argument("--held-out", action="store_true", help="keep a tenth of the training groups to choose on")
    given = vars(parser.parse_args(arguments))
    sizes = Sizes(**{name: given[name] for name in Sizes._fields})
    with clear_errors(debug=False):
        prepare(given["source"], given["target"], sizes, given["held_out"])
    print(f"{given['target']}: stores regions, pixels and captions; tables {', '.join(_tables(given['target']))}")


def _tables(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet"))


if __name__ == "__main__":
    main()
