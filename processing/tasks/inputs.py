"""How the examples of a task become a model's inputs: the four layouts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.objectives import IGNORED
from mmpt.processing.processing_mmpt import TEXT_INPUTS
from mmpt.processing.tasks.encoding import REGION_INPUTS, TaskBatch, TaskEncoder, Text, pixel_boxes

Example = Mapping[str, Any]


def pair_inputs(encoder: TaskEncoder, examples: Sequence[Example]) -> TaskBatch:
    """Return one text and one image an example."""
    return encoder.encode(_texts(encoder, examples), [example["regions"] for example in examples])


def candidate_inputs(encoder: TaskEncoder, examples: Sequence[Example]) -> TaskBatch:
    """Return one text and one image an example, of whose regions the model chooses.

    Not for the model are `candidates` (batch, regions), False at padding and at a whole-image region, and
    `candidate_boxes` (batch, regions, 4) in pixels.

    Raises:
        ValueError: if an image has no size.
    """
    regions = [example["regions"] for example in examples]
    batch = encoder.encode(_texts(encoder, examples), regions, predicts_regions=True)
    boxes = torch.zeros(*batch.detected.shape, 4)
    for row, record in enumerate(batch.records):
        boxes[row, batch.detected[row]] = torch.from_numpy(pixel_boxes(record)).float()
    batch.tensors |= {"candidates": batch.detected, "candidate_boxes": boxes}
    return batch


def image_pair_inputs(encoder: TaskEncoder, examples: Sequence[Example]) -> TaskBatch:
    """Return one text and two images an example: region tensors are (batch, 2, regions, ...)."""
    images = [example[name] for example in examples for name in ("regions", "second_regions")]
    batch = encoder.encode(_texts(encoder, examples), images)
    for name in REGION_INPUTS:
        if name in batch.tensors:
            batch.tensors[name] = batch.tensors[name].unflatten(0, (len(examples), 2))
    return batch


def choice_inputs(encoder: TaskEncoder, examples: Sequence[Example]) -> TaskBatch:
    """Return one image and several texts an example: text tensors are (batch, choices, tokens).

    Each choice is the second text behind the example's own.

    Raises:
        ValueError: if the examples have other numbers of choices.
    """
    counts = {len(example["choices"]) for example in examples}
    count = min(counts)
    if len(counts) > 1 or count < 2:
        rows = ", ".join(f"{len(example['choices'])} in row {example.get('row')}" for example in examples[:5])
        raise MmptValueError(f"got {rows} choices, expected the same number, two or more, in every row of a table")
    texts: list[Text] = [(example["text"], choice) for example in examples for choice in example["choices"]]
    batch = encoder.encode(texts, [example["regions"] for example in examples])
    for name in TEXT_INPUTS:
        if name in batch.tensors:
            batch.tensors[name] = batch.tensors[name].unflatten(0, (len(examples), count))
    return batch


def phrase_inputs(encoder: TaskEncoder, examples: Sequence[Example]) -> TaskBatch:
    """Return one text and one image an example, and `phrase_positions` (batch, phrases).

    A phrase is read at its last token. -100 stands where there is none: at padding, and where the text was cut before
    the phrase. Of a text that is blank the first token, [CLS], stands for every phrase.
    """
    batch = candidate_inputs(encoder, examples)
    longest = max(1, *(len(example["phrases"]) for example in examples))
    positions = torch.full((len(examples), longest), IGNORED)
    for row, example in enumerate(examples):
        for place, phrase in enumerate(example["phrases"]):
            token = 0 if encoder.blank == "text" else last_token(batch.encoding, row, phrase["start"], phrase["end"])
            positions[row, place] = IGNORED if token is None else token
    batch.tensors["phrase_positions"] = positions
    return batch


def last_token(encoding: Any, row: int, start: int, end: int) -> int | None:
    """Return the token of the last letter of start..end (end excluded) that has one; None where the text was cut."""
    for letter in range(end - 1, start - 1, -1):
        token = encoding.char_to_token(row, letter)
        if token is not None:
            return token
    return None


def _texts(encoder: TaskEncoder, examples: Sequence[Example]) -> list[Text]:
    texts: list[Text] = []
    for example in examples:
        text = example["text"]
        if encoder.config.answer_reads == "second_last_token":
            text = f"{text} {encoder.processor.tokenizer.mask_token}"  # where VisualBERT reads the answer
        texts.append((text, example["text_pair"]) if "text_pair" in example else text)
    return texts
