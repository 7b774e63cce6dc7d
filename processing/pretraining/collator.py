"""The data collator: pairs of text and regions to a masked, labelled batch."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import trainer as stock_trainer
from transformers.data.data_collator import DataCollatorMixin

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptTypeError, MmptValueError
from mmpt.modeling_mmpt.objectives import IGNORED, OBJECTIVES
from mmpt.processing.batch_checks import check_example, check_records, check_tokenizer, checked_probs, tokens_of_a_text
from mmpt.processing.image_processing_mmpt import set_whole_image_feature
from mmpt.processing.pretraining.epochs import Collate, EpochCallback, RepeatedDraws
from mmpt.processing.pretraining.layout import pretraining_layout
from mmpt.processing.pretraining.masking import Draw, KeyedRandom, mask_tokens, select_regions
from mmpt.processing.pretraining.mismatching import Texts, mismatch
from mmpt.processing.pretraining.word_boundaries import WordBoundaries, Words, token_ids
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.regions import Regions

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Policy = Literal["conditional", "joint", "one_objective"]

ROW_CORRUPTIONS = {"text": "tokens", "regions": "regions", "itm": "pair"}
"""Corruption a row can be assigned to -> what it corrupts."""

PART = 0x632BE59BD9B4E019
"""What the parts of a ConcatDataset are apart, as numbers that draws depend on: more than any has rows."""

NO_EPOCH = -1
"""Epoch of a collator before the first call of `set_epoch`."""


@dataclass
class MmptDataCollator(DataCollatorMixin):
    """Mismatch some pairs, make tensors, mask tokens and regions, and write the labels of every configured objective.

    An example is a dict with `text`, `image_id` and `regions`, and as far as they exist `text_pair`, `example_id` and
    `epoch` (the key of everything random about it; without an id, a checksum of image id and text serves),
    `part` (that of a ConcatDataset, another key), `for_evaluation` (is the epoch to stay),
    `hard_negative_texts`, `hard_negative_image_ids`, `step` (the optimiser step, for "one_objective") and `pair_table`
    (the table that partners of mismatched pairs are drawn from). `PairDataset` gives them all. Without a pair table,
    partners are drawn within the batch, and an example without an eligible partner stays matched.

    Works with the stock Trainer (`remove_unused_columns=False`) and as `collate_fn` of a DataLoader. Both Trainers give
    it the epoch, whatever dataset the examples are from; a loop of your own calls `set_epoch`.

    Args:
        processor: tokenizer and region processor.
        config: of the model that the batch is for; says which objectives are on, and every width that is checked.
        policy: "conditional": every row is assigned to text masking, region masking or matching, and one forward pass
            serves all objectives. "joint": text and regions are masked on every row, and half are mismatched (LXMERT,
            ViLBERT, VOLTA). "one_objective": one objective a step for all rows (UNITER); rows of
            an evaluation table are assigned as in "conditional".
        probability: share of tokens or regions that is masked.
        mismatch_probability: share of the rows with a matching label that is mismatched.
        shares: relative weight of each corruption; ignored for a corruption without an enabled objective.
        whole_word: mask all tokens of a word together.
        words: what a word is then: "tokenizer", "spaces" or "jieba"; see `WordBoundaries`.
        overlap_threshold: also mask regions that overlap a masked one by more than this IoU.
        classify_all_regions: MRC and attributes are predicted for every region of a row with region masking, not for
            the masked ones alone (LXMERT).
        hard_negative_rate: share of the mismatched rows that take one of the example's own hard negatives.
        max_text_length: tokens a text is cut to, specials included; the model's positions by default.
        seed: of everything random.

    Raises:
        ValueError: if the tokenizer does not fit the model, or an argument is out of range; on a call, if regions or
            their classes do not fit the configuration.
    """

    processor: MmptProcessor
    config: MmptConfig
    policy: Policy = "conditional"
    probability: float = 0.15
    mismatch_probability: float = 0.5
    shares: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ROW_CORRUPTIONS, 1.0))
    whole_word: bool = False
    words: Words = "tokenizer"
    overlap_threshold: float | None = None
    classify_all_regions: bool = False
    hard_negative_rate: float = 0.0
    max_text_length: int | None = None
    seed: int = 0
    return_tensors: str = "pt"

    def __post_init__(self) -> None:
        self.objectives = [name for name in OBJECTIVES if name in self.config.objective_weights]
        self._check_arguments()
        check_tokenizer(self.processor.tokenizer, self.config)
        corrupted = {OBJECTIVES[name].corrupts for name in self.objectives}
        self._corruptions = [
            name for name, what in ROW_CORRUPTIONS.items() if what in corrupted and self.shares.get(name, 0) > 0
        ]
        if not self._corruptions:
            raise MmptValueError(
                f"no row can be corrupted: objectives are {self.objectives}, shares are {self.shares}; "
                "give the corruption of an enabled objective a share above 0"
            )
        self._epoch = torch.full((), NO_EPOCH, dtype=torch.int64).share_memory_()  # seen by workers that run
        self._repeated_draws: RepeatedDraws | None = RepeatedDraws()
        if _StockTrainerEpochs not in stock_trainer.DEFAULT_CALLBACKS:
            stock_trainer.DEFAULT_CALLBACKS.append(_StockTrainerEpochs)  # type: ignore[arg-type]
        self._reported_cut = False
        self._ordinary_ids, self._later_ids = token_ids(self.processor.tokenizer)
        self._words = WordBoundaries(self.words) if self.whole_word else None
        self._max_tokens = tokens_of_a_text(self.max_text_length, self.processor.tokenizer, self.config)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that everything random depends on, for a loop of your own; workers that run see it too.

        Examples of a `PairDataset` for evaluation, and those that a Trainer loads, have an epoch already and keep it.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, (int, np.integer)) or epoch < 0:
            raise MmptValueError(f"the epoch is {epoch!r}, expected a whole number, 0 or more")
        self._epoch.fill_(int(epoch))

    def torch_call(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the batch: the model's inputs, `<objective>_labels` for each objective, and the layout (`layout_...`).

        The layout says which places are padding and which are read, so that the model computes no others.
        """
        self._check_examples(examples)
        ids = np.array([_example_id(example) for example in examples], dtype=np.int64)
        epochs = np.array([self._epoch_of(example) for example in examples], dtype=np.int64)
        # Parts of a ConcatDataset number their rows alike; the first draws as if it were alone.
        parts = np.array([example.get("part", 0) for example in examples], dtype=np.int64)
        draws = KeyedRandom(self.seed, epochs, ids + parts * PART)
        self._report_repeated_draws(draws, examples)
        assigned = self._assign(examples, draws)
        active = self._active_objectives(examples)

        matching = assigned["itm"]
        mismatched = matching & (draws.uniform(Draw.MISMATCH)[:, 0] < self.mismatch_probability)
        texts, regions, mismatched = mismatch(examples, ids, mismatched, draws, self.hard_negative_rate)

        batch, maskable_tokens, words = self._tokenize(texts)
        records = self.processor.image_processor.records(regions)
        check_records(records, self.config)
        region_batch, detected = self.processor.image_processor.pad(records, feature_dim=self.config.region_feature_dim)
        batch.update(region_batch)

        # Joint masking corrupts mismatched rows as well, but only the matching label of such a row is kept.
        text_rows, region_rows = assigned["text"], assigned["regions"]
        if self._predicting("token"):
            input_ids, labels = mask_tokens(
                batch["input_ids"].numpy(),
                maskable_tokens & text_rows[:, None],
                self.processor.tokenizer.mask_token_id,
                self._ordinary_ids,
                self.probability,
                draws,
                words,
                self._later_ids,
            )
            labels[mismatched] = IGNORED
            batch["input_ids"] = torch.from_numpy(input_ids)
            batch |= {f"{name}_labels": torch.from_numpy(labels.copy()) for name in self._predicting("token")}
        masked = self._mask_regions(batch, detected, region_rows, draws)
        predicted = masked & torch.from_numpy(~mismatched)[:, None]
        classified = predicted
        if self.classify_all_regions:
            classified = detected & torch.from_numpy(region_rows & ~mismatched)[:, None]
        batch.update(self._region_labels(batch, records, predicted, classified))
        batch["region_features"][masked.nonzero(as_tuple=True)] = 0.0  # with the mask itself every number is read
        if self.processor.image_processor.whole_image_region:
            set_whole_image_feature(batch["region_features"], detected & ~masked)
        batch["masked_regions"] = masked
        for name in self._predicting("match"):
            batch[f"{name}_labels"] = torch.from_numpy(np.where(matching, np.where(mismatched, 0, 1), IGNORED))
        if active is not None:
            for name in self.objectives:
                if name != active:
                    batch[f"{name}_labels"] = torch.full_like(batch[f"{name}_labels"], IGNORED)
        return batch | pretraining_layout(self.config, batch)

    def _assign(self, examples: Sequence[Mapping[str, Any]], draws: KeyedRandom) -> dict[str, Array]:
        """Return for each corruption its rows, (batch,) bool."""
        rows = len(examples)
        if self.policy == "joint":
            return {corruption: np.full(rows, corruption in self._corruptions) for corruption in ROW_CORRUPTIONS}
        weights = np.array([self.shares[corruption] for corruption in self._corruptions])
        bounds = np.cumsum(weights) / weights.sum()
        if self._has_one_objective(examples):
            chance = np.full(rows, self._step_draws(examples).uniform(Draw.CORRUPTION)[0, 0])
        else:
            chance = draws.uniform(Draw.CORRUPTION)[:, 0]
        chosen = np.searchsorted(bounds, chance, side="right").clip(max=len(self._corruptions) - 1)
        return {
            name: chosen == self._corruptions.index(name) if name in self._corruptions else np.zeros(rows, bool)
            for name in ROW_CORRUPTIONS
        }

    def _active_objectives(self, examples: Sequence[Mapping[str, Any]]) -> str | None:
        """Return the one objective of this step, or None if all objectives of a row's corruption are enabled."""
        if not self._has_one_objective(examples):
            return None
        draws = self._step_draws(examples)
        assigned = self._assign(examples, draws)
        corrupts = next(ROW_CORRUPTIONS[corruption] for corruption, rows in assigned.items() if rows[0])
        names = [name for name in self.objectives if OBJECTIVES[name].corrupts == corrupts]
        return names[int(draws.uniform(Draw.STEP_OBJECTIVE)[0, 0] * len(names))]

    def _step_draws(self, examples: Sequence[Mapping[str, Any]]) -> KeyedRandom:
        steps = [example["step"] for example in examples if example.get("step") is not None]
        if len(steps) < len(examples):
            found = sorted({str(example.get("step")) for example in examples})
            raise MmptValueError(
                f"policy 'one_objective' draws by optimiser step, got steps {found} in one batch, "
                "expected a number in every example; MmptTrainer gives it to datasets with a length whose "
                "train_sampling_strategy is 'random' or 'group_by_length', else use policy 'conditional'"
            )
        # Rows that fill up the last batch of several processes come from the epoch's first step.
        return KeyedRandom(self.seed, self._epoch_of(examples[0]), np.array([max(steps)]))

    def _epoch_of(self, example: Mapping[str, Any]) -> int:
        """Return the epoch of an example: a Trainer's, else the later one of the collator's and the dataset's."""
        own = int(example.get("epoch", 0))
        return own if "for_evaluation" in example or _is_for_evaluation(example) else max(own, int(self._epoch))

    def _has_one_objective(self, examples: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether the batch has one objective. An evaluation batch never has: every objective is measured."""
        return self.policy == "one_objective" and not _is_for_evaluation(examples[0])

    def _report_repeated_draws(self, draws: KeyedRandom, examples: Sequence[Mapping[str, Any]]) -> None:
        """Warn, once, that an epoch has the masks of an earlier one, because nothing has set the epoch."""
        known = int(self._epoch) != NO_EPOCH or "for_evaluation" in examples[0] or _is_for_evaluation(examples[0])
        if known or self._repeated_draws is None or not self._repeated_draws.found(draws.keys):
            return
        self._repeated_draws = None
        logger.warning(
            "examples come again with the masks and mismatches that they had before (warned once). In training, call "
            "set_epoch(epoch) of this collator at the beginning of each epoch of your loop, or add "
            "mmpt.EpochCallback() to the callbacks of a Trainer that calls the collator by a function of your own. "
            "Where it is meant, as in evaluation, call set_epoch(0). Two tables in a ConcatDataset that have the same "
            "example_id draw alike too: MmptTrainer tells them apart, elsewhere join them into one PairDataset"
        )

    def _tokenize(self, texts: list[Texts]) -> tuple[dict[str, Tensor], Array, Array | None]:
        """Return ids, masks and types; which tokens are ordinary; and the words they belong to."""
        pairs = [text if pair is None else (text, pair) for text, pair in texts]
        tensors, encoded = self.processor.encode_texts(pairs, self._max_tokens, return_special_tokens_mask=True)
        self._report_cut_texts(encoded)
        special = ((tensors.pop("special_tokens_mask") == 1) | (tensors["attention_mask"] == 0)).numpy()
        # [UNK] stands for no word, and a [MASK] of the text itself has no label.
        special |= np.isin(tensors["input_ids"].numpy(), self.processor.tokenizer.all_special_ids)
        words = None if self._words is None else self._words.number(encoded, texts)
        return tensors, ~special, words

    def _report_cut_texts(self, encoded: Any) -> None:
        """Warn, once, that texts are longer than the model reads."""
        if self._reported_cut or len(encoded["input_ids"][0]) < self._max_tokens:
            return
        cut = sum(bool(encoding.overflowing) for encoding in encoded.encodings or ())
        if cut:
            self._reported_cut = True
            logger.warning(
                "%d of %d texts of a batch are longer than %d tokens and were truncated (warned once; the limit is "
                "max_text_length, or the model's max_position_embeddings)",
                cut,
                len(encoded["input_ids"]),
                self._max_tokens,
            )

    def _mask_regions(self, batch: dict[str, Tensor], detected: Tensor, rows: Array, draws: KeyedRandom) -> Tensor:
        """Return which regions are masked, (batch, regions) bool."""
        if not any(OBJECTIVES[name].corrupts == "regions" for name in self.objectives):
            return torch.zeros_like(detected)
        maskable = detected.numpy() & rows[:, None]
        boxes = batch["region_boxes"].numpy()
        return torch.from_numpy(select_regions(maskable, self.probability, draws, boxes, self.overlap_threshold))

    def _region_labels(
        self, batch: dict[str, Tensor], records: list[Regions], predicted: Tensor, classified: Tensor
    ) -> dict[str, Tensor]:
        """Return the labels of the objectives of regions.

        Args:
            predicted: (batch, regions), bool; features and distributions are ignored elsewhere.
            classified: (batch, regions), bool; classes and attributes are ignored elsewhere.
        """
        labels: dict[str, Tensor] = {}
        config, shape, offset = self.config, predicted.shape, int(self.processor.image_processor.whole_image_region)
        classes, distributions = self._predicting("class"), self._predicting("distribution")
        attributes = self._predicting("attribute")
        for name in self._predicting("features"):
            labels[f"{name}_labels"] = torch.full_like(batch["region_features"], IGNORED)
            labels[f"{name}_labels"][predicted] = batch["region_features"][predicted]
        for name in distributions:
            labels[f"{name}_labels"] = torch.full((*shape, config.num_region_classes), float(IGNORED))
        for name in (*classes, *attributes):
            labels[f"{name}_labels"] = torch.full(shape, IGNORED)
        if config.confidence_weighted_classes:
            for names, scores in ((classes, "region_scores"), (attributes, "region_attribute_scores")):
                if names:
                    labels[scores] = torch.ones(shape)
        arrays = {name: tensor.numpy() for name, tensor in labels.items()}  # the same memory, written to below
        seen, told = classified.numpy()[:, offset:], predicted.numpy()[:, offset:]
        for row in np.flatnonzero(seen.any(1)).tolist():
            record = records[row]
            here = np.flatnonzero(seen[row])
            places = here + offset
            probs = None
            if record.class_probs is not None and (classes or distributions):
                probs = checked_probs(record, here, row)
            for name in classes:
                given = np.asarray(record.labels)[here] if probs is None else probs
                arrays[f"{name}_labels"][row, places] = _classes(given, config.region_background_class)
            for name in distributions if probs is not None else ():
                masked = told[row, here]
                arrays[f"{name}_labels"][row, places[masked]] = probs[masked]  # type: ignore[index]
            for name in attributes:
                arrays[f"{name}_labels"][row, places] = record.attribute_labels[here]  # type: ignore[index]
            for name, scores in (
                ("region_scores", record.scores),
                ("region_attribute_scores", record.attribute_scores),
            ):
                if name in arrays and scores is not None:
                    arrays[name][row, places] = scores[here]
        return labels

    def _predicting(self, target: str) -> list[str]:
        """Return the objectives whose labels are of this kind, a word of the table."""
        return [name for name in self.objectives if OBJECTIVES[name].target == target]

    def _check_arguments(self) -> None:
        for name in ("probability", "mismatch_probability", "hard_negative_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise MmptValueError(f"{name} is {getattr(self, name)}, expected a share in 0..1")
        if self.words != "tokenizer" and not self.whole_word:
            raise MmptValueError(f"words is {self.words!r} without whole_word, which it is for; set whole_word=True")
        if self.policy not in ("conditional", "joint", "one_objective"):
            raise MmptValueError(f"policy is {self.policy!r}, expected 'conditional', 'joint' or 'one_objective'")
        unknown = set(self.shares) - set(ROW_CORRUPTIONS)
        if unknown:
            raise MmptValueError(f"shares name {sorted(unknown)}, expected some of {', '.join(ROW_CORRUPTIONS)}")
        for corruption, share in self.shares.items():
            if not 0 <= share < float("inf"):
                raise MmptValueError(f"the share of {corruption!r} is {share}, expected 0 or more")
        if self.overlap_threshold is not None and not 0 <= self.overlap_threshold <= 1:
            raise MmptValueError(
                f"overlap_threshold is {self.overlap_threshold}, expected an IoU in 0..1, or None to look at no overlap"
            )
        if self._predicting("answer"):
            raise MmptValueError(
                "objective 'qa' needs answers, which this collator does not make; leave 'qa' out of objective_weights "
                "or add qa_labels to the batch yourself"
            )

    def _check_examples(self, examples: Sequence[Mapping[str, Any]]) -> None:
        if not len(examples):
            raise MmptValueError("got a batch without examples, expected at least one")
        for row, example in enumerate(examples):
            if not isinstance(example, Mapping):
                raise MmptTypeError(
                    f"example {row} of the batch is {type(example).__name__}, expected a dict with text, image_id and "
                    "regions, as PairDataset gives"
                )
            for name in ("text", "image_id", "regions"):
                if name not in example:
                    raise MmptValueError(
                        f"example {row} of the batch has no {name!r}, got {', '.join(map(str, example)) or 'nothing'}; "
                        "give text, image_id and regions (PairDataset does), and set remove_unused_columns=False with "
                        "the stock Trainer"
                    )
            check_example(example, row)


def _is_for_evaluation(example: Mapping[str, Any]) -> bool:
    """Return whether a Trainer or the example's table says that it is for evaluation, which keeps its epoch."""
    return example.get("for_evaluation", False) or getattr(example.get("pair_table"), "for_evaluation", False)


class _StockTrainerEpochs(EpochCallback):
    """What every Trainer gets that is made after a collator: nothing, unless it trains with one."""

    def is_for(self, collate: Collate) -> bool:
        return isinstance(collate, MmptDataCollator)


def _example_id(example: Mapping[str, Any]) -> int:
    given = example.get("example_id")
    return crc32(f"{example['image_id']}\0{example['text']}".encode()) if given is None else int(given)


def _classes(given: Array, background: int | None) -> Array:
    """Return the most likely class, background never, of distributions; of class numbers -100 where only that is known.

    given: (regions, classes) or (regions,).
    """
    if given.ndim == 2:
        probs = given.astype(np.float32)
        if background is not None:
            probs[:, background] = -1.0
        return probs.argmax(1)
    classes = given.astype(np.int64)
    return classes if background is None else np.where(classes == background, IGNORED, classes)
