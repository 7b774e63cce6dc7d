"""A training run that takes a second: pairs in memory, a tiny model of either stream, MmptTrainer."""

from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES, MmptDualStreamConfig, MmptSingleStreamConfig
from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.pretraining.collator import MmptDataCollator
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.regions import Regions
from mmpt.processing.word_tokenizer import build_word_tokenizer
from mmpt.training.trainer import MmptTrainer, MmptTrainingArguments

FEATURE_DIM, CLASSES = 6, 5
WORDS = ("red", "blue", "small", "large", "star", "dog", "near", "above", "the", "a")


def tiny_dataset(pairs: int = 16, seed: int = 0, for_evaluation: bool = False) -> PairDataset:
    """Pairs of random words and one to four random regions."""
    rng = np.random.default_rng(seed)
    regions = {}
    texts = []
    for row in range(pairs):
        count = int(rng.integers(1, 5))
        corners = rng.random((count, 2, 2), dtype=np.float32)
        boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
        logits = rng.normal(size=(count, CLASSES))
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        features = rng.normal(size=(count, FEATURE_DIM)).astype(np.float32)
        name = f"image-{row}"
        regions[name] = Regions(features, boxes, class_probs=probs.astype(np.float32), image_id=name)
        texts.append(" ".join(rng.choice(WORDS, size=int(rng.integers(3, 8)))) + f" {row}")
    return PairDataset({"text": texts, "image_id": list(regions)}, regions, for_evaluation=for_evaluation)


def tiny_model(
    stream: str = "single", objectives: tuple[str, ...] = OBJECTIVE_NAMES, **fields: Any
) -> MmptForPreTraining:
    """A model of two layers, 16 wide, without dropout."""
    common: dict[str, Any] = dict(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        region_feature_dim=FEATURE_DIM,
        num_region_classes=CLASSES,
        objective_weights=dict.fromkeys(objectives, 1.0),
    )
    if stream == "single":
        return MmptSingleStreamForPreTraining(MmptSingleStreamConfig(**(common | fields)))
    layers: dict[str, Any] = dict(
        region_num_hidden_layers=1, text_co_attention_layers=[1], region_co_attention_layers=[0]
    )
    return MmptDualStreamForPreTraining(MmptDualStreamConfig(**(common | layers | fields)))


def tiny_collator(model: MmptForPreTraining, **fields: Any) -> MmptDataCollator:
    """A collator whose tokenizer knows the words of `tiny_dataset`."""
    tokenizer = build_word_tokenizer([" ".join(WORDS), " ".join(map(str, range(20)))])
    return MmptDataCollator(MmptProcessor(MmptImageProcessor(), tokenizer), model.config, **fields)


def tiny_trainer(
    output_dir: Path,
    model: MmptForPreTraining,
    *,
    train: Dataset[Any] | None = None,
    evaluation: PairDataset | None = None,
    masking: dict[str, Any] | None = None,
    **arguments: Any,
) -> MmptTrainer:
    """A trainer on the CPU that logs every step and saves nothing unless told to."""
    values: dict[str, Any] = dict(
        output_dir=str(output_dir),
        per_device_train_batch_size=4,
        max_steps=4,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    return MmptTrainer(
        model=model,
        args=MmptTrainingArguments(**(values | arguments)),
        data_collator=tiny_collator(model, **(masking or {})),
        train_dataset=tiny_dataset() if train is None else train,
        eval_dataset=evaluation,
    )
