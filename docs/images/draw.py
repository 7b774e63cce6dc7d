"""Draw the pictures of the docs again: `python docs/images/draw.py`; those of a model come from the packaged one."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from mmpt import MmptDataCollator, draw_explanation, explain, load_example
from mmpt.processing.pairs.dataset import PairDataset

HERE = Path(__file__).resolve().parent
TEXT, REGION, BOTH, INK = "#CFE3F5", "#FBE3D0", "#DDEFE3", "#222222"
ACCENT = "#D55E00"


def figure_of(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def box(axes: Any, x: float, y: float, width: float, words: str, colour: str, height: float = 0.7) -> None:
    style = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.04", facecolor=colour, edgecolor=INK, lw=1)
    axes.add_patch(style)
    axes.text(x + width / 2, y + height / 2, words, ha="center", va="center", fontsize=10, color=INK)


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=colour, lw=1.3))


def draw_streams() -> None:
    """Draw the single stream, and the dual stream with co-attention."""
    figure = figure_of(11.5, 6.2)
    single, dual = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for axes, title, width in (
        (single, "single stream: UNITER, VisualBERT, Oscar", 6.2),
        (dual, "dual stream: ViLBERT, LXMERT", 8.0),
    ):
        axes.set(xlim=(0, width), ylim=(-0.3, 7.4))
        axes.axis("off")
        axes.set_title(title, fontsize=12)
    box(single, 0.2, 0, 2.7, "words", TEXT)
    box(single, 3.2, 0, 2.8, "regions and boxes", REGION)
    box(single, 0.2, 1.3, 2.7, "text embeddings", TEXT)
    box(single, 3.2, 1.3, 2.8, "region embeddings", REGION)
    box(single, 0.2, 2.8, 5.8, "one encoder over both:\nevery word attends to every region, and back", BOTH, 1.6)
    box(single, 0.2, 5.6, 1.7, "masked\nwords", TEXT, 1.0)
    box(single, 2.25, 5.6, 1.7, "match\nor not", BOTH, 1.0)
    box(single, 4.3, 5.6, 1.7, "masked\nregions", REGION, 1.0)
    for x in (1.55, 4.6):
        arrow(single, (x, 0.78), (x, 1.22))
        arrow(single, (x, 2.08), (x, 2.72))
    for x, words in ((1.05, "MLM"), (3.1, "ITM"), (5.15, "MRC, MRC-KL,\nMRFR")):
        arrow(single, (x, 4.48), (x, 5.5))
        single.text(x, 6.75, words, ha="center", va="bottom", fontsize=9)
    box(dual, 0.2, 0, 3.0, "words", TEXT)
    box(dual, 4.8, 0, 3.0, "regions and boxes", REGION)
    box(dual, 0.2, 1.3, 3.0, "text layers:\nself-attention", TEXT, 0.9)
    box(dual, 4.8, 1.3, 3.0, "region layers:\nself-attention", REGION, 0.9)
    box(dual, 0.2, 3.0, 3.0, "co-attention:\nqueries from text", BOTH, 0.9)
    box(dual, 4.8, 3.0, 3.0, "co-attention:\nqueries from regions", BOTH, 0.9)
    box(dual, 0.2, 4.3, 3.0, "text layers", TEXT)
    box(dual, 4.8, 4.3, 3.0, "region layers", REGION)
    box(dual, 0.2, 5.6, 2.0, "masked\nwords", TEXT, 1.0)
    box(dual, 3.0, 5.6, 2.0, "match\nor not", BOTH, 1.0)
    box(dual, 5.8, 5.6, 2.0, "masked\nregions", REGION, 1.0)
    for x in (1.7, 6.3):
        for low, high in ((0.78, 1.22), (2.28, 2.92), (3.98, 4.22)):
            arrow(dual, (x, low), (x, high))
    arrow(dual, (4.9, 2.28), (3.1, 2.95), ACCENT)
    arrow(dual, (3.1, 2.28), (4.9, 2.95), ACCENT)
    dual.text(4.0, 3.15, "keys and values\nof the other", ha="center", va="bottom", fontsize=8.5, color=ACCENT)
    for start, end in (((1.2, 5.08), (1.2, 5.5)), ((2.4, 5.08), (3.6, 5.5)), ((6.8, 5.08), (6.8, 5.5))):
        arrow(dual, start, end)
    arrow(dual, (5.6, 5.08), (4.4, 5.5))  # ViLBERT; in LXMERT the text alone
    for x, words in ((1.2, "MLM"), (4.0, "ITM"), (6.8, "MRC, MRC-KL, MRFR")):
        dual.text(x, 6.75, words, ha="center", va="bottom", fontsize=9)
    figure.savefig(HERE / "streams.png")


def draw_objectives() -> None:
    """Draw one pair before and after the corruption of each objective, as the collator makes it."""
    pipeline, scenes = load_example()
    scene, other = scenes[0], scenes[2]
    text = scene.text.replace("[MASK]", scene.word)
    other_text = other.text.replace("[MASK]", other.word)
    table = PairDataset({"text": [text, other_text], "image_id": ["a", "b"]}, {"a": scene.regions, "b": other.regions})
    tokenizer = pipeline.processor.tokenizer
    figure = figure_of(12.5, 7.2)
    panels = figure.subplots(2, 3).ravel()
    show(panels[0], scene, text, "the pair", "")
    rows = (
        ("MLM: mask words", "text", "predict: the word that stood there"),
        ("MRC: mask regions", "regions", "predict: the detector's class"),
        ("MRC-KL: mask regions", "regions", "predict: the detector's distribution"),
        ("MRFR: mask regions", "regions", "predict: the feature"),
        ("ITM: exchange text or image", "itm", "predict: matched or not"),
    )
    for axes, (title, share, task) in zip(panels[1:], rows, strict=True):
        batch, regions = corrupted(pipeline, table, share)
        ids = batch["input_ids"][0]
        words = " ".join(tokenizer.convert_ids_to_tokens(ids[batch["attention_mask"][0] > 0].tolist()[1:-1]))
        shown = other if share == "itm" and regions is other.regions else scene
        masked = batch["masked_regions"][0].nonzero().flatten().tolist()
        show(axes, shown, words, title, task, masked)
    figure.savefig(HERE / "objectives.png")
    with Image.open(HERE / "objectives.png") as picture:  # the noise of the scenes would take a megabyte
        small = picture.convert("RGB").quantize(method=Image.Quantize.FASTOCTREE)
    small.save(HERE / "objectives.png", optimize=True)


def corrupted(pipeline: Any, table: PairDataset, share: str) -> tuple[dict[str, Any], Any]:
    """Return the first row as the collator corrupts it, in the first epoch in which that can be seen."""
    collator = MmptDataCollator(pipeline.processor, pipeline.model.config, shares={share: 1.0}, probability=0.15)
    for epoch in range(100):
        collator.set_epoch(epoch)
        batch = collator([table[0], table[1]])
        masks = int((batch["input_ids"][0] == pipeline.processor.tokenizer.mask_token_id).sum())
        if share == "text" and (not 2 <= masks <= 3 or (batch["mlm_labels"][0] != -100).sum() != masks):
            continue
        if share == "itm" and batch["itm_labels"][0] != 0:
            continue
        same = np.allclose(batch["region_boxes"][0, : len(table[0]["regions"])], table[0]["regions"].boxes)
        return batch, table[0]["regions"] if same else table[1]["regions"]
    raise AssertionError(f"no epoch corrupts the row by {share}")


def show(axes: Any, scene: Any, text: str, title: str, task: str, masked: Any = ()) -> None:
    pixels = np.asarray(scene.image).copy()
    side = pixels.shape[0]
    axes.imshow(pixels)
    for number, region in enumerate(scene.regions.boxes * side):
        x1, y1, x2, y2 = region
        hidden = number in masked
        patch = Rectangle((x1, y1), x2 - x1, y2 - y1, lw=2, ec=ACCENT if hidden else INK, fc=INK if hidden else "none")
        axes.add_patch(patch)
        if hidden:
            axes.text((x1 + x2) / 2, (y1 + y2) / 2, "0", color="white", ha="center", va="center", fontsize=13)
    axes.set_title(title, fontsize=12)
    lines = wrapped(text)
    axes.set_xlabel("\n".join([*lines, *([task] if task else [])]), fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def wrapped(text: str, width: int = 46) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def main() -> None:
    pipeline, scenes = load_example()
    scene = scenes[0]
    draw_explanation(explain(pipeline, scene.text, scene.regions), scene.image).quantize(
        method=Image.Quantize.FASTOCTREE
    ).save(HERE / "first-answer.png", optimize=True)
    draw_streams()
    draw_objectives()


if __name__ == "__main__":
    main()
