"""Checks of what goes into a batch: does the tokenizer, and do the regions of an image, fit the model?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptTypeError, MmptValueError
from mmpt.modeling_mmpt.objectives import OBJECTIVES
from mmpt.processing.regions import Regions, wrong_distributions

LARGEST = 2**63  # what example ids are kept in


def tokens_of_a_text(max_text_length: int | None, tokenizer: Any, config: MmptConfig) -> int:
    """Return how many tokens a text is cut to; None is all positions of the model.

    Raises:
        ValueError: if that leaves no token of the text itself, or the model has fewer positions.
    """
    longest, specials = config.max_position_embeddings, tokenizer.num_special_tokens_to_add()
    name, tokens = "max_text_length", max_text_length
    if tokens is None:
        name, tokens = "max_position_embeddings", longest
    if tokens <= specials:  # a tokenizer then cuts nothing at all
        raise MmptValueError(
            f"{name} is {tokens}, expected more than the {specials} special tokens that the tokenizer puts around a "
            "text"
        )
    if tokens > longest:
        raise MmptValueError(
            f"{name} is {tokens}, but the model has max_position_embeddings {longest}; lower {name}, or leave it out "
            "for all positions"
        )
    return tokens


def check_tokenizer(tokenizer: Any, config: MmptConfig) -> None:
    """Check that the tokenizer fits the model's vocabulary and has the tokens that batches need.

    Raises:
        ValueError: if it has more tokens than the model, pads with another id, or lacks a pad or a mask token.
    """
    size = len(tokenizer)
    if size > config.vocab_size:
        raise MmptValueError(
            f"the tokenizer has {size} tokens, the model has vocab_size {config.vocab_size}; use the tokenizer that "
            "the model was made with, or call model.resize_token_embeddings(len(tokenizer))"
        )
    corrupted = {OBJECTIVES[name].corrupts for name in config.objective_weights}
    if "tokens" in corrupted and tokenizer.mask_token_id is None:
        raise MmptValueError(
            "the tokenizer has no mask token, which objective 'mlm' needs; use a tokenizer with one, or add it with "
            "tokenizer.add_special_tokens({'mask_token': '[MASK]'}) and resize the embeddings"
        )
    if tokenizer.pad_token_id is None:
        raise MmptValueError("the tokenizer has no pad token, which batches need; set tokenizer.pad_token")
    if config.pad_token_id is not None and tokenizer.pad_token_id != config.pad_token_id:
        raise MmptValueError(
            f"the tokenizer pads with id {tokenizer.pad_token_id}, the model with pad_token_id {config.pad_token_id}; "
            "use the tokenizer that the model was made with"
        )


def check_example(example: Mapping[str, Any], row: int) -> None:
    """Check the types of a pair's texts and numbers.

    Raises:
        TypeError: naming the example and the key.
    """
    for name, kinds, expected in (
        ("text", str, "a string"),
        ("text_pair", str | None, "a string or None"),
        ("image_id", str | int | np.integer, "a string"),
        ("example_id", int | np.integer | None, "an integer"),
        ("epoch", int | np.integer, "an integer"),
        ("step", int | np.integer | None, "an integer"),
    ):
        value = example.get(name, "" if name in ("text", "text_pair", "image_id") else 0)
        if not isinstance(value, kinds) or (not isinstance(value, str) and not -LARGEST <= (value or 0) < LARGEST):
            raise MmptTypeError(f"{name} of example {row} of the batch is {value!r}, expected {expected}")
    for name in ("hard_negative_texts", "hard_negative_image_ids"):
        values = example.get(name)
        if values is None:
            continue
        if isinstance(values, str) or not all(isinstance(value, str) for value in _listed(values)):
            raise MmptTypeError(f"{name} of example {row} of the batch are {values!r}, expected a list of strings")


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, Iterable) else [values]


def check_feature_widths(records: Sequence[Regions], config: MmptConfig) -> None:
    """Check that the features of each image are as wide as the configuration says.

    Raises:
        ValueError: naming the image.
    """
    width = config.region_feature_dim
    for row, record in enumerate(records):
        if len(record) and record.feature_dim != width:
            raise MmptValueError(
                f"features of {record.title(row)} are {record.feature_dim} numbers wide, the model expects "
                f"region_feature_dim {width}; use features of the detector that the model was made for"
            )


def check_records(records: Sequence[Regions], config: MmptConfig) -> None:
    """Check that the regions of each image have the width and the classes that the configuration says.

    Raises:
        ValueError: naming the image, what it has and what the model expects.
    """
    # Read once: a configuration looks each name up in Python, which a batch of small images would notice.
    targets, classes = {OBJECTIVES[name].target for name in config.objective_weights}, config.num_region_classes
    attributes = config.num_region_attributes
    check_feature_widths(records, config)
    for row, record in enumerate(records):
        if not len(record):
            continue
        if "distribution" in targets or ("class" in targets and record.class_probs is not None):
            _check_probs(record, classes, row)
        elif "class" in targets:
            _check_labels(record.labels, classes, record.title(row), "labels", "num_region_classes")
        if "attribute" in targets:
            name = record.title(row)
            _check_labels(record.attribute_labels, attributes, name, "attribute_labels", "num_region_attributes")


def _check_probs(record: Regions, classes: int, row: int) -> None:
    probs = record.class_probs
    if probs is None:
        raise MmptValueError(
            f"{record.title(row)} has no class_probs, which objective 'mrc_kl' needs; store the detector's "
            "distribution, or leave 'mrc_kl' out of objective_weights"
        )
    if probs.shape[1] != classes:
        raise MmptValueError(
            f"class_probs of {record.title(row)} have {probs.shape[1]} classes, the model has num_region_classes "
            f"{classes}, background included; use the detector that the model was made for"
        )


def checked_probs(record: Regions, places: NDArray[Any], row: int) -> NDArray[Any]:
    """Return the class distributions of some regions, (places, classes); what no label is made of is not read.

    Raises:
        ValueError: if one of them is not a distribution, naming the image and the region.
    """
    probs = np.asarray(record.class_probs)[places]
    wrong = wrong_distributions(probs)
    if len(wrong):
        sums = probs.sum(1, dtype=np.float32)
        raise MmptValueError(
            f"class_probs of {record.title(row)} sum to {sums[wrong[0]]:.4g} in region {places[wrong[0]]} "
            f"({len(wrong)} of the {len(sums)} regions that are predicted are off), expected numbers of 0 or more that "
            "sum to 1; a detector with sigmoid scores needs a softmax over its classes"
        )
    return probs


def _check_labels(labels: NDArray[Any] | None, classes: int, name: str, which: str, size_name: str) -> None:
    if labels is None:
        raise MmptValueError(f"{name} has no {which}, which a class objective needs; store them, or switch it off")
    if labels.dtype.kind not in "iu":
        raise MmptValueError(f"{which} of {name} are of {labels.dtype}, expected class numbers as integers")
    if labels.min() < 0 or labels.max() >= classes:
        raise MmptValueError(
            f"{which} of {name} run from {labels.min()} to {labels.max()}, expected 0..{classes - 1} "
            f"({size_name} is {classes}, background included)"
        )
