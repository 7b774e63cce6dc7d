"""Random examples and a collator for them, small enough to be looked at."""

from typing import Any

import numpy as np

from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES, MmptSingleStreamConfig
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.pretraining.collator import MmptDataCollator
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.regions import Regions
from mmpt.processing.word_tokenizer import build_word_tokenizer

FEATURE, CLASSES, BACKGROUND = 6, 5, 0
WORDS = ("red", "blue", "green", "star", "ring", "dog", "near", "above", "small", "big")
TOKENIZER = build_word_tokenizer([" ".join(WORDS)])


def random_regions(count: int, seed: int = 0, image_id: str | None = None, **fields: Any) -> Regions:
    """Regions whose every field is random, and no feature of which is zero."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4)
    logits = rng.normal(size=(count, CLASSES))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    values: dict[str, Any] = dict(
        features=rng.uniform(0.5, 1.5, (count, FEATURE)).astype(np.float32),
        boxes=corners.astype(np.float32),
        class_probs=probs.astype(np.float32),
        labels=probs.argmax(1) if count else np.zeros(0, np.int64),
        scores=rng.random(count, dtype=np.float32),
        attribute_labels=rng.integers(0, 3, count),
        attribute_scores=rng.random(count, dtype=np.float32),
        image_id=image_id,
    )
    return Regions(**(values | fields))


def random_examples(count: int, seed: int = 0, regions: int = 4, words: int = 6) -> list[dict[str, Any]]:
    """Examples with one to `regions` regions and one to `words` words; each image and each text occurs once."""
    rng = np.random.default_rng(seed)
    examples = []
    for row in range(count):
        text = " ".join(rng.choice(WORDS, int(rng.integers(1, words + 1))))
        image = random_regions(int(rng.integers(1, regions + 1)), seed=1000 * seed + row, image_id=f"image-{row}")
        # The number is an unknown word: it makes the text another one, and is never masked.
        examples.append({"text": f"{text} {row}", "image_id": f"image-{row}", "regions": image, "example_id": row})
    return examples


def pair_table(examples: list[dict[str, Any]], **columns: Any) -> PairDataset:
    """The examples as a pair dataset, with further columns."""
    regions = {example["image_id"]: example["regions"] for example in examples}
    pairs = {name: [example[name] for example in examples] for name in ("text", "image_id")}
    return PairDataset(pairs | columns, regions)


def small_config(objectives: tuple[str, ...] = OBJECTIVE_NAMES, **fields: Any) -> MmptSingleStreamConfig:
    values: dict[str, Any] = dict(
        vocab_size=len(TOKENIZER),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=32,
        region_feature_dim=FEATURE,
        num_region_classes=CLASSES,
        region_background_class=BACKGROUND,
        num_region_attributes=3,
        objective_weights=dict.fromkeys(objectives, 1.0),
    )
    return MmptSingleStreamConfig(**(values | fields))


def make_collator(
    objectives: tuple[str, ...] = OBJECTIVE_NAMES,
    *,
    config: MmptSingleStreamConfig | None = None,
    tokenizer: Any = TOKENIZER,
    image_processor: MmptImageProcessor | None = None,
    **fields: Any,
) -> MmptDataCollator:
    processor = MmptProcessor(image_processor or MmptImageProcessor(), tokenizer)
    return MmptDataCollator(processor, config or small_config(objectives), **fields)


def within(count: Any, total: Any, share: float) -> bool:
    """Return whether `count` of `total` is the share, up to five standard deviations of chance."""
    return abs(float(count) - float(total) * share) <= 5 * np.sqrt(float(total) * share * (1 - share))
