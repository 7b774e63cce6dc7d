"""Random wrong inputs of the processor and the collator work, or raise one `MmptError`."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.configuration.errors import MmptError, MmptTypeError, MmptValueError
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.regions import Regions
from mmpt.processing.word_tokenizer import build_word_tokenizer
from tests.factories.training import CLASSES, FEATURE_DIM, WORDS, tiny_collator, tiny_dataset, tiny_model

FIXED = settings(max_examples=60, derandomize=True, deadline=None)
ODD: list[Any] = [None, 0, -1, 1.5, math.nan, math.inf, 2**70, True, "", "red dog", "\ud800", b"red", [], {}, (), [[]]]
ARRAYS = [np.full(shape, value) for shape in ((), (2,), (2, 6), (2, 4), (1, 2, 6)) for value in (0.5, -1, math.nan)]
ANYTHING = st.sampled_from([*ODD, *ARRAYS, *map(torch.as_tensor, ARRAYS), *(array.tolist() for array in ARRAYS)])
OPTIONS = st.sampled_from(
    [
        "padding",
        "truncation",
        "max_length",
        "padding_side",
        "return_tensors",
        "max_regions",
        "box_format",
        "text_pair",
        "whole_image_region",
        "max_region",
        "truncate",
        "text_kwargs",
        "images_kwargs",
        "common_kwargs",
        "add_special_tokens",
    ]
)


def processor() -> MmptProcessor:
    return MmptProcessor(MmptImageProcessor(), build_word_tokenizer([" ".join(WORDS)]))


def regions(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = dict(
        features=np.zeros((2, FEATURE_DIM), np.float32),
        boxes=np.array([[0, 0, 0.5, 0.5], [0.2, 0.2, 1, 1]], np.float32),
        class_probs=np.full((2, CLASSES), 1 / CLASSES, np.float32),
    )
    return fields | changes


@FIXED
@given(data=st.data())
def test_the_processor_works_or_raises_one_error(data: st.DataObject) -> None:
    names = ("features", "boxes", "class_probs", "scores", "type_ids", "labels", "width", "image_id", "feature")
    image = regions(**data.draw(st.dictionaries(st.sampled_from(names), ANYTHING, max_size=2)))
    images = data.draw(st.one_of(st.just([image, image]), st.just(image), ANYTHING))
    text = data.draw(st.one_of(st.just(["a dog", "red"]), st.just([("a", "b"), ("a", "b")]), ANYTHING))
    options = data.draw(st.dictionaries(OPTIONS, ANYTHING, max_size=2))
    try:
        batch = processor()(text=text, images=images, **options)
    except MmptError:
        return
    assert all(np.isfinite(np.asarray(batch[name])).all() for name in batch if name.startswith("region_"))


@FIXED
@given(data=st.data())
def test_the_collator_works_or_raises_one_error(data: st.DataObject) -> None:
    collator = tiny_collator(tiny_model())
    table = tiny_dataset(4)
    examples: list[Any] = [dict(table[row]) for row in range(3)]
    row = data.draw(st.integers(0, 2))
    names = (
        "text",
        "text_pair",
        "image_id",
        "regions",
        "example_id",
        "epoch",
        "hard_negative_texts",
        "step",
        "pair_table",
    )
    name = data.draw(st.sampled_from(names))
    changed = data.draw(st.sampled_from(sorted(regions())))
    examples[row][name] = data.draw(
        st.one_of(ANYTHING, st.just(regions()), ANYTHING.map(lambda value: regions(**{changed: value})))
    )
    if data.draw(st.booleans()):
        examples[row].pop(data.draw(st.sampled_from(sorted(examples[row]))))
    try:
        batch = collator(examples)
    except MmptError:
        return
    assert batch["region_features"].isfinite().all()
    assert len(batch["input_ids"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paddings": True}, "no option 'paddings'; did you mean 'padding'"),
        ({"max_region": 3}, "no option 'max_region'; did you mean 'max_regions'"),
        ({"text_kwargs": {"truncate": True}}, "text_kwargs of the processor has no option 'truncate'"),
        ({"images_kwargs": {"box_formats": "pixel"}}, "no option 'box_formats'; did you mean 'box_format'"),
        ({"images_kwargs": 3}, "images_kwargs are int, expected a dict"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MmptTypeError, match=message):
        processor()(text="a dog", images=regions(), **options)


@pytest.mark.parametrize("probs", [np.full((2, 5), 0.5), np.full((2, 5), math.nan), [[2, -1, 0, 0, 0]] * 2])
def test_class_probabilities_are_checked(probs: Any) -> None:
    with pytest.raises(MmptValueError, match="class_probs of image 0 of the batch sum to"):
        processor()(images=regions(class_probs=probs))


@pytest.mark.parametrize("form", [np.asarray, torch.as_tensor, lambda values: np.asarray(values).tolist()])
def test_arrays_tensors_and_lists_are_one(form: Any) -> None:
    given = {name: form(value) for name, value in regions().items()}
    batch, expected = (processor()(images=one, return_tensors="pt") for one in (given, Regions(**regions())))
    for name in expected:
        torch.testing.assert_close(batch[name], expected[name])


@pytest.mark.parametrize("part", ["processor", "collator"])
def test_a_tokenizer_that_pads_on_the_left_gives_the_same_batch(part: str) -> None:
    batches = []
    for side in ("right", "left"):
        collator = tiny_collator(tiny_model())
        collator.processor.tokenizer.padding_side = side
        if part == "collator":
            batches.append(collator([tiny_dataset(4)[row] for row in range(4)]))
        else:
            batches.append(collator.processor(text=["a", "a red dog"], padding=True, return_tensors="pt"))
    for name, value in batches[0].items():
        torch.testing.assert_close(batches[1][name], value)
