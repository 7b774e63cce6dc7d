"""What a pre-trained model knows of held-out pairs, measured where the right answer is known.

The scenes that the package generates have captions whose attribute words can be known only from the image, so that
the accuracy on a masked attribute word, with the regions and with them zeroed, measures grounding itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.objectives import IGNORED, kl_divergence, squared_error
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.pretraining.collator import MmptDataCollator
from mmpt.processing.regions import Regions

BATCH = 256
CHOICES = 32
Batch = dict[str, Tensor]


def measure_grounding(
    model: MmptForPreTraining,
    collator: MmptDataCollator,
    train: PairDataset,
    evaluation: PairDataset,
    attribute_words: Mapping[str, str],
    hard_negatives: Mapping[str, PairDataset],
) -> dict[str, float]:
    """Return the measures of every objective that is on, by name.

    - attribute_word_accuracy: share of attribute words, masked one at a time, that come out most likely, of all and, as
      attribute_word_accuracy_<kind>, of each kind of attribute;
      attribute_word_accuracy_zeroed: the same with features and boxes of all regions set to zero.
    - mrc_accuracy, mrc_kl_of_prior, mrfr_of_mean: regions masked one at a time; the KL divergence as a share of that of
      the training set's mean distribution, the squared error as a share of that of its mean feature.
    - itm_accuracy, itm_hard_accuracy: half of the pairs mismatched, with partners at random and with hard negatives;
      itm_<kind>_accuracy: with one kind of hard negative alone.
    - retrieval_recall_at_1: text to image among 32; left out where there are fewer pairs.

    Each has beside it `<name>_count`, the number of cases.
    """
    was_training = model.training
    model.eval()
    on = model.config.objective_weights
    measures: dict[str, float] = {}
    with torch.no_grad():
        if "mlm" in on:
            for name, zeroed in (("attribute_word_accuracy", False), ("attribute_word_accuracy_zeroed", True)):
                measures |= attribute_word_accuracy(model, collator, evaluation, attribute_words, name, zeroed)
        if {"mrc", "mrc_kl", "mrfr"} & set(on):
            measures |= masked_region_measures(model, collator, train, evaluation)
        if "itm" in on:
            measures |= matching_accuracy(model, collator, evaluation, "itm_accuracy", 0.0)
            measures |= matching_accuracy(model, collator, evaluation, "itm_hard_accuracy", 1.0)
            for kind, pairs in hard_negatives.items():
                measures |= matching_accuracy(model, collator, pairs, f"itm_{kind}_accuracy", 1.0)
            if len(evaluation) >= CHOICES:
                measures |= text_to_image_recall(model, collator, evaluation)
    model.train(was_training)
    return measures


def attribute_word_accuracy(
    model: MmptForPreTraining,
    collator: MmptDataCollator,
    pairs: PairDataset,
    words: Mapping[str, str],
    name: str = "attribute_word_accuracy",
    zero_regions: bool = False,
) -> dict[str, float]:
    """Mask each attribute word of each text, one at a time, and count those that come out most likely.

    Args:
        words: the kind of each word (colour, say); `<name>_<kind>` is the share of its words alone.
    """
    tokenizer = collator.processor.tokenizer
    word_ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(words)))
    said, right = [torch.zeros(0, dtype=torch.long)], [torch.zeros(0, dtype=torch.bool)]
    for batch in _plain_batches(model, collator, pairs):
        rows, places = torch.isin(batch["input_ids"], word_ids.to(model.device)).nonzero(as_tuple=True)
        for chunk in torch.arange(len(rows)).split(BATCH):
            masked = {key: value[rows[chunk]].clone() for key, value in batch.items()}
            own = torch.arange(len(chunk), device=model.device)
            labels = torch.full_like(masked["input_ids"], IGNORED)
            labels[own, places[chunk]] = masked["input_ids"][own, places[chunk]]
            masked["input_ids"][own, places[chunk]] = tokenizer.mask_token_id
            if zero_regions:
                masked["region_features"].zero_()
                masked["region_boxes"].zero_()
            output = model(**masked, mlm_labels=labels, align_logits=False)
            true = labels[own, places[chunk]]
            said.append(true.cpu())
            right.append((output.mlm_logits.argmax(-1) == true).cpu())
    ids, hits = torch.cat(said), torch.cat(right)
    measures = _share(name, int(hits.sum()), len(hits))
    for kind in dict.fromkeys(words.values()):
        of_kind = torch.isin(ids, word_ids[[other == kind for other in words.values()]])
        if of_kind.any():
            measures |= _share(f"{name}_{kind}", int(hits[of_kind].sum()), int(of_kind.sum()))
    return measures


def masked_region_measures(
    model: MmptForPreTraining, collator: MmptDataCollator, train: PairDataset, pairs: PairDataset
) -> dict[str, float]:
    """Mask each region of each image, one at a time, and compare with the best guess that ignores text and image."""
    on = model.config.objective_weights
    known = [train.regions_of(row) for row in range(len(train))]
    mean_feature = torch.from_numpy(np.concatenate([r.features for r in known]).astype(np.float32).mean(0))
    sums: dict[str, float] = dict.fromkeys(("right", "kl", "prior_kl", "error", "mean_error"), 0.0)
    total = 0
    prior = None
    if "mrc" in on or "mrc_kl" in on:
        prior = torch.from_numpy(np.concatenate([_probs(r) for r in known]).mean(0)).to(model.device)
    for start in range(0, len(pairs), BATCH):
        examples = [pairs[row] for row in range(start, min(start + BATCH, len(pairs)))]
        batch, detected, records = _plain_batch(model, collator, examples)
        rows, places = detected.nonzero(as_tuple=True)
        offset = int(collator.processor.image_processor.whole_image_region)
        for chunk in torch.arange(len(rows)).split(BATCH):
            masked = {key: value[rows[chunk]].clone() for key, value in batch.items()}
            own = torch.arange(len(chunk), device=model.device)
            features = masked["region_features"][own, places[chunk]].clone()
            masked["region_features"][own, places[chunk]] = 0.0
            where = torch.zeros_like(masked["region_attention_mask"], dtype=torch.bool)
            where[own, places[chunk]] = True
            output = model(**masked, masked_regions=where)
            if prior is not None:
                regions = [
                    (int(row), int(place) - offset) for row, place in zip(rows[chunk], places[chunk], strict=True)
                ]
                probs = np.stack([_probs(records[row])[place] for row, place in regions])
                target = torch.from_numpy(probs).to(model.device)
                logits = output.mrc_logits[own, places[chunk]]
                sums["right"] += float((logits.argmax(-1) == target.argmax(-1)).sum())
                sums["kl"] += float(kl_divergence(logits, target).sum())
                sums["prior_kl"] += float(kl_divergence(prior.log().expand_as(target), target).sum())
            if "mrfr" in on:
                predicted = output.mrfr_prediction[own, places[chunk]]
                sums["error"] += float(squared_error(predicted, features).sum())
                sums["mean_error"] += float(
                    squared_error(mean_feature.to(features).expand_as(features), features).sum()
                )
            total += len(chunk)
    measures: dict[str, float] = {}
    if "mrc" in on:
        measures |= _share("mrc_accuracy", sums["right"], total)
    if "mrc_kl" in on:
        measures |= {"mrc_kl_of_prior": sums["kl"] / sums["prior_kl"], "mrc_kl_of_prior_count": total}
    if "mrfr" in on:
        measures |= {"mrfr_of_mean": sums["error"] / sums["mean_error"], "mrfr_of_mean_count": total}
    return measures


def matching_accuracy(
    model: MmptForPreTraining, collator: MmptDataCollator, pairs: PairDataset, name: str, hard_negative_rate: float
) -> dict[str, float]:
    """Give every pair to matching, half of them mismatched, and count the right decisions."""
    matching = replace(
        collator, policy="conditional", shares={"itm": 1.0}, hard_negative_rate=hard_negative_rate, max_text_length=None
    )
    right = total = 0
    for batch in DataLoader(pairs, batch_size=BATCH, collate_fn=matching):
        output = model(**{key: value.to(model.device) for key, value in batch.items()})
        right += float(output.itm_accuracy * output.itm_count)
        total += int(output.itm_count)
    return _share(name, right, total)


def text_to_image_recall(
    model: MmptForPreTraining, collator: MmptDataCollator, pairs: PairDataset, choices: int = CHOICES
) -> dict[str, float]:
    """Rank, for each text, the images of its group of `choices` pairs by the score of a match; count the own on top.

    A tie with another image counts as wrong. Pairs that do not fill a group are left out.
    """
    right = total = 0
    for start in range(0, len(pairs) - choices + 1, choices):
        examples = [pairs[row] for row in range(start, start + choices)]
        batch, _, _ = _plain_batch(model, collator, examples)
        text_keys = ("input_ids", "attention_mask", "token_type_ids")
        scores = []
        for texts in torch.arange(choices).split(max(1, BATCH // choices)):
            crossed = {
                key: value[texts].repeat_interleave(choices, dim=0)
                if key in text_keys
                else value.repeat(len(texts), *(1,) * (value.dim() - 1))
                for key, value in batch.items()
            }
            logits = model(**crossed).itm_logits
            scores.append((logits[:, 1] - logits[:, 0]).view(len(texts), choices))
        table = torch.cat(scores)  # (texts, images)
        better = (table >= table.diagonal()[:, None]).sum(1) - 1
        right += int((better == 0).sum())
        total += choices
    return _share("retrieval_recall_at_1", right, total)


def _plain_batches(model: MmptForPreTraining, collator: MmptDataCollator, pairs: PairDataset) -> Iterator[Batch]:
    for start in range(0, len(pairs), BATCH):
        examples = [pairs[row] for row in range(start, min(start + BATCH, len(pairs)))]
        yield _plain_batch(model, collator, examples)[0]


def _plain_batch(
    model: MmptForPreTraining, collator: MmptDataCollator, examples: Sequence[Mapping[str, Any]]
) -> tuple[Batch, Tensor, list[Regions]]:
    """Return the uncorrupted batch on the model's device, where its detected regions are, and the regions read."""
    processor = collator.processor
    texts = [example["text"] for example in examples]
    positions = model.config.max_position_embeddings
    text_batch = processor.tokenizer(texts, padding=True, truncation=True, max_length=positions, return_tensors="pt")
    records = processor.image_processor.records([example["regions"] for example in examples])
    region_batch = processor.image_processor.preprocess(records)
    _, detected = processor.image_processor.pad(records)
    batch = dict(text_batch) | {key: torch.as_tensor(value) for key, value in region_batch.items()}
    return {key: value.to(model.device) for key, value in batch.items()}, detected, records


def _probs(regions: Regions) -> np.ndarray:
    if regions.class_probs is None:
        raise MmptValueError(f"image {regions.image_id!r} has no class_probs, which measuring MRC needs")
    return np.asarray(regions.class_probs, dtype=np.float32)


def _share(name: str, right: float, total: int) -> dict[str, float]:
    if not total:
        raise MmptValueError(f"{name}: there is no case to count; are the evaluation pairs empty?")
    return {name: right / total, f"{name}_count": total}
