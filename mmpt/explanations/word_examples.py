"""Texts of a table with one word masked, ordered by the probability that a model gives the right word."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from mmpt.inference.model_functions import check_function
from mmpt.inference.pipeline import MmptPipeline
from mmpt.modeling_mmpt.objectives import IGNORED
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.regions import Regions
from mmpt.processing.tasks.inputs import pair_inputs


class WordExample(NamedTuple):
    """A text with one word masked.

    Args:
        probability: what the model gives the right word.
    """

    text: str
    word: str
    regions: Regions
    probability: float


def mask_a_word(text: str, mask_token: str, preferred: Mapping[str, str]) -> tuple[str, str]:
    """Return a text with one word masked, and the word: the first of the preferred ones, or one near its beginning."""
    words = text.split()
    place = next((number for number, word in enumerate(words) if word in preferred), min(len(words) - 1, 3))
    return " ".join([*words[:place], mask_token, *words[place + 1 :]]), words[place]


def word_examples(
    pipeline: MmptPipeline, pairs: PairDataset, preferred: Mapping[str, str], rows: int
) -> list[WordExample]:
    """Return the first rows of a table whose masked word is one token, the least probable word first.

    Args:
        preferred: words to mask where a text has one.
        rows: how many rows are looked at.

    Raises:
        ValueError: if the model was not pre-trained with masked language modelling.
    """
    check_function(pipeline.model, "fill_mask")
    tokenizer = pipeline.processor.tokenizer
    examples: list[tuple[str, str, Regions]] = []
    for row in range(min(rows, len(pairs))):
        text, word = mask_a_word(pairs.text_of(row), tokenizer.mask_token, preferred)
        tokens = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id:
            examples.append((text, word, pairs.regions_of(row)))

    def score(given: list[dict[str, Any]]) -> list[float | None]:
        batch = pair_inputs(pipeline._encoder, given)
        ids = batch.tensors["input_ids"]
        masked = ids == tokenizer.mask_token_id
        first = masked & (masked.cumsum(1) == 1)
        labels = torch.where(first, ids, IGNORED)
        logits = pipeline._forward(batch, mlm_labels=labels, align_logits=False).mlm_logits
        found = iter(logits.float().softmax(-1).cpu())
        wanted = [tokenizer(each["word"], add_special_tokens=False)["input_ids"][0] for each in given]
        there = first.any(1).tolist()  # a long text may be cut before its mask
        return [float(next(found)[token]) if here else None for token, here in zip(wanted, there, strict=True)]

    if not examples:
        return []
    texts, words, regions = zip(*examples, strict=True)
    scores = pipeline._map(score, text=list(texts), word=list(words), image=list(regions))
    scored = [
        WordExample(text, word, record, probability)
        for (text, word, record), probability in zip(examples, scores, strict=True)
        if probability is not None
    ]
    return sorted(scored, key=lambda each: each.probability)
