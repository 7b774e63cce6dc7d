"""The generated corpus: joined, seeded, split, and soft."""

import numpy as np
import pytest

from mmpt.processing.generated_scenes.corpus import GeneratedScenes
from mmpt.processing.generated_scenes.scenes import HELD_OUT_COMPOSITIONS
from mmpt.processing.generated_scenes.texts import ATTRIBUTE_WORDS

PAIRS = {f"{colour} {shape}" for colour, shape in HELD_OUT_COMPOSITIONS}


@pytest.fixture(scope="module")
def corpus() -> GeneratedScenes:
    return GeneratedScenes.build(40, 20, seed=5, statements=0.5)


def tables(corpus: GeneratedScenes) -> dict:
    return {name: getattr(corpus, name) for name in ("train", "evaluation", "compositions", "statements")}


def test_every_image_of_every_table_has_regions(corpus):
    named = set()
    for table in tables(corpus).values():
        named.update(table["image_id"], *table["hard_negative_image_ids"])
    assert named == set(corpus.regions)
    for image_id, regions in corpus.regions.items():
        assert regions.image_id == image_id
        assert (regions.width, regions.height) == (120, 120)
        assert regions.features.shape == (len(regions), corpus.feature_dim)
        assert regions.class_probs.shape == (len(regions), len(corpus.class_names))


def test_sizes_are_those_asked_for(corpus):
    sizes = {name: len(table) for name, table in tables(corpus).items()}
    # three captions a training scene; half of the scenes give two statements each
    assert sizes == {"train": 3 * 40 + 2 * 20, "evaluation": 20, "compositions": 20, "statements": 2 * 10}


def test_same_seed_gives_the_same_bits(corpus):
    again = GeneratedScenes.build(40, 20, seed=5, statements=0.5)
    for name, table in tables(corpus).items():
        assert getattr(again, name).to_dict() == table.to_dict()
    assert list(again.regions) == list(corpus.regions)
    for image_id, regions in corpus.regions.items():
        for field in ("features", "boxes", "class_probs", "labels", "scores"):
            assert getattr(again.regions[image_id], field).tobytes() == getattr(regions, field).tobytes()


def test_another_seed_gives_other_scenes(corpus):
    assert not set(GeneratedScenes.build(5, 5, seed=6).train["text"]) & set(corpus.train["text"])


def test_splits_share_no_image(corpus):
    images = [
        {*table["image_id"], *(i for ids in table["hard_negative_image_ids"] for i in ids)}
        for table in (corpus.train, corpus.evaluation, corpus.compositions)
    ]
    assert not images[0] & images[1]
    assert not images[0] & images[2]
    assert not images[1] & images[2]
    boxes = [regions.boxes.tobytes() for regions in corpus.regions.values()]
    assert len(set(boxes)) == len(boxes)


def test_held_out_pairs_are_in_every_composition_scene_and_in_no_training_text(corpus):
    assert not [text for text in corpus.texts if any(pair in text for pair in PAIRS)]
    names = np.array(corpus.class_names)
    for image_id in corpus.compositions["image_id"]:
        assert set(names[corpus.regions[image_id].labels]) <= PAIRS


def test_detected_classes_are_right_and_soft(corpus):
    names = np.array(corpus.class_names)
    right = total = 0
    for row in corpus.evaluation:
        words = [word for word in row["text"].split() if word in ATTRIBUTE_WORDS]
        labels = names[corpus.regions[row["image_id"]].labels]
        for group in ("colour", "shape"):  # the caption names every object once
            said = sorted(word for word in words if ATTRIBUTE_WORDS[word] == group)
            found = sorted(label.split()[group == "shape"] for label in labels)
            right += sum(one == two for one, two in zip(said, found, strict=True))
            total += len(said)
    assert right / total >= 0.97
    probs = np.concatenate([regions.class_probs for regions in corpus.regions.values()])
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-5)
    assert 0.8 < probs.max(axis=1).mean() < 0.98


def test_features_are_of_unit_scale_and_finite(corpus):
    features = np.concatenate([regions.features for regions in corpus.regions.values()])
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert 0.2 < features.std() < 1.5
    assert np.abs(features).max() <= 2.5


def test_statement_and_its_false_image_point_at_each_other(corpus):
    rows = list(corpus.statements)
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        assert one["hard_negative_image_ids"] == [two["image_id"]]
        assert two["hard_negative_image_ids"] == [one["image_id"]]
        assert one["hard_negative_texts"] == [two["text"]]
        # the false scene is a rearrangement: the same number of objects
        assert len(corpus.regions[one["image_id"]]) == len(corpus.regions[two["image_id"]])


def test_every_caption_has_a_false_text_and_some_a_false_image(corpus):
    for table in (corpus.train, corpus.evaluation, corpus.compositions):
        assert all(
            texts and text not in texts for text, texts in zip(table["text"], table["hard_negative_texts"], strict=True)
        )
    assert 0 < sum(bool(ids) for ids in corpus.evaluation["hard_negative_image_ids"]) < len(corpus.evaluation)


def test_regions_are_in_random_order(corpus):
    ordered = [
        bool((np.diff(regions.boxes[:, 1] // 0.333 * 3 + regions.boxes[:, 0] // 0.333) > 0).all())
        for regions in corpus.regions.values()
    ]
    assert np.mean(ordered) < 0.5


def test_partial_captions_are_of_training_alone():
    whole, partial = (GeneratedScenes.build(30, 20, seed=3, statements=0.0, partial_captions=p) for p in (0.0, 1.0))
    lengths = {
        name: [sum(len(text.split()) for text in getattr(corpus, table)["text"]) for corpus in (whole, partial)]
        for name, table in (("train", "train"), ("evaluation", "evaluation"))
    }
    assert lengths["train"][1] < 0.8 * lengths["train"][0]
    assert whole.evaluation["text"] == partial.evaluation["text"]


def test_no_statements_gives_an_empty_table():
    corpus = GeneratedScenes.build(2, 1, seed=0, statements=0.0)
    assert len(corpus.train) == 6
    assert len(corpus.statements) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_scenes": 0}, "train_scenes is 0, expected at least 1"),
        ({"eval_scenes": -1}, "eval_scenes is -1, expected at least 1"),
        ({"seed": -3}, "seed is -3, expected 0 or more"),
        ({"statements": 1.5}, "statements is 1.5, expected a fraction, 0..1"),
        ({"partial_captions": -0.5}, "partial_captions is -0.5, expected a fraction, 0..1"),
    ],
)
def test_impossible_size_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        GeneratedScenes.build(**{"train_scenes": 1, "eval_scenes": 1, "seed": 0, **arguments})
