"""Pictures of an explanation, of grounding and of a ranking, drawn with Matplotlib (the extra `plots`)."""

import io
import logging
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmpt.configuration.errors import MmptImportError, MmptValueError
from mmpt.explanations.explanation import Explanation
from mmpt.inference.region_picture import COLOURS, draw_regions, find_font
from mmpt.processing.regions import Regions

logger = logging.getLogger(__name__)

ACCENT, FAINT, BASE, QUIET = "#D55E00", "#9AA5B1", "#0072B2", "#3D4852"
DPI = 110
SIDE = 480  # pixels of a picture's longer side
Picture = Image.Image | str | Path | None


def draw_explanation(explanation: Explanation, image: Picture = None) -> Image.Image:
    """Draw the regions, the answers, what each region's ablation does to the first, and the relevance of words.

    With late or hybrid fusion also what text and image say by themselves.

    Args:
        image: the picture that the regions are of; an empty sheet without.

    Raises:
        ImportError: without Matplotlib.
        ValueError: if the image cannot be read, or is of another size than the regions' image.
    """
    regions = explanation.regions
    name, probability = explanation.answers[0]
    rows = 3 if explanation.decisions else 2
    figure = _figure(11, 3.1 * rows + 0.6)
    grid = figure.add_gridspec(rows, 2)
    text = textwrap.fill(_short(explanation.text, 180), 95)
    figure.suptitle(f"{text}\n→ {_plain(name)} ({probability:.2f})", fontsize=12)
    drops = probability - explanation.ablated
    title = f"Without region {explanation.decisive} the answer loses most"
    if drops.max() <= 0:
        title = "No single region supports the answer"
    axes = figure.add_subplot(grid[:2, 0])
    _show(axes, regions, image, title, explanation.decisive if drops.max() > 0 else None)
    top = figure.add_subplot(grid[0, 1])
    said, scores = zip(*explanation.answers, strict=True)
    _bars(top, said, scores, "Answers: probability", first=ACCENT)
    below = figure.add_subplot(grid[1, 1])
    names = [f"without {label}" for label in region_names(explanation)] + ["without any region"]
    colours = [ACCENT if n == explanation.decisive and drops.max() > 0 else BASE for n in range(len(regions))] + [FAINT]
    values = [*explanation.ablated.tolist(), explanation.ablated_all]
    _bars(
        below, names, values, f"Probability of “{_short(name, 20)}” when a region's feature is zeroed", colours=colours
    )
    below.axvline(probability, color="black", lw=1, ls="--")
    if explanation.decisions:
        _decisions(figure.add_subplot(grid[2, :]), explanation)
    return _as_image(figure)


def draw_relevance(explanation: Explanation, image: Picture = None) -> Image.Image:
    """Draw how relevant each word and each region is for the answer, by gradient-weighted attention."""
    attention, regions = explanation.attention, explanation.regions
    figure = _figure(11, max(4.4, 0.26 * len(explanation.tokens) + 1.2))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    of_regions = _shares(attention.relevance_of_regions)
    _show(left, regions, image, "Regions: the fuller, the more relevant")
    for box, share in zip(_pixel_boxes(left, regions), of_regions, strict=True):
        left.add_patch(_patch(box, facecolor=ACCENT, alpha=0.75 * share, edgecolor="none"))
    words, values = explanation.tokens, _shares(attention.relevance_of_tokens).tolist()
    _bars(right, words, values, f"Words, relevance for “{explanation.answers[0][0]}” (largest = 1)", label=False)
    figure.supxlabel("gradient-weighted attention (Chefer et al. 2021), recomputed with eager attention", fontsize=9)
    return _as_image(figure)


def draw_attention(explanation: Explanation) -> Image.Image:
    """Draw how much each word attends to each region, a panel a layer and head.

    Raises:
        ValueError: for a model with late fusion, whose words attend to no region.
    """
    weights = explanation.attention.text_to_region
    if weights is None:
        raise MmptValueError("with late fusion words do not attend to regions: there is no attention to draw")
    layers, heads, tokens, regions = weights.shape
    figure = _figure(max(6.0, 3.0 * heads + 1.4), layers * max(2.4, 0.21 * tokens) + 0.9)
    panels = figure.subplots(layers, heads, squeeze=False)
    drawn = None
    for layer in range(layers):
        for head in range(heads):
            axes = panels[layer, head]
            drawn = axes.imshow(weights[layer, head], aspect="auto", cmap="cividis", vmin=0, vmax=float(weights.max()))
            axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=10)
            axes.set_xticks(range(regions), range(regions))
            axes.set_xlabel("region" if layer == layers - 1 else "")
            words = [_plain(token) for token in explanation.tokens] if head == 0 else []
            axes.set_yticks(range(tokens) if head == 0 else [], words, fontsize=8)
    figure.colorbar(drawn, ax=panels, label="attention weight", shrink=0.8)
    figure.suptitle("Words (rows) attend to regions (columns)", fontsize=12)
    return _as_image(figure)


