"""The model card of a run, README.md in its folder: every sentence is a fact of the run or a limit of it."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from PIL import Image

from mmpt import __version__
from mmpt.configuration.self_contained import saved_class
from mmpt.hub.example_picture import EXAMPLE, draw_example
from mmpt.hub.measures import MEANINGS, Headline, Measure, baseline_of, shown_measures
from mmpt.modeling_mmpt.modeling_base import MmptPreTrainedModel
from mmpt.modeling_mmpt.objectives import OBJECTIVES
from mmpt.processing.regions import Regions
from mmpt.recipe.recipe import Recipe
from mmpt.recipe.values import write_yaml

SAMPLE = "sample.json"
SAMPLE_REGIONS = 8
SOURCE_LINE = 'source = "{}"'
_VERSIONS = ("torch", "transformers", "datasets", "accelerate", "huggingface_hub")


@dataclass
class Rows:
    """What a card says of a table of rows: what they are for, and what names them."""

    role: str
    texts: Sequence[str]
    image_ids: Sequence[str]
    second_image_ids: Sequence[str | None] = ()

    @cached_property
    def fingerprint(self) -> str:
        """The start of the sha256 of texts and image ids, in their order."""
        return fingerprint(self)


class Sample(NamedTuple):
    """The example of a card: a text with regions, or inputs that are ready for the model.

    Args:
        image: the picture of the regions, where it is at hand.
    """

    text: str
    regions: Regions | None = None
    image: Image.Image | None = None
    inputs: Mapping[str, torch.Tensor] | None = None


def write_card(
    folder: Path,
    recipe: Recipe,
    model: MmptPreTrainedModel,
    tables: Sequence[Rows],
    regions: Any,
    measures: Sequence[Measure],
    headlines: Sequence[Headline],
    sample: Sample,
    runtime: float | None,
    processes: int = 1,
) -> None:
    """Write README.md, sample.json and example.png into the folder of a run that has ended.

    Nothing is downloaded or sent. The picture is left out where the folder has no model yet, or Matplotlib is missing.

    Args:
        regions: what the regions came from; a `RegionStore` tells extractor and fingerprint.
        headlines: the measures that say what the run is worth, with what guessing gets.
        runtime: seconds that training took.
    """
    write_sample(folder / SAMPLE, sample)
    data = _data_source(recipe)
    name = folder.resolve().name
    task = None if recipe.task is None else recipe.task.name
    shown = shown_measures(measures)
    card_data = ModelCardData(
        license=data.licence,
        library_name="transformers",
        pipeline_tag=_pipeline_tag(model, task),
        tags=["mmpt", "vision-and-language", "region-features", f"{recipe.model.stream}-stream", task or "pretraining"],
        base_model=_hub_name(recipe.model.from_pretrained),
        model_name=name,
        eval_results=[
            EvalResult(
                task_type={"vqa": "visual-question-answering"}.get(task or "", task or "pretraining"),
                dataset_type=data.slug,
                dataset_name=data.title,
                metric_type=measure.name,
                metric_value=round(measure.value, 6),
                metric_args={"n": measure.n, "interval_95": [round(measure.low, 6), round(measure.high, 6)]},
            )
            for measure in shown
            if measure.low is not None and measure.high is not None
        ],
    )
    card = ModelCard.from_template(
        card_data,
        template_path=str(template()),
        title=name,
        example_text=sample.text,
        summary=_summary(recipe, model),
        code=_code(model, sample),
        training=_training(recipe, model, runtime),
        curves=(folder / "curves.png").is_file(),
        example=EXAMPLE if draw_example(folder, sample.text, sample.regions, sample.image) else None,
        command=shlex.join(map(_without_folders, shlex.split(recipe.command))),
        recipe=write_yaml(_without_folders(recipe.resolved())).strip(),
        data=_data(data.title, tables, regions, model),
        measured=_table(shown, measures, headlines, data.title),
        environment=_environment(processes),
        limits=_limits(data.limits),
        licence=data.licence_text,
        citation=_citation(),
    )
    (folder / "README.md").write_text(str(card).rstrip() + "\n", encoding="utf-8")


def template() -> Path:
    """Return the file that cards are made from, model_cards/template.md of the checkout or of the installed package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "model_cards"
    return (installed if installed.is_dir() else package.parent / "model_cards") / "template.md"


def name_the_source(card: str, repo_id: str) -> str:
    """Return a card whose code loads the repository instead of the folder that the card was written into."""
    return card.replace(SOURCE_LINE.format("."), SOURCE_LINE.format(repo_id))


