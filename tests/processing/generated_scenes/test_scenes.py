"""Scenes: what is sampled, changed and drawn."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.processing.generated_scenes.scenes import (
    ALL_COMPOSITIONS,
    BACKGROUND,
    CELL,
    CLASS_NAMES,
    COLOURS,
    HELD_OUT_COMPOSITIONS,
    IMAGE_SIZE,
    PIXEL_NOISE,
    SHAPES,
    TRAIN_COMPOSITIONS,
    Scene,
    SceneObject,
    change_attribute,
    rearrange,
    render,
    sample_scene,
    swap_attributes,
)

seeds = st.integers(0, 2**32)
quick = settings(deadline=None, max_examples=40)


def scene_of(seed: int) -> tuple[Scene, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return sample_scene(rng, TRAIN_COMPOSITIONS), rng


def one_object(shape: str, size: int = 30, colour: str = "blue") -> Scene:
    return Scene((SceneObject(colour, shape, "large", 4, 45, 47, size, (0, 0, 0)),), noise_seed=0)


@quick
@given(seeds)
def test_objects_lie_apart_and_inside_their_cells(seed):
    scene, _ = scene_of(seed)
    cells = [item.cell for item in scene.objects]
    assert 2 <= len(cells) == len(set(cells)) <= 6
    corners = scene.boxes.reshape(-1, 2, 2) // CELL  # of both corners: column, row
    expected = [(item.column, item.row) for item in scene.objects]
    assert [tuple(corner) for corner in corners[:, 0].astype(int)] == expected
    assert [tuple(corner) for corner in corners[:, 1].astype(int)] == expected


@quick
@given(seeds)
def test_rearranged_scene_has_the_same_bag_of_each_attribute(seed):
    scene, rng = scene_of(seed)
    other = rearrange(scene, rng, TRAIN_COMPOSITIONS)
    assert other.layout != scene.layout
    for name in ("colour", "shape", "size"):
        assert Counter(getattr(o, name) for o in other.objects) == Counter(getattr(o, name) for o in scene.objects)


@quick
@given(seeds)
def test_changed_scene_differs_in_one_attribute_of_one_object(seed):
    scene, rng = scene_of(seed)
    other = change_attribute(scene, rng, TRAIN_COMPOSITIONS)
    differences = [
        (index, name)
        for index, (one, two) in enumerate(zip(scene.objects, other.objects, strict=True))
        for name in ("colour", "shape", "size", "cell")
        if getattr(one, name) != getattr(two, name)
    ]
    assert len(differences) == 1
    assert differences[0][1] != "cell"


@quick
@given(seeds)
def test_swapped_scene_exchanges_one_attribute_of_two_objects(seed):
    scene, rng = scene_of(seed)
    touching = rng.permutation(len(scene.objects))[:1].tolist()
    other = swap_attributes(scene, rng, TRAIN_COMPOSITIONS, touching)
    if other is None:
        return
    assert scene.objects[touching[0]] != other.objects[touching[0]]
    pairs = [(o, n) for o, n in zip(scene.objects, other.objects, strict=True) if o != n]
    assert len(pairs) == 2
    (one, one_new), (two, two_new) = pairs
    changed = "colour" if one.colour != one_new.colour else "shape"
    assert getattr(one_new, changed) == getattr(two, changed)
    assert getattr(two_new, changed) == getattr(one, changed)
    there = Counter(item.composition for item in scene.objects)
    assert there != Counter(item.composition for item in other.objects)  # more than a move


@quick
@given(seeds)
def test_held_out_compositions_never_enter_a_training_scene(seed):
    scene, rng = scene_of(seed)
    others = [rearrange(scene, rng, TRAIN_COMPOSITIONS), change_attribute(scene, rng, TRAIN_COMPOSITIONS)]
    swapped = swap_attributes(scene, rng, TRAIN_COMPOSITIONS, range(len(scene.objects)))
    for made in [scene, *others, *([swapped] if swapped else [])]:
        assert not {item.composition for item in made.objects} & set(HELD_OUT_COMPOSITIONS)


def test_every_held_out_colour_and_shape_is_trained_in_another_pair():
    for colour, shape in HELD_OUT_COMPOSITIONS:
        assert colour in {c for c, _ in TRAIN_COMPOSITIONS}
        assert shape in {s for _, s in TRAIN_COMPOSITIONS}


def test_two_objects_of_one_shape_exchange_nothing():
    """Their colours exchanged, the scene would hold what it holds, in other places."""
    red = SceneObject("red", "circle", "small", 0, 5, 5, 18, (0, 0, 0))
    blue = SceneObject("blue", "circle", "small", 8, 90, 90, 18, (0, 0, 0))
    scene = Scene((red, blue), noise_seed=0)
    assert swap_attributes(scene, np.random.default_rng(0), ALL_COMPOSITIONS, (0, 1)) is None


def test_twins_cannot_swap_but_can_move():
    item = SceneObject("red", "circle", "small", 0, 5, 5, 18, (0, 0, 0))
    twin = SceneObject("red", "circle", "small", 8, 90, 90, 18, (0, 0, 0))
    scene = Scene((item, twin), noise_seed=0)
    rng = np.random.default_rng(0)
    assert swap_attributes(scene, rng, ALL_COMPOSITIONS, (0, 1)) is None
    assert rearrange(scene, rng, ALL_COMPOSITIONS).layout != scene.layout


@pytest.mark.parametrize("shape", SHAPES)
def test_box_is_tight_around_the_drawn_shape(shape):
    scene = one_object(shape)
    away = np.abs(np.asarray(render(scene), dtype=float) - BACKGROUND).max(axis=2) > 6 * PIXEL_NOISE
    ys, xs = np.nonzero(away)
    found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    np.testing.assert_allclose(found, scene.boxes[0], atol=1.5)


def test_drawn_colour_is_the_named_one():
    for colour, wanted in COLOURS.items():
        pixels = np.asarray(render(one_object("square", colour=colour)), dtype=float)
        np.testing.assert_allclose(pixels[50:74, 48:72].mean(axis=(0, 1)), wanted, atol=3)


def test_square_fills_its_box_and_triangle_half_of_it():
    def share(shape: str) -> float:
        pixels = np.asarray(render(one_object(shape)), dtype=float)[47:77, 45:75]
        return float((np.abs(pixels - BACKGROUND).max(axis=2) > 60).mean())

    assert share("square") == 1.0
    assert share("triangle") == pytest.approx(0.5, abs=0.04)
    assert share("circle") == pytest.approx(np.pi / 4, abs=0.04)
    assert share("star") < 0.5


def test_rendering_is_a_function_of_the_scene():
    scene, _ = scene_of(3)
    assert render(scene).size == (IMAGE_SIZE, IMAGE_SIZE)
    assert render(scene).tobytes() == render(scene).tobytes()
    assert render(scene).tobytes() != render(Scene(scene.objects, scene.noise_seed + 1)).tobytes()


def test_class_ids_name_colour_and_shape():
    scene, _ = scene_of(11)
    assert [CLASS_NAMES[k] for k in scene.class_ids] == [f"{o.colour} {o.shape}" for o in scene.objects]
    assert len(CLASS_NAMES) == 24


def test_no_compositions_is_an_error():
    with pytest.raises(ValueError, match="compositions is empty, expected at least one"):
        sample_scene(np.random.default_rng(0), ())
