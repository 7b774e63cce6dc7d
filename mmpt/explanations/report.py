"""The report of a run: one HTML page with its pictures inside, which needs no network."""

import base64
import html
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from mmpt.configuration.errors import MmptError, MmptFileNotFoundError, MmptValueError
from mmpt.explanations.explanation import explain
from mmpt.explanations.figures import draw_explanation
from mmpt.explanations.word_examples import WordExample, word_examples
from mmpt.hub.measures import MEANINGS
from mmpt.inference.pipeline import MmptPipeline
from mmpt.recipe.recipe import Recipe, load_recipe
from mmpt.tasks.evaluation import open_task_model
from mmpt.tasks.gallery import article_of
from mmpt.training.data_sources import Corpus, evaluation_table, open_corpus

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --ink: #1a1a1a; --quiet: #555; --line: #ddd; --page: #fafaf8; --card: #fff; --accent: #0072b2; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #eee; --quiet: #aaa; --line: #444; --page: #181818; --card: #222; --accent: #56b4e9; }}
  img {{ background: #fff; }}
}}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; padding: 0 1rem; max-width: 1100px;
  color: var(--ink); background: var(--page); }}
h1 {{ font-size: 1.4rem; margin: 0; }} h2 {{ font-size: 1.15rem; margin: 2rem 0 .6rem; }}
h3 {{ font-size: 1rem; margin: 1rem 0 .4rem; }} p {{ color: var(--quiet); margin: .2rem 0 .8rem; }}
.heads {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: .8rem; }}
.head, article {{ background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem; }}
.head b {{ font-size: 1.7rem; color: var(--accent); display: block; }} .head small {{ color: var(--quiet); }}
.examples {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: .8rem; }}
img {{ max-width: 100%; border-radius: 3px; }} figure {{ margin: 0; }}
blockquote {{ margin: .3rem 0 .6rem; font-weight: 600; }} code, pre {{ font-size: 13px; }}
pre {{ overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-size: 14px; }}
th {{ text-align: left; font-weight: 600; }} th, td {{ padding: .15rem .9rem .15rem 0; vertical-align: top; }}
</style>
<h1>{title}</h1>
<p>{about}</p>
<h2>What came out</h2>
<div class="heads">{headline}</div>
{curves}
<h2>Best and worst examples</h2>
{examples}
<h2>All measures</h2>
<div class="wide"><table><tr><th>measure<th>value<th>what it says</tr>{measures}</table></div>
<h2>Recipe</h2>
<pre>{recipe}</pre>
<h2>Versions and hardware</h2>
<p>{environment}</p>
</html>
"""


class Examples(NamedTuple):
    """The examples of a report, as HTML.

    Args:
        about: what they are the best and worst of.
    """

    about: str
    best: list[str]
    worst: list[str]


def write_report(folder: Path, path: Path, count: int, rows: int) -> Path:
    """Write the report of a finished run and return its path.

    Args:
        count: how many of the best and of the worst examples are shown; 0 opens neither model nor data.
        rows: evaluation rows that they are chosen from, the first ones.

    Raises:
        MmptFileNotFoundError: if the folder is not that of a finished run.
    """
    for name in ("metrics.json", "recipe.yaml", "config.json"):
        if not (folder / name).is_file():
            raise MmptFileNotFoundError(f"{folder} has no {name}, expected the folder of a finished run")
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    recipe = load_recipe(folder / "recipe.yaml", command="finetune" if "task" in metrics else "pretrain")
    kind = "pre-training" if recipe.task is None else f"the task {recipe.task.name!r}"
    architecture = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures", [""])[0]
    curves = folder / "curves.png"
    page = _PAGE.format(
        title=html.escape(f"Report: {folder.resolve().name}"),
        about=html.escape(f"{architecture}, {metrics.get('parameters', 0):,} parameters, trained for {kind}."),
        headline="".join(_heads(metrics.get("headline", {}))) or "<p>Nothing was measured.</p>",
        curves=f"<h2>Curves</h2>{_image(Image.open(curves), 'losses and metrics over the steps')}"
        if curves.is_file()
        else "",
        examples=_examples(folder, recipe, count, rows),
        measures="".join(_measures(metrics)),
        recipe=html.escape((folder / "recipe.yaml").read_text(encoding="utf-8").strip()),
        environment=html.escape(_environment(folder)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _heads(headline: Mapping[str, Any]) -> Iterator[str]:
    for name, each in headline.items():
        chance = "" if each["chance"] is None else f"chance {each['chance']:.3g}. "
        words = html.escape(f"{chance}{each['meaning']}")
        yield f'<div class="head"><b>{each["value"]:.3g}</b>{html.escape(name)}<br><small>{words}</small></div>'


def _measures(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table row for each number of metrics.json, by the path of its keys."""
    for section, values in metrics.items():
        if section == "headline":
            continue
        for name, value in values.items() if isinstance(values, Mapping) else [("", values)]:
            if isinstance(value, int | float):
                says = MEANINGS.get(name, "")
                label = f"{section}.{name}" if name else section
                yield f"<tr><td><code>{html.escape(label)}</code><td>{value:.6g}<td>{html.escape(says)}</tr>"


