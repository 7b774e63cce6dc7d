"""Gallery of wrong and right predictions, as one self-contained HTML page with embedded images."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from mmpt.inference.region_picture import draw_regions
from mmpt.tasks.error_analysis import Assessment, Shown
from mmpt.tasks.predictions import Prediction
from mmpt.tasks.table import TASKS
from mmpt.training.data_sources import TaskTable

SIDE = 320  # longer side of an image in pixels
TRUE_COLOUR, FOUND_COLOUR = "#009E73", "#D55E00"  # from the colour-blind-safe palette of Okabe and Ito

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #1a1a1a; background: #fafaf8; }}
h1 {{ font-size: 1.25rem; margin: 0 0 .2rem; }}
h2 {{ font-size: 1.05rem; margin: 1.2rem 0 .6rem; }}
.two {{ display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; align-items: start; }}
p {{ margin: 0 0 1rem; color: #555; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1rem; align-items: start; }}
article {{ background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: .8rem; }}
figure {{ display: inline-block; margin: 0 .4rem .4rem 0; max-width: 100%; }}
figcaption {{ color: #555; font-size: 13px; }}
img {{ max-width: 100%; border-radius: 3px; }}
blockquote {{ margin: .3rem 0 .6rem; font-weight: 600; }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; }}
th {{ text-align: left; font-weight: 400; color: #555; padding: .1rem .6rem .1rem 0; white-space: nowrap; }}
td {{ padding: .1rem 0; }}
.gold {{ color: {true}; }} .predicted {{ color: {found}; }}
small {{ color: #777; }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<div class="two">
<section><h2>Wrong</h2><main>
{wrong}
</main></section>
<section><h2>Right</h2><main>
{right}
</main></section>
</div>
</html>
"""


def write_gallery(
    path: Path,
    name: str,
    table: TaskTable,
    predictions: Sequence[Prediction],
    numbers: Mapping[str, int],
    count: int,
) -> int:
    """Write the most confident predictions, wrong and right ones side by side, and return the number of wrong rows.

    Args:
        name: name of the task.
        predictions: one per row of the table.
        numbers: name of a class -> the model's number of it.
        count: maximum number of wrong and of right predictions to show.
    """
    assess, dataset = TASKS[name].assess, table.dataset
    ids = dataset.ids()
    assessed = [assess(prediction, row, dataset, numbers) for row, prediction in enumerate(predictions)]
    order = sorted(range(len(assessed)), key=lambda row: -predictions[row]["confidence"])
    wrong = [row for row in order if not assessed[row].right]
    right = [row for row in order if assessed[row].right]
    wrong_articles, right_articles = (
        [
            article_of(ids[row], dataset.table[row], table, predictions[row], assessed[row], opening)
            for row in rows[:count]
        ]
        for rows, opening in ((wrong, "<article>"), (right, '<article class="right">'))
    )
    summary = (
        f"{len(wrong)} of {len(predictions)} rows are wrong. This page shows {len(wrong_articles)} wrong and "
        f"{len(right_articles)} right predictions, the most confident first."
    )
    page = _PAGE.format(
        title=html.escape(f"Predictions: {name}"),
        summary=summary,
        wrong="\n".join(wrong_articles),
        right="\n".join(right_articles),
        true=TRUE_COLOUR,
        found=FOUND_COLOUR,
    )
    path.write_text(page, encoding="utf-8")
    return len(wrong)


def article_of(
    example_id: str,
    example: Mapping[str, Any],
    table: TaskTable,
    prediction: Prediction,
    assessment: Assessment,
    opening: str,
) -> str:
    """Return the HTML of one prediction, its pictures inside, beginning with the tag `opening`."""
    figures = "".join(_figure(shown, table) for shown in assessment.images)
    lines = [
        ("gold", "gold", assessment.gold),
        ("prediction", "predicted", f"{assessment.predicted} ({prediction['confidence']:.0%})"),
    ]
    for source, each in prediction.get("decisions", {}).items():
        words = f"{each['prediction']} ({each['confidence']:.0%}), weight {each['weight']:.2f}"
        lines.append((f"predicted from {source}", "", words))
    rows = "".join(
        f'<tr><th>{html.escape(label)}</th><td class="{kind}">{html.escape(words)}</td></tr>'
        for label, kind, words in lines
    )
    text = " / ".join(filter(None, (example["text"], example.get("text_pair"))))
    return (
        f"{opening}{figures}<blockquote>{html.escape(text)}</blockquote><table>{rows}</table>"
        f"<small>{html.escape(example_id)}</small></article>"
    )


def _figure(shown: Shown, table: TaskTable) -> str:
    image, regions = table.picture(shown.image_id), table.dataset.regions[shown.image_id]
    # Boxes are in pixels of the image that the regions were extracted from; the file may be a smaller copy.
    size = (regions.width, regions.height) if image is None or regions.width else image.size
    canvas = draw_regions(regions, None, table.class_names, SIDE) if image is None else image.convert("RGB")
    scale = SIDE / max(canvas.size)
    canvas = canvas.resize([max(1, round(side * scale)) for side in canvas.size], Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(canvas)
    for boxes, colour in ((shown.true, TRUE_COLOUR), (shown.found, FOUND_COLOUR)):
        for x1, y1, x2, y2 in boxes:  # only images of known size have boxes
            across, down = canvas.width / (size[0] or 1), canvas.height / (size[1] or 1)
            draw.rectangle((x1 * across, y1 * down, x2 * across, y2 * down), outline=colour, width=3)
    buffer = io.BytesIO()
    canvas.save(buffer, format="JPEG", quality=88)  # a fifth of the size of a PNG for noisy images
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = f"<figcaption>{html.escape(shown.caption)}</figcaption>" if shown.caption else ""
    return f'<figure><img alt="{html.escape(shown.image_id)}" src="data:image/jpeg;base64,{data}">{caption}</figure>'
