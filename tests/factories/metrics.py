"""Examples for every metric: a row's inputs, ids apart, by name of metric."""

from typing import Any

import numpy as np

Row = dict[str, Any]


def metric_examples(seed: int, rows: int = 11) -> dict[str, list[Row]]:
    """Return `rows` rows of each metric; for retrieval as many texts, with each of five images."""
    draw = np.random.default_rng(seed)
    corners = draw.uniform(0, 50, (rows, 2))
    boxes = np.concatenate([corners, corners + draw.uniform(10, 50, (rows, 2))], axis=1)
    moved = boxes + draw.uniform(-8, 8, (rows, 1))
    labels = draw.integers(0, 3, rows)
    tokens = np.where(draw.random((rows, 4)) < 0.4, draw.integers(0, 7, (rows, 4)), -100)
    tokens[0, 0] = 2
    given = [
        {"predictions": int(labels[i] if draw.random() < 0.7 else 0), "references": int(labels[i])} for i in range(rows)
    ]
    masked = [draw.random((4, 1)) < 0.5 for _ in range(rows)]
    masked[0][:] = True
    return {
        "vqa_accuracy": [
            {
                "predictions": str(draw.choice(["two", "a dog", "yes"])),
                "references": ["2"] * int(n) + ["dog"] * int(10 - n),
            }
            for n in draw.integers(0, 11, rows)
        ],
        "retrieval_recall": [
            {
                "predictions": float(draw.normal()),
                "references": int(text % 5 == image),
                "text_ids": f"t{text}",
                "image_ids": image,
            }
            for text in range(rows)
            for image in range(5)
        ],
        "accuracy": given,
        "consistency": [row | {"groups": f"g{place // 2}"} for place, row in enumerate(given)],
        "grounding_accuracy": [{"predictions": moved[i], "references": boxes[i]} for i in range(rows)],
        "phrase_recall": [{"predictions": moved[i], "references": [boxes[i - 1], boxes[i]]} for i in range(rows)],
        "mlm": [{"predictions": draw.normal(size=(4, 7)), "references": tokens[i]} for i in range(rows)],
        "mrc": [{"predictions": draw.normal(size=(4, 7)), "references": tokens[i]} for i in range(rows)],
        "mrc_kl": [
            {
                "predictions": draw.normal(size=(4, 7)),
                "references": np.where(masked[i], draw.dirichlet(np.ones(7), 4), -100.0),
            }
            for i in range(rows)
        ],
        "mrfr": [
            {
                "predictions": draw.normal(size=(4, 6)),
                "references": np.where(masked[i], draw.normal(size=(4, 6)), -100.0),
            }
            for i in range(rows)
        ],
        "itm": [{"predictions": draw.normal(size=2), "references": i % 2} for i in range(rows)],
    }


def as_batch(rows: list[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
