"""A synthetic corpus with the shapes of real ones: only lengths, widths and dtypes matter to speed.

Texts have N(13, 4) words in 5..40, like COCO captions; images have 36 regions of 2,048 numbers, float16, and 1,601
classes, or an adaptive number of regions, 10..100 and about 38 in the mean; the vocabulary has 30,522 words.
"""

import numpy as np
from transformers import PreTrainedTokenizerFast

from mmpt import PairDataset, Regions, build_word_tokenizer

VOCABULARY, FEATURE_DIM, CLASSES, REGIONS = 30_522, 2_048, 1_601, 36

SIZES = {
    # hidden, heads, intermediate, layers of the single stream, of the dual (text alone, regions alone, joined)
    "tiny": (128, 2, 512, 2, (2, 1, 1)),
    "small": (256, 4, 1024, 6, (4, 2, 2)),
    "base": (768, 12, 3072, 12, (9, 5, 5)),
    "large": (1024, 16, 4096, 24, (14, 5, 10)),
}


def make_pairs(
    pairs: int, images: int, seed: int = 0, regions_per_image: int | None = REGIONS, words: int | None = None
) -> PairDataset:
    """Return pairs whose images share `images` sets of regions.

    Args:
        regions_per_image: None for an adaptive number.
        words: of every text; None draws their number.
    """
    rng = np.random.default_rng(seed)
    regions = {}
    for number in range(images):
        count = regions_per_image or int(np.clip(np.exp(rng.normal(3.52, 0.5)), 10, 100))
        corners = rng.random((count, 2, 2), np.float32)
        top = rng.integers(1, CLASSES, count)
        probs = np.full((count, CLASSES), 0.2 / CLASSES, np.float32)
        probs[np.arange(count), top] += 0.8
        regions[f"image-{number}"] = Regions(
            features=np.maximum(rng.standard_normal((count, FEATURE_DIM), np.float32), 0).astype(np.float16),
            boxes=np.concatenate([corners.min(1), corners.max(1)], axis=1),
            class_probs=probs,
            image_id=f"image-{number}",
        )
    lengths = np.clip(np.rint(rng.normal(13, 4, pairs)), 5, 40).astype(int)
    if words is not None:
        lengths[:] = words
    texts = [" ".join(f"w{word}" for word in rng.integers(0, VOCABULARY - 5, length)) for length in lengths]
    image_ids = [f"image-{number}" for number in rng.integers(0, images, pairs)]
    return PairDataset({"text": texts, "image_id": image_ids}, regions)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows every word of the workload: 30,522 with the special ones."""
    return build_word_tokenizer([f"w{number}" for number in range(VOCABULARY - 5)])
