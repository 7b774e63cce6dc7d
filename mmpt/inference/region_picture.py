"""The picture of an image's regions: boxes, labels and scores, on the image or on an empty sheet."""

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

SIDE = 1000  # pixels of a picture's longer side
SHEET = (236, 236, 232)
# Colours of Okabe and Ito: told apart by most people who see few colours, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FONT_SIZE = 15
# Fonts that systems and matplotlib come with, looked for where the default one lacks a character.
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
    """Draw boxes with labels and scores; the most certain regions lie on top.

    Names with characters that no font at hand has are drawn as the class's number, with a warning that says so.

    Args:
        image: the picture itself, upright; an empty sheet of its size, or a square, if None.
        class_names: names of the labels.
        side: pixels of the picture's longer side.
        font_file: font to write with; None finds one that has the characters of the class names.

    Raises:
        ValueError: if the image cannot be read, or has another size than the one whose regions these are.
    """
    if image is None:
        canvas = Image.new("RGB", (regions.width or SIDE, regions.height or SIDE), SHEET)
    else:
        canvas = image.convert("RGB") if isinstance(image, Image.Image) else load_image(image)
        size = (regions.width, regions.height)
        if None not in size and canvas.size != size:
            raise MmptValueError(
                f"{regions.title(0)}: the regions are of a picture of {size[0]} x {size[1]} pixels, the picture given "
                f"has {canvas.size[0]} x {canvas.size[1]}; give the one that they were extracted from"
            )
    scale = side / max(canvas.size)
    canvas = canvas.resize([max(1, round(side * scale)) for side in canvas.size], Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(canvas)
    labels, scores = labels_and_scores(regions)
    every = [_words(number, labels, scores, class_names) for number in range(len(regions))]
    font, lacking = find_font("".join(every), font_file)
    if lacking:
        logger.warning(
            "no font at hand has %s; classes with such names are drawn as numbers. Install one (fonts-noto-cjk, say) "
            "or name its file with --font",
            ", ".join(map(repr, lacking[:5])),
        )
        plain = [_words(number, labels, scores, None) for number in range(len(regions))]
        every = [other if set(words) & set(lacking) else words for words, other in zip(every, plain, strict=True)]
    order = np.argsort(scores, kind="stable") if scores is not None else np.arange(len(regions))
    boxes = np.asarray(regions.boxes, dtype=np.float64) * np.asarray([*canvas.size, *canvas.size])
    taken: list[tuple[float, float, float, float]] = []
    for number in order.tolist():
        draw.rectangle(tuple(boxes[number]), outline=_colour(labels, number), width=2)
    for number in reversed(order.tolist()):  # the most certain one chooses the place of its words first
        _write(draw, every[number], tuple(boxes[number]), _colour(labels, number), font, canvas.size, taken)
    return canvas


def find_font(
    text: str, font_file: str | Path | None = None
) -> tuple[ImageFont.ImageFont | ImageFont.FreeTypeFont, list[str]]:
    """Return a font that has the characters of a text, or the default one and the characters that it lacks.

    Raises:
        ValueError: if the given file is no font.
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
    """Return the fonts that matplotlib comes with, where it is installed."""
    found = find_spec("matplotlib")
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" if found and found.origin else None
    return [] if folder is None else [str(folder / "DejaVuSans.ttf")]


def _lacking(font: ImageFont.ImageFont | ImageFont.FreeTypeFont, text: str) -> list[str]:
    """Return the characters of a text that a font draws as it draws a character that is none."""
    none = _drawn(font, "\U0010ffff")
    return [
        letter
        for letter in dict.fromkeys(text)
        if letter.isprintable() and letter != " " and _drawn(font, letter) == none
    ]


def _drawn(font: ImageFont.ImageFont | ImageFont.FreeTypeFont, letter: str) -> tuple[tuple[int, int], bytes]:
    mask: Any = font.getmask(letter)
    return mask.size, bytes(mask)


def choose_regions(regions: Regions, top: int | None = None, threshold: float | None = None) -> Regions:
    """Return the most certain regions, in their order: at most `top` of them, none below `threshold`.

    Raises:
        ValueError: if they have no scores, or none is left.
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
