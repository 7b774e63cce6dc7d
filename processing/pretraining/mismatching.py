"""Pair mismatching, the third corruption: the text or the image of some pairs is replaced by another's."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmpt.processing.pretraining.masking import Draw, KeyedRandom
from mmpt.processing.regions import Regions

Array = NDArray[Any]
Example = Mapping[str, Any]
Texts = tuple[str, str | None]
"""A text and, where there is one, a second text."""

PARTNER_TRIES = 16


class PairTable(Protocol):
    """What partners of mismatched pairs are drawn from; `PairDataset` is one."""

    regions: Mapping[str, Regions]

    def partners(self, rows: Array, replace_image: Array, uniforms: Array) -> Array: ...

    def text_of(self, row: int) -> str: ...

    def text_pair_of(self, row: int) -> str | None: ...

    def regions_of(self, row: int) -> Regions: ...


def mismatch(
    examples: Sequence[Example], ids: Array, wanted: Array, draws: KeyedRandom, hard_negative_rate: float
) -> tuple[list[Texts], list[Regions], Array]:
    """Replace the image or, with equal chance, the text of the `wanted` examples by that of another image.

    A partner comes from the example's `pair_table` (the whole table of pairs), else from the batch; it never has the
    same image or the same text, and the pair that results is none of the table or the batch. At `hard_negative_rate`
    the example's own hard negative is taken instead, where it has one.

    Args:
        ids: (batch,) row of each example in its table.
        wanted: (batch,), bool.

    Returns:
        Texts, regions, and (batch,) which rows are mismatched now: a row without an eligible partner stays matched.
    """
    texts: list[Texts] = [(example["text"], example.get("text_pair")) for example in examples]
    regions: list[Regions] = [example["regions"] for example in examples]
    done = np.zeros_like(wanted)
    if not wanted.any():
        return texts, regions, done
    replace_image = draws.uniform(Draw.REPLACED_PART)[:, 0] < 0.5
    hard = draws.uniform(Draw.HARD_NEGATIVE, 2)
    chances = draws.uniform(Draw.PARTNER, PARTNER_TRIES)
    for row in np.flatnonzero(wanted & (hard[:, 0] < hard_negative_rate)).tolist():
        done[row] = _take_hard_negative(examples[row], row, bool(replace_image[row]), hard[row, 1], texts, regions)
    for table, rows in _by_table(examples, np.flatnonzero(wanted & ~done)):
        if table is None:
            partners = _partners_in_batch(examples, rows, replace_image[rows], chances[rows, 0])
        else:
            partners = table.partners(ids[rows], replace_image[rows], chances[rows]).tolist()
        for row, partner in zip(rows.tolist(), partners, strict=True):
            if partner < 0:
                continue
            if replace_image[row]:
                regions[row] = examples[partner]["regions"] if table is None else table.regions_of(partner)
            elif table is None:
                texts[row] = (examples[partner]["text"], examples[partner].get("text_pair"))
            else:
                texts[row] = (table.text_of(partner), table.text_pair_of(partner))
            done[row] = True
    return texts, regions, done


def _take_hard_negative(
    example: Example, row: int, prefer_image: bool, chance: float, texts: list[Texts], regions: list[Regions]
) -> bool:
    """Put one of the example's own hard negatives into its row; return whether it has one."""
    table: PairTable | None = example.get("pair_table")
    images = list(example.get("hard_negative_image_ids") or ())
    captions = list(example.get("hard_negative_texts") or ())
    if table is not None and images and (prefer_image or not captions):
        regions[row] = table.regions[images[int(chance * len(images))]]
        return True
    if captions:
        texts[row] = (captions[int(chance * len(captions))], example.get("text_pair"))
        return True
    return False


def _by_table(examples: Sequence[Example], rows: Array) -> list[tuple[PairTable | None, Array]]:
    """Return the rows grouped by the pair table that their partners come from."""
    tables = {id(examples[row].get("pair_table")): examples[row].get("pair_table") for row in rows}
    return [
        (table, np.array([row for row in rows if examples[row].get("pair_table") is table]))
        for table in tables.values()
    ]


def _partners_in_batch(examples: Sequence[Example], rows: Array, replace_image: Array, chances: Array) -> list[int]:
    """Return for each row another row of the batch that makes a mismatched pair with it, -1 where there is none.

    The pair that results must be none of the batch, which rules out the row's own image and text as well.
    """
    pairs = [(example["image_id"], example["text"]) for example in examples]
    true_pairs = set(pairs)
    partners = []
    for row, swap, chance in zip(rows, replace_image, chances, strict=True):
        own_image, own_text = pairs[row]
        eligible = [
            other
            for other, (image, text) in enumerate(pairs)
            if ((image, own_text) if swap else (own_image, text)) not in true_pairs
        ]
        partners.append(eligible[int(chance * len(eligible))] if eligible else -1)
    return partners
