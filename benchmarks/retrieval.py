"""What two-stage retrieval finds and costs beside scoring every pair jointly, on generated scenes.

A small single-stream model is trained on captions of scenes; each of the 500 images of the evaluation has one caption.
One thread; times of one run, of the process (CPU) and of the clock.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mmpt import (
    MmptImageProcessor,
    MmptPipeline,
    MmptProcessor,
    MmptSingleStreamConfig,
    MmptSingleStreamForImageAndTextRetrieval,
    RetrievalIndex,
    build_word_tokenizer,
)
from mmpt.processing.generated_scenes.tasks import SceneTask
from mmpt.processing.tasks.collator import NOT_FOR_THE_MODEL, TaskDataCollator
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.processing.tasks.inputs import pair_inputs
from mmpt.processing.tasks.labels import group_labels

CAPTIONS = 3  # of a scene
BATCH, LEARNING_RATE = 48, 2e-3
CANDIDATES = (0, 10, 20, 50)
DIRECTIONS = ("text_to_image", "image_to_text")
PLACES = (1, 5, 10)
TEXTS_AT_ONCE = 50


def train(task: SceneTask, steps: int, folder: Path) -> dict[str, float]:
    """Train a retrieval model, save it with its processor, and return what that took."""
    tokenizer = build_word_tokenizer(task.texts)
    config = MmptSingleStreamConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        region_feature_dim=task.feature_dim,
        num_region_classes=len(task.class_names),
        region_background_class=None,
        contrastive_size=64,
        retrieval_loss="cross_entropy",
        retrieval_negatives=3,
    )
    torch.manual_seed(0)
    model = MmptSingleStreamForImageAndTextRetrieval(config)
    processor = MmptProcessor(MmptImageProcessor(), tokenizer)
    pairs = TaskDataset(task.train, task.regions)
    collator = TaskDataCollator(processor, config, pair_inputs, group_labels)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    # Up over a fifth of the steps, down over the last 30 %.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / (0.2 * steps), (steps - step) / (0.3 * steps))
    )
    draw = torch.Generator().manual_seed(0)
    order: list[int] = []
    started = time.process_time()
    for step in range(1, steps + 1):
        if len(order) < BATCH:
            order = torch.randperm(len(pairs), generator=draw).tolist()
        rows, order = order[:BATCH], order[BATCH:]
        batch = collator([pairs[row] for row in rows])
        loss = model(**{name: value for name, value in batch.items() if name not in NOT_FOR_THE_MODEL}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}: loss {loss.item():.2f}, {time.process_time() - started:.0f} s", flush=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return {"cpu_seconds": time.process_time() - started, "parameters": model.num_parameters()}


def measure(pipeline: MmptPipeline, pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return recall and times of scoring every pair, and of two stages with each number of candidates.

    Args:
        pairs: the text and the image id of each pair; a text belongs to its image only.
    """
    texts, images = [text for text, _ in pairs], [image for _, image in pairs]
    own = range(len(pairs))

    def score_all() -> list[list[dict[str, Any]]]:
        ranked: list[list[dict[str, Any]]] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            ranked += pipeline.rank_images(texts[start : start + TEXTS_AT_ONCE], images)
        return ranked

    ranked, times = timed(score_all)
    scores = torch.empty(len(texts), len(images), dtype=torch.float64)
    for row, items in enumerate(ranked):
        scores[row, [each["index"] for each in items]] = torch.tensor([each["score"] for each in items]).double()
    found = {
        "text_to_image": recalls(scores.argsort(1, descending=True).tolist(), own),
        "image_to_text": recalls(scores.T.argsort(1, descending=True).tolist(), own),
    }
    rows: list[dict[str, Any]] = [
        {"ranking": "every pair", "direction": direction, "candidates": len(pairs), **found[direction], **times}
        for direction in DIRECTIONS
    ]
    for direction in DIRECTIONS:
        from_texts = direction == "text_to_image"
        make = (
            (lambda: RetrievalIndex.of_images(pipeline))
            if from_texts
            else (lambda: RetrievalIndex.of_texts(pipeline, texts))
        )
        index, indexing = timed(make)
        queries, items = (texts, images) if from_texts else (images, texts)
        for candidates in CANDIDATES:
            results, times = timed(lambda: index.search(queries, top_k=max(PLACES), rerank=candidates))  # noqa: B023
            place = {item: number for number, item in enumerate(items)}
            named = [[place[each[index.item]] for each in result] for result in results]
            row = {"ranking": "two stages", "direction": direction, "candidates": candidates}
            rows.append(row | recalls(named, own) | times | {"index_seconds": indexing["wall_seconds"]})
            print(rows[-1], flush=True)
    return rows


def recalls(ranked: Sequence[Sequence[int]], own: Sequence[int]) -> dict[str, float]:
    """Return the share of queries whose own item is among the first 1, 5 and 10."""
    return {
        f"recall_at_{place}": sum(item in items[:place] for item, items in zip(own, ranked, strict=True)) / len(own)
        for place in PLACES
    }


def timed(run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what `run` returns, and how long that took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def main() -> None:
    """Train, measure, print a table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--train-scenes", type=int, default=4000)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/retrieval.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = SceneTask.build("retrieval", CAPTIONS * arguments.train_scenes, CAPTIONS * arguments.images)
    folder = arguments.out.parent / "retrieval-model"
    training = train(task, arguments.steps, folder)
    pairs = list(zip(task.evaluation["text"], task.evaluation["image_id"], strict=True))[::CAPTIONS]
    regions = {image_id: task.regions[image_id] for _, image_id in pairs}
    pipeline = MmptPipeline.from_pretrained(folder, device="cpu", batch_size=arguments.batch_size, regions=regions)
    rows = measure(pipeline, pairs)
    print(f"{'ranking':12}{'direction':15}{'candidates':>11}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'CPU s':>9}{'clock s':>9}")
    for row in rows:
        found = "".join(f"{row[f'recall_at_{place}']:7.3f}" for place in PLACES)
        print(
            f"{row['ranking']:12}{row['direction']:15}{row['candidates']:11}{found}{row['cpu_seconds']:9.1f}"
            f"{row['wall_seconds']:9.1f}"
        )
    settings = {key: value for key, value in vars(arguments).items() if key != "out"}
    report = {"settings": settings, "torch": torch.__version__, "training": training, "rows": rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(arguments.out)


if __name__ == "__main__":
    main()
