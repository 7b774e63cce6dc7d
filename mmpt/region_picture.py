"""The picture of an image's regions: boxes, labels and scores, on the image or on an empty sheet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmpt.processing.region_extraction.image_loading import load_image
from mmpt.processing.regions import Regions

SIDE = 1000  # pixels of a picture's longer side
SHEET = (236, 236, 232)
# Colours of Okabe and Ito: told apart by most people who see few colours, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FONT_SIZE = 15


def draw_regions(
    regions: Regions,
    image: str | Path | Image.Image | None = None,
    class_names: Sequence[str] | None = None,
    side: int = SIDE,
) -> Image.Image:
    """Draw boxes with labels and scores; the most certain regions lie on top.

    Args:
        image: the picture itself, upright; an empty sheet of its size, or a square, if None.
        class_names: names of the labels.
        side: pixels of the picture's longer side.

    Raises:
        ValueError: if the image cannot be read.
    """
    if image is None:
        canvas = Image.new("RGB", (regions.width or SIDE, regions.height or SIDE), SHEET)
    else:
        canvas = image.convert("RGB") if isinstance(image, Image.Image) else load_image(image)
    scale = side / max(canvas.size)
    canvas = canvas.resize([max(1, round(side * scale)) for side in canvas.size], Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(FONT_SIZE)
    labels, scores = labels_and_scores(regions)
    order = np.argsort(scores, kind="stable") if scores is not None else np.arange(len(regions))
    boxes = np.asarray(regions.boxes, dtype=np.float64) * np.asarray([*canvas.size, *canvas.size])
    taken: list[tuple[float, float, float, float]] = []
    for number in order.tolist():
        draw.rectangle(tuple(boxes[number]), outline=_colour(labels, number), width=2)
    for number in reversed(order.tolist()):  # the most certain one chooses the place of its words first
        words = _words(number, labels, scores, class_names)
        _write(draw, words, tuple(boxes[number]), _colour(labels, number), font, canvas.size, taken)
    return canvas


def labels_and_scores(regions: Regions) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return labels and scores, from the class distribution where they are not given themselves."""
    labels, scores, probs = regions.labels, regions.scores, regions.class_probs
    if probs is not None and len(probs):
        labels = probs.argmax(1) if labels is None else labels
        scores = probs.max(1) if scores is None else scores
    return labels, scores


def _colour(labels: np.ndarray | None, number: int) -> str:
    return COLOURS[int(number if labels is None else labels[number]) % len(COLOURS)]


def _words(number: int, labels: np.ndarray | None, scores: np.ndarray | None, class_names: Sequence[str] | None) -> str:
    if labels is None:
        name = f"region {number}"
    else:
        label = int(labels[number])
        name = class_names[label] if class_names is not None and label < len(class_names) else f"class {label}"
    return name if scores is None else f"{name} {scores[number]:.2f}"


def _write(
    draw: ImageDraw.ImageDraw,
    words: str,
    box: tuple[float, ...],
    colour: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Write words at the first corner of the box where they cover no others, or not at all."""
    width, height = draw.textlength(words, font=font) + 6, FONT_SIZE + 5
    left, top, right, bottom = box
    places = [(left, top - height), (left, top), (right - width, bottom - height), (left, bottom), (right - width, top)]
    for x, y in places:
        x, y = min(max(0.0, x), max(0.0, size[0] - width)), min(max(0.0, y), size[1] - height)
        area = (x, y, x + width, y + height)
        if not any(area[0] < b[2] and b[0] < area[2] and area[1] < b[3] and b[1] < area[3] for b in taken):
            draw.rectangle(area, fill=colour)
            draw.text((x + 3, y + 1), words, fill="white", font=font)
            taken.append(area)
            return
