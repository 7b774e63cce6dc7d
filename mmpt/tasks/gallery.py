"""The gallery of wrong and right predictions: one HTML page with its pictures inside, which needs no network."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from mmpt.inference.region_picture import draw_regions
from mmpt.tasks.error_analysis import Judgement, Shown
from mmpt.tasks.predictions import Prediction
from mmpt.tasks.table import TASKS
from mmpt.training.task_sources import TaskTable

SIDE = 320  # pixels of a picture's longer side
TRUE_COLOUR, FOUND_COLOUR = "#009E73", "#D55E00"  # of Okabe and Ito

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
.gold {{ color: {true}; }} .said {{ color: {found}; }}
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
    """Write the predictions that the model was most certain of, wrong ones beside right ones, and return how many rows
    are wrong.

    Args:
        name: of the task.
        predictions: one a row of the table.
        numbers: the model's number of each class by its name.
        count: how many of each are shown at most.
    """
    judge, dataset = TASKS[name].judge, table.dataset
    ids = dataset.ids()
    judged = [judge(prediction, row, dataset, numbers) for row, prediction in enumerate(predictions)]
    order = sorted(range(len(judged)), key=lambda row: -predictions[row]["confidence"])
    wrong = [row for row in order if not judged[row].right]
    right = [row for row in order if judged[row].right]
    wrong_articles, right_articles = (
        [
            article_of(ids[row], dataset.table[row], table, predictions[row], judged[row], opening)
            for row in rows[:count]
        ]
        for rows, opening in ((wrong, "<article>"), (right, '<article class="right">'))
    )
    summary = (
        f"{len(wrong)} of {len(predictions)} rows are wrong; shown are {len(wrong_articles)} of them and "
        f"{len(right_articles)} right ones, those that the model was most certain of first."
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
    judgement: Judgement,
    opening: str,
) -> str:
    """Return the HTML of one prediction, its pictures inside, beginning with the tag `opening`."""
    figures = "".join(_figure(shown, table) for shown in judgement.images)
    lines = [
        ("gold", "gold", judgement.gold),
        ("prediction", "said", f"{judgement.said} ({prediction['confidence']:.0%})"),
    ]
    for who, said in prediction.get("decisions", {}).items():
        words = f"{said['prediction']} ({said['confidence']:.0%}), weight {said['weight']:.2f}"
        lines.append((f"{who} said", "", words))
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
    # Boxes are in pixels of the image that the regions were found in; the file may be a smaller copy of it.
    size = (regions.width, regions.height) if image is None or regions.width else image.size
    canvas = draw_regions(regions, None, table.class_names, SIDE) if image is None else image.convert("RGB")
    scale = SIDE / max(canvas.size)
    canvas = canvas.resize([max(1, round(side * scale)) for side in canvas.size], Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(canvas)
    for boxes, colour in ((shown.true, TRUE_COLOUR), (shown.found, FOUND_COLOUR)):
        for x1, y1, x2, y2 in boxes:  # only images of a known size have any
            across, down = canvas.width / (size[0] or 1), canvas.height / (size[1] or 1)
            draw.rectangle((x1 * across, y1 * down, x2 * across, y2 * down), outline=colour, width=3)
    buffer = io.BytesIO()
    canvas.save(buffer, format="JPEG", quality=88)  # a fifth of a PNG's bytes where the image has noise
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = f"<figcaption>{html.escape(shown.caption)}</figcaption>" if shown.caption else ""
    return f'<figure><img alt="{html.escape(shown.image_id)}" src="data:image/jpeg;base64,{data}">{caption}</figure>'