def _environment(folder: Path) -> str:
    """Return what the run's card says of versions and hardware."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    _, found, rest = text.partition("## Versions and hardware\n")
    return rest.partition("\n## ")[0].strip() if found else "Not recorded."


def _examples(folder: Path, recipe: Recipe, count: int, rows: int) -> str:
    if not count:
        return "<p>None were asked for.</p>"
    try:
        found = _words(folder, recipe, count, rows) if recipe.task is None else _rows(folder, recipe, count, rows)
    except MmptError as error:
        return f"<p>There are none: {html.escape(str(error))}</p>"
    parts = [f"<p>{html.escape(found.about)}</p>"]
    for name, articles in (("Worst", found.worst), ("Best", found.best)):
        parts.append(f'<h3>{name}</h3><div class="examples">{"".join(articles) or "<p>None.</p>"}</div>')
    return "\n".join(parts)


def _words(folder: Path, recipe: Recipe, count: int, rows: int) -> Examples:
    """Return the masked words that a pre-trained model is least and most sure of."""
    corpus = open_corpus(recipe.data)
    if corpus.evaluation is None:
        raise MmptValueError("the recipe has no rows to evaluate on")
    pipeline = MmptPipeline.from_pretrained(folder)
    found = word_examples(pipeline, corpus.evaluation, corpus.attribute_words, rows)
    count = min(count, len(found) // 2)
    about = (
        f"One word is masked in each of {len(found)} texts; shown are those whose word got the lowest and the highest"
    )
    worst, best = found[:count], found[len(found) - count :][::-1]
    return Examples(
        f"{about} probability.",
        [_word_article(pipeline, each, corpus) for each in best],
        [_word_article(pipeline, each, corpus) for each in worst],
    )


def _word_article(pipeline: MmptPipeline, example: WordExample, corpus: Corpus) -> str:
    picture = corpus.picture(example.regions.image_id or "")
    drawn = draw_explanation(explain(pipeline, example.text, example.regions), picture)
    said = f"right: {example.word} ({example.probability:.3f})"
    return (
        f"<article><blockquote>{html.escape(example.text)}</blockquote><p>{html.escape(said)}</p>"
        f"{_image(drawn, example.text)}</article>"
    )


def _rows(folder: Path, recipe: Recipe, count: int, rows: int) -> Examples:
    """Return the wrong and the right predictions that a fine-tuned model is most certain of."""
    saved = open_task_model(str(folder))
    table = evaluation_table(recipe.data, saved.name)
    predictions = list(saved.predict(table.dataset, 64))
    ids, chosen = table.dataset.ids(), range(min(rows, len(predictions)))
    judged = {row: saved.task.assess(predictions[row], row, table.dataset, saved.numbers) for row in chosen}
    order = sorted(chosen, key=lambda row: -predictions[row]["confidence"])
    articles = [
        [
            article_of(ids[row], table.dataset.table[row], table, predictions[row], judged[row], "<article>")
            for row in [row for row in order if judged[row].right == right][:count]
        ]
        for right in (True, False)
    ]
    wrong = sum(not each.right for each in judged.values())
    about = f"{wrong} of {len(judged)} rows are wrong; shown are those that the model is most certain of."
    return Examples(about, *articles)


def _image(picture: Image.Image, words: str) -> str:
    buffer = io.BytesIO()
    # 256 colours: pixel noise would take most of the bytes, and a JPEG blurs words.
    picture.convert("RGB").quantize(method=Image.Quantize.FASTOCTREE).save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img alt="{html.escape(words)}" src="data:image/png;base64,{data}"></figure>'