def draw_masked_regions(explanation: Explanation, image: Picture = None) -> Image.Image:
    """Draw what MRC, MRC-KL and MRFR predict for each region when it is masked, beside what the detector said.

    Raises:
        ValueError: for a model without these objectives.
    """
    masked, names = explanation.masked_regions, explanation.class_names
    if not masked:
        raise MmptValueError("the model was not pre-trained with MRC, MRC-KL or MRFR: it predicts no masked region")
    columns = min(3, len(masked))
    figure = _figure(max(4.3 * columns, 5.0), 2.7 * math.ceil(len(masked) / columns) + 2.9)
    sheet = figure.add_gridspec(1 + math.ceil(len(masked) / columns), columns)
    picture = figure.add_subplot(sheet[0, :])
    _show(picture, explanation.regions, image, "Each region is masked by itself")
    for number, each in enumerate(masked):
        axes = figure.add_subplot(sheet[1 + number // columns, number % columns])
        rows = [("detector", each.detector, FAINT), ("model", each.model, BASE)]
        bars = [(f"{who}: {_class(n, names)}", p, c) for who, said, c in rows for n, p in said or []]
        measured = [f"KL {each.kl:.2f}" if each.kl is not None else "", ""]
        measured[1] = f"cosine {each.cosine:.2f}, error {each.squared_error:.2f}" if each.cosine is not None else ""
        title = f"region {number}: {', '.join(filter(None, measured))}"
        if bars:
            words, values, colours = zip(*bars, strict=True)
            _bars(axes, words, values, title, colours=list(colours))
        else:
            axes.set_title(title, fontsize=10)
            axes.axis("off")
    figure.supxlabel("model: MRC and MRC-KL (probabilities, KL divergence), MRFR (feature: cosine, error)", fontsize=9)
    return _as_image(figure)


def draw_grounding(
    found: Sequence[Mapping[str, Any]], regions: Regions, text: str, image: Picture = None
) -> Image.Image:
    """Draw the regions that an expression means with their scores.

    Args:
        found: what `MmptPipeline.ground` returned, or one phrase of `ground_phrases`.
        regions: those that it chose from.
    """
    figure = _figure(5.4, 5.6)
    axes = figure.subplots()
    _show(axes, regions, image, _short(text, 60), numbered=False)
    numbers = [each["region"] for each in found]
    boxes = _pixel_boxes(axes, regions)
    for place, each in reversed(list(enumerate(found))):
        box = boxes[numbers[place]]
        colour = ACCENT if place == 0 else FAINT
        axes.add_patch(_patch(box, facecolor="none", edgecolor=colour, lw=3 if place == 0 else 1.5))
        style = dict(facecolor=colour, edgecolor="none", pad=1.5)
        axes.text(box[0], box[1] - 3, f"{each['score']:.2f}", color="white", fontsize=9, bbox=style)
    return _as_image(figure)


def draw_ranking(
    query: str, pictures: Sequence[Image.Image], scores: Sequence[float], right: Sequence[bool] | None = None
) -> Image.Image:
    """Draw a text with the images that fit it best, the best first, as a grid.

    Args:
        pictures: in the order of the ranking.
        right: which of them belong to the text, where that is known; they get a green frame.
    """
    columns = min(4, len(pictures))
    figure = _figure(2.7 * columns, 3.0 * math.ceil(len(pictures) / columns) + 0.7)
    panels = figure.subplots(math.ceil(len(pictures) / columns), columns, squeeze=False).ravel()
    figure.suptitle(_short(query, 30 * columns), fontsize=12)
    for place, axes in enumerate(panels):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        if place >= len(pictures):
            continue
        axes.imshow(pictures[place].convert("RGB"))
        axes.set_title(f"{place + 1}: {scores[place]:.3f}", fontsize=10)
        if right is not None and right[place]:
            axes.spines[:].set(visible=True, color="#009E73", linewidth=4)
    return _as_image(figure)


def region_names(explanation: Explanation) -> list[str]:
    """Return what each region is called: its number, and its class where that has a name."""
    labels, names = explanation.regions.labels, explanation.class_names
    if labels is None or names is None:
        return [f"region {number}" for number in range(len(explanation.regions))]
    return [f"region {number} ({_class(int(label), names)})" for number, label in enumerate(labels)]


def _decisions(axes: Any, explanation: Explanation) -> None:
    """Draw the first answers of each modality and of both together."""
    words = {"both": "both", "text": "the text alone", "regions": "the image alone"}
    bars = [
        (f"{words[who]} (weight {weight:.2f}): {answer}", probability, colour)
        for (who, (said, weight)), colour in zip(explanation.decisions.items(), COLOURS, strict=False)
        for answer, probability in said[:2]
    ]
    names, values, colours = zip(*bars, strict=True)
    _bars(axes, names, values, "What each modality says by itself", colours=list(colours))


def _bars(
    axes: Any,
    names: Sequence[str],
    values: Sequence[float],
    title: str,
    first: str | None = None,
    colours: Sequence[str] | None = None,
    label: bool = True,
) -> None:
    places = range(len(names))
    axes.barh(places, values, color=colours or [first or BASE] + [BASE] * (len(names) - 1), height=0.7)
    axes.set_yticks(places, [_short(_plain(name), 34) for name in names], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 if label else 1.0)
    axes.set_title(title, fontsize=9.5)
    axes.spines[["top", "right"]].set_visible(False)
    for place, value in enumerate(values if label else ()):
        style = dict(facecolor="white", edgecolor="none", pad=0.6)  # on top of a line that crosses it
        axes.text(value + 0.01, place, f"{value:.2f}", va="center", fontsize=8, bbox=style, zorder=3)


def _show(
    axes: Any, regions: Regions, image: Picture, title: str, marked: int | None = None, numbered: bool = True
) -> None:
    """Show an image, or an empty sheet, with the numbers of its regions and one of them marked."""
    none = regions.select(np.zeros(0, dtype=np.int64))
    axes.imshow(draw_regions(none, image, side=SIDE))
    axes.set_title(title, fontsize=10)
    axes.axis("off")
    for number, box in enumerate(_pixel_boxes(axes, regions) if numbered else ()):
        colour, width = (ACCENT, 4) if number == marked else (QUIET, 1.5)
        axes.add_patch(_patch(box, facecolor="none", edgecolor=colour, lw=width))
        style = dict(facecolor=colour, edgecolor="none", pad=1.5)
        axes.text(box[0], box[1], str(number), color="white", fontsize=8, va="bottom", bbox=style)


def _pixel_boxes(axes: Any, regions: Regions) -> np.ndarray:
    """Return boxes in pixels of the picture that the axes show."""
    height, width = axes.images[0].get_size()
    return np.asarray(regions.boxes, dtype=np.float64) * [width, height, width, height]


def _patch(box: np.ndarray, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1], **style)


def _shares(values: np.ndarray) -> np.ndarray:
    """Return values as shares of the largest; zeros where none is above 0."""
    values = np.clip(values, 0, None)
    return values / values.max() if values.max(initial=0) > 0 else values


def _class(number: int, names: Sequence[str] | None) -> str:
    return names[number] if names is not None and number < len(names) else f"class {number}"


def _plain(words: str) -> str:
    """Return words without the dollar signs that Matplotlib would take for formulas."""
    return words.replace("$", r"\$")


def _short(words: str, letters: int) -> str:
    words = words.replace("$", r"\$")
    return words if len(words) <= letters else f"{words[: letters - 1]}…"


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MmptImportError("pictures are drawn with Matplotlib: pip install 'mmpt[plots]'") from error
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)  # Agg without pyplot: no display, no global state
    return figure


def _as_image(figure: Any) -> Image.Image:
    every = "".join(each.get_text() for each in figure.findobj(lambda artist: hasattr(artist, "get_text")))
    font, lacking = find_font(every)
    if lacking:
        logger.warning(
            "no font at hand has %s; empty boxes are drawn in their place. Install one (fonts-noto-cjk, say)",
            ", ".join(map(repr, lacking[:5])),
        )
    path = getattr(font, "path", None)
    if isinstance(path, str) and not every.isascii() and not lacking:
        _write_with(figure, path)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # said above, once
        figure.savefig(buffer, format="png")
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def _write_with(figure: Any, path: str) -> None:
    from matplotlib.font_manager import FontProperties

    for text in figure.findobj(lambda artist: hasattr(artist, "set_fontproperties")):
        size = text.get_fontsize()
        text.set_fontproperties(FontProperties(fname=path))
        text.set_fontsize(size)