def write_sample(path: Path, sample: Sample) -> None:
    """Write the example as JSON; of its regions the first few, in half precision."""
    content: dict[str, Any] = {"text": sample.text}
    if sample.regions is not None:
        few = sample.regions.select(slice(0, SAMPLE_REGIONS))  # type: ignore[arg-type]
        content["regions"] = {
            "features": few.features.astype("float16").tolist(),
            "boxes": few.boxes.tolist(),
            **({} if few.type_ids is None else {"type_ids": few.type_ids.tolist()}),
        }
    if sample.inputs is not None:
        content["inputs"] = {name: value.tolist() for name, value in sample.inputs.items()}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def fingerprint(rows: Rows) -> str:
    """Return the start of the sha256 of the rows' texts and image ids, in their order."""
    digest = hashlib.sha256()
    for text, image_id in zip(rows.texts, rows.image_ids, strict=True):
        digest.update(json.dumps([text, image_id]).encode())
    return digest.hexdigest()[:16]


class _Source(NamedTuple):
    title: str
    slug: str
    licence: str
    licence_text: str
    limits: str


def _data_source(recipe: Recipe) -> _Source:
    data = recipe.data
    if data.generated is not None or data.scene_task is not None:
        seed = (data.generated or data.scene_task).seed  # type: ignore[union-attr]
        own = "Apache-2.0, code and weights; the data are made by the same code."
        limits = "Only drawn shapes were seen: for photographs these weights are of no use."
        return _Source(f"scenes that mmpt generates, seed {seed}", "generated-scenes", "apache-2.0", own, limits)
    return _Source(
        f"pairs {Path(str(data.pairs)).name} with region store {Path(str(data.store)).name}",
        "region-store",
        "other",
        "The code is Apache-2.0. The licence of the weights is not stated: it depends on the images, the texts and the "
        "detector. Whoever publishes them says so here and under `license`.",
        "Texts carry the views and the language of those who wrote them, and regions those of the detector's training "
        "data: what it has no class for, and whom it finds less often, this model does not see either.",
    )


def _hub_name(source: str | None) -> str | None:
    return source if source is not None and not Path(source).exists() and source.count("/") == 1 else None


def _summary(recipe: Recipe, model: MmptPreTrainedModel) -> str:
    streams = {
        "single": "one encoder over text and regions together",
        "dual": "one encoder for text and one for regions",
    }
    start = recipe.model.from_pretrained
    purpose = "pre-training" if recipe.task is None else f"the task {recipe.task.name!r}"
    begin = "random weights" if start is None else f"the weights in `{_without_folders(start)}`"
    return (
        f"`{saved_class(model).__name__}`: a vision-and-language model that reads a text beside the regions of an "
        f"image. {recipe.model.stream.capitalize()} stream, {streams[recipe.model.stream]}; {model.num_parameters():,} "
        f"parameters; fusion {model.config.fusion!r}. Trained for {purpose}, from {begin}."
    )


def _code(model: MmptPreTrainedModel, sample: Sample) -> str:
    plain = sample.regions is not None
    lines = [
        "import json",
        "",
        "import torch",
        f"from transformers import {model.auto_name}{', AutoProcessor' if plain else ''}",
        "from transformers.utils import cached_file",
        "",
        f"{SOURCE_LINE.format('.')}  # a folder, or a name on the Hub",
        f"model = {model.auto_name}.from_pretrained(source, trust_remote_code=True).eval()",
        f'with open(cached_file(source, "{SAMPLE}"), encoding="utf-8") as file:',
        "    sample = json.load(file)",
    ]
    if plain:
        lines += [
            "processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)",
            'words = {"truncation": True, "max_length": model.config.max_position_embeddings}',
            'batch = processor(text=[sample["text"]], images=[sample["regions"]], return_tensors="pt", **words)',
        ]
    else:
        lines.append('batch = {name: torch.tensor(value) for name, value in sample["inputs"].items()}')
    lines += ["with torch.no_grad():", "    output = model(**batch)"]
    if "mlm" in model.config.objective_weights and model.auto_name == "AutoModelForPreTraining":
        lines += [
            "place = batch.input_ids[0].tolist().index(processor.tokenizer.mask_token_id)",
            "print(processor.tokenizer.decode(output.mlm_logits[0, place].argmax()))",
        ]
    elif model.auto_name == "AutoModelForPreTraining":
        lines.append("print({name: value.shape for name, value in output.items()})")
    elif model.auto_name in ("AutoModelForVisualQuestionAnswering", "AutoModelForSequenceClassification"):
        lines.append("print(model.config.id2label[int(output.logits.argmax())])")
    else:
        lines.append("print(output.logits)")
    return "\n".join(lines)


