"""Draw the regions of an image: boxes, labels and scores, on the image or on a blank canvas."""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_extraction.image_loading import load_image
from mmpt.processing.regions import Regions

logger = logging.getLogger(__name__)

SIDE = 1000  # longer side of the drawing in pixels
SHEET = (236, 236, 232)
# Colour-blind-safe palette of Okabe and Ito.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FONT_SIZE = 15
# Fonts of operating systems and matplotlib, tried in order if the default font lacks a character.
FONTS = (
    *("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf"),
    *("SourceHanSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf"),
    *("uming.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Arial Unicode.ttf"),
    *("msyh.ttc", "simhei.ttf", "simsun.ttc", "malgun.ttf", "meiryo.ttc", "NanumGothic.ttf"),
)


def draw_regions(
    regions: Regions,
    image: str | Path | Image.Image | None = None,
    class_names: Sequence[str] | None = None,
    side: int = SIDE,
    font_file: str | Path | None = None,
) -> Image.Image:
    """Draw boxes with labels and scores; regions with the highest scores are on top.

    If no available font has the characters of a class name, draw the class number instead and log a warning.

    Args:
        image: the upright image. None draws on a blank canvas of its size, or on a square if the size is unknown.
        class_names: names of the labels.
        side: longer side of the drawing in pixels.
        font_file: font file; None searches a font with the characters of the class names.

    Raises:
        ValueError: if the image cannot be read, or its size differs from that of the regions.
    """
    if image is None:
        canvas = Image.new("RGB", (regions.width or SIDE, regions.height or SIDE), SHEET)
    else:
        canvas = image.convert("RGB") if isinstance(image, Image.Image) else load_image(image)
        size = (regions.width, regions.height)
        if None not in size and canvas.size != size:
            raise MmptValueError(
                f"{regions.title(0)}: the regions are of an image of {size[0]} x {size[1]} pixels, the given image "
                f"has {canvas.size[0]} x {canvas.size[1]}; give the image that they were extracted from"
            )
    scale = side / max(canvas.size)
    canvas = canvas.resize([max(1, round(side * scale)) for side in canvas.size], Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(canvas)
    labels, scores = labels_and_scores(regions)
    every = [_words(number, labels, scores, class_names) for number in range(len(regions))]
    font, lacking = find_font("".join(every), font_file)
    if lacking:
        logger.warning(
            "no available font has %s; classes with such names are drawn as numbers. Install one, such as "
            "fonts-noto-cjk, or give its file with --font",
            ", ".join(map(repr, lacking[:5])),
        )
        plain = [_words(number, labels, scores, None) for number in range(len(regions))]
        every = [other if set(words) & set(lacking) else words for words, other in zip(every, plain, strict=True)]
    order = np.argsort(scores, kind="stable") if scores is not None else np.arange(len(regions))
    boxes = np.asarray(regions.boxes, dtype=np.float64) * np.asarray([*canvas.size, *canvas.size])
    taken: list[tuple[float, float, float, float]] = []
    for number in order.tolist():
        draw.rectangle(tuple(boxes[number]), outline=_colour(labels, number), width=2)
    for number in reversed(order.tolist()):  # labels are placed in the order of descending score
        _write(draw, every[number], tuple(boxes[number]), _colour(labels, number), font, canvas.size, taken)
    return canvas


def find_font(
    text: str, font_file: str | Path | None = None
) -> tuple[ImageFont.ImageFont | ImageFont.FreeTypeFont, list[str]]:
    """Return (font, []) with a font that has all characters of a text, or (default font, missing characters).

    Raises:
        ValueError: if the given file is not a font.
    """
    default = ImageFont.load_default(FONT_SIZE)
    if font_file is not None:
        try:
            given = ImageFont.truetype(str(font_file), FONT_SIZE)
        except OSError:
            raise MmptValueError(f"{font_file} cannot be read as a font, expected a .ttf, .otf or .ttc file") from None
        return given, _lacking(given, text)
    lacking = _lacking(default, text)
    names = iter([*FONTS, *_fonts_of_matplotlib()] if lacking else [])
    for name in names:
        try:
            font = ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
        if not _lacking(font, text):
            return font, []
    return default, lacking


def _fonts_of_matplotlib() -> list[str]:
    """Return the font files of matplotlib, or an empty list if it is not installed."""
    found = find_spec("matplotlib")
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" if found and found.origin else None
    return [] if folder is None else [str(folder / "DejaVuSans.ttf")]


def _lacking(font: ImageFont.ImageFont | ImageFont.FreeTypeFont, text: str) -> list[str]:
    """Return the characters that a font lacks: those drawn in the same way as a code point without a character."""
    missing = _drawn(font, "\U0010ffff")
    return [
        character
        for character in dict.fromkeys(text)
        if character.isprintable() and character != " " and _drawn(font, character) == missing
    ]


def _drawn(font: ImageFont.ImageFont | ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask: Any = font.getmask(character)
    return mask.size, bytes(mask)


def choose_regions(regions: Regions, top: int | None = None, threshold: float | None = None) -> Regions:
    """Return the regions with the highest scores in their original order: at most `top`, none below `threshold`.

    Raises:
        ValueError: if the regions have no scores, or none has a score of at least `threshold`.
    """
    if top is None and threshold is None:
        return regions
    scores = labels_and_scores(regions)[1]
    if scores is None:
        raise MmptValueError(f"{regions.title(0)}: the regions have no scores, which --top and --threshold need")
    keep = np.ones(len(regions), bool) if threshold is None else scores >= threshold
    if not keep.any():
        best = f"the highest is {scores.max():.2f}" if len(scores) else "there is no region"
        raise MmptValueError(f"{regions.title(0)}: no region has a score of {threshold} or more, {best}")
    chosen = np.flatnonzero(keep)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")][:top]
    return regions.select(np.sort(chosen))


def labels_and_scores(regions: Regions) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return (labels, scores), each (regions,) or None; missing ones are derived from the class probabilities."""
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
    """Write a label at the first corner of the box where it overlaps no other label, or leave it out."""
    width, height = draw.textlength(words, font=font) + 6, FONT_SIZE + 5
    left, top, right, bottom = box
    last = right - width
    for x, y in ((left, top - height), (left, top), (last, bottom - height), (left, bottom), (last, top)):
        x, y = min(max(0.0, x), max(0.0, size[0] - width)), min(max(0.0, y), size[1] - height)
        area = (x, y, x + width, y + height)
        if not any(area[0] < b[2] and b[0] < area[2] and area[1] < b[3] and b[1] < area[3] for b in taken):
            draw.rectangle(area, fill=colour)
            draw.text((x + 3, y + 1), words, fill="white", font=font)
            taken.append(area)
            return