def _training(recipe: Recipe, model: MmptPreTrainedModel, runtime: float | None) -> str:
    lines = []
    if recipe.task is None:
        lines.append("| objective | weight |\n| --- | --- |")
        lines += [
            f"| {OBJECTIVES[name].title} (`{name}`) | {weight:g} |"
            for name, weight in model.config.objective_weights.items()
        ]
        masking = recipe.masking
        shares = ", ".join(f"{name} {share:g}" for name, share in masking.shares.items())
        lines.append(
            f"\nMasking: policy {masking.policy!r}, {masking.probability:.0%} of tokens and of regions"
            + (f", rows assigned by the shares {shares}" if masking.policy == "conditional" else "")
            + f"; {masking.hard_negative_rate:.0%} of mismatched pairs take a hard negative where there is one."
        )
    else:
        task = recipe.task
        seen = "" if task.blank is None else f" It does not see the {task.blank}."
        lines.append(f"Fine-tuned for {task.name!r}; frozen: {task.freeze or 'nothing'}.{seen}")
    if runtime is not None:
        took = f"{runtime / 60:.1f} minutes" if runtime >= 120 else f"{runtime:.0f} seconds"
        lines.append(f"\nTraining took {took}.")
    return "\n".join(lines)


def _data(title: str, tables: Sequence[Rows], regions: Any, model: MmptPreTrainedModel) -> str:
    lines = [
        f"{title[0].upper()}{title[1:]}.",
        "",
        "| rows | count | images | fingerprint |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {rows.role} | {len(rows.texts):,} | {len(set(rows.image_ids)):,} | `{rows.fingerprint}` |"
        for rows in tables
    ]
    extractor = getattr(regions, "extractor", None)
    made = (
        "made by the corpus itself"
        if extractor is None
        else f"extracted with `{json.dumps(_without_folders(extractor))}`"
    )
    store = getattr(regions, "fingerprint", None)
    told = "" if store is None else f"; the region store has the fingerprint `{store[:16]}`"
    width = model.config.region_feature_dim
    return "\n".join([*lines, "", f"Regions: {width} numbers each, {made}{told}."])


def _table(shown: Sequence[Measure], measures: Sequence[Measure], headlines: Sequence[Headline], title: str) -> str:
    if not measures:
        return "Nothing: the recipe has no rows to evaluate on."
    lines = [
        f"On the evaluation rows ({title}). Intervals take the cases for independent (Wilson's), or are a bootstrap "
        "over examples. Chance is what guessing gets, or the baseline named; empty where it was not computed. All "
        f"{len(measures)} measures are in `metrics.json`, the most telling first.",
        "",
        "| measure | value | 95 % interval | chance | n | what it says |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in shown:
        interval = "" if each.low is None else f"{each.low:.3f} to {each.high:.3f}"
        chance = baseline_of(each, measures, headlines)
        cells = (f"`{each.name}`", f"{each.value:.4g}", interval, chance, f"{each.n:,}", MEANINGS[each.name])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _without_folders(value: Any) -> Any:
    """Return a value in which absolute paths, also behind "--key=", are the names of their files."""
    if isinstance(value, Mapping):
        return {name: _without_folders(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    if not isinstance(value, str):
        return value
    head, equals, tail = value.partition("=") if value.startswith("--") else ("", "", value)
    return f"{head}{equals}{Path(tail).name}" if Path(tail).is_absolute() else value


def _pipeline_tag(model: MmptPreTrainedModel, task: str | None) -> str | None:
    """Return the task of the Hub that the model is found under; None where the Hub has no such task."""
    if task is None:
        return "fill-mask" if "mlm" in model.config.objective_weights else None
    return {"vqa": "visual-question-answering"}.get(task)


def _environment(processes: int) -> str:
    versions = [f"mmpt {__version__}{_commit()}", f"Python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS]
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores, GPU: {', '.join(gpus) or 'none'}"
    return f"{', '.join(versions)}. {machine}; {processes} process{'es' if processes > 1 else ''}."


def _commit() -> str:
    """Return the commit of the checkout that runs, if it is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return ""
    git = ["git", "-C", str(root)]
    found = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    if found.returncode:
        return ""
    return f" (commit {found.stdout.strip()}{' with changes' if changed.stdout.strip() else ''})"


def _limits(of_data: str) -> str:
    return (
        f"{of_data} One run with one seed; another seed, number of threads or kind of processor gives other numbers. "
        "What is measured above is all that is known of it: no examination of bias, and none of harmful use, was made. "
        "Not for decisions about people."
    )


def _citation() -> str:
    return (
        "@software{mmpt,\n"
        "  title = {mmpt: region-feature vision-and-language pre-training on Hugging Face Transformers},\n"
        "  author = {{The mmpt authors}},\n"
        f"  version = {{{__version__}}},\n"
        "}"
    )
