"""The commands about downstream tasks: finetune, evaluate, predict."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmpt.commands.annotation_options import reader_options, with_reading_options
from mmpt.commands.errors import clear_errors
from mmpt.configuration.errors import MmptValueError

if TYPE_CHECKING:
    from mmpt.tasks.evaluation import SavedTaskModel
    from mmpt.training.data_sources import TaskTable

task_app = typer.Typer()

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Model = Annotated[str, typer.Argument(help="Folder or Hub name of a fine-tuned model.", metavar="MODEL")]
TaskOption = Annotated[str | None, typer.Option("--task", help="Name of the task; the model's folder tells it.")]
Pairs = Annotated[str | None, typer.Option(help="Table or annotations; with --store.")]
Store = Annotated[str | None, typer.Option(help="Folder of the region store with the table's images.")]
Format = Annotated[str | None, typer.Option(help="Format of --pairs; the content tells by default.")]
BatchSize = Annotated[int, typer.Option(help="Rows that go through the model at once.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; a GPU if there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
OtherRegions = Annotated[
    bool, typer.Option("--allow-other-regions", help="Take regions of another extractor than in training.")
]
BlankOption = Annotated[
    str | None, typer.Option("--blank", help="text or regions: what the model is not to see; as it was trained.")
]


@task_app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def finetune(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A YAML file, or a name that `mmpt recipes` lists.", metavar="RECIPE")],
    debug: Debug = False,
) -> None:
    """Fine-tune a model for a downstream task as a recipe says.

    Every key of the recipe can be changed as in `mmpt pretrain`; for instance --from_pretrained runs/tiny --freeze 1.
    """
    with clear_errors(debug):
        if recipe.startswith("-"):
            raise MmptValueError(f"got {recipe!r} first, expected the recipe: mmpt finetune RECIPE [--key VALUE ...]")
        from mmpt.recipe.recipe import check_output_dir, load_recipe

        loaded = load_recipe(recipe, context.args, command="finetune")
        check_output_dir(loaded.output_dir)
        from mmpt.training.finetuning import finetune as run
        from mmpt.training.process_group import leave_process_group
        from mmpt.training.process_settings import configure_process

        configure_process()
        run(loaded)
        leave_process_group()
        if os.environ.get("RANK", "0") != "0":  # torchrun starts this as often as there are processes
            return
        for name in ("curves.png", "gallery.html", "predictions.jsonl", "metrics.json"):
            if (loaded.output_dir / name).is_file():
                typer.echo(loaded.output_dir / name)


@task_app.command()
@with_reading_options
def evaluate(
    model: Model,
    task: TaskOption = None,
    pairs: Pairs = None,
    store: Store = None,
    format: Format = None,
    out: Annotated[str | None, typer.Option(help="Folder for metrics.json, predictions.jsonl and the gallery.")] = None,
    gallery: Annotated[int, typer.Option(help="How many wrong and right predictions gallery.html shows.")] = 0,
    images: Annotated[
        str | None, typer.Option(help="Folder of the images, as for `mmpt extract`, that the gallery shows.")
    ] = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "float32",
    blank: BlankOption = None,
    allow_other_regions: OtherRegions = False,
    debug: Debug = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Measure a fine-tuned model on a labelled table; without one, on the evaluation rows of its own recipe.

    For instance: mmpt evaluate runs/vqa --pairs val.parquet --store regions --out scores --gallery 50
    """
    with clear_errors(debug):
        if gallery < 0:
            raise MmptValueError(f"got --gallery {gallery}, expected 0 or more")
        folder = None if out is None else Path(out)
        if folder is not None:
            from mmpt.recipe.recipe import check_output_dir

            check_output_dir(folder)
        elif gallery:
            raise MmptValueError(f"got --gallery {gallery} without --out, expected the folder to write gallery.html to")
        if images is not None and not gallery:
            raise MmptValueError("got --images without --gallery N, which shows them")
        from mmpt.training.data_sources import Pictures

        saved = _open(model, task, device, dtype, blank, batch_size)
        table = _table(saved, pairs, store, format, reading, allow_other_regions, with_labels=True)
        if images is not None:
            table.picture = Pictures(images, reading["encoding"])
        dataset = table.dataset
        predictions = list(_predict(saved, dataset, batch_size))
        measures = saved.score(predictions, dataset)
        report = {
            "model": model,
            "task": saved.name,
            "metric": saved.task.metric,
            "value": measures[saved.task.metric],
            "rows": len(dataset),
            "evaluation": measures,
        }
        text = json.dumps(report, indent=2)
        if folder is not None:
            from mmpt.tasks.gallery import write_gallery
            from mmpt.tasks.prediction_files import write_predictions

            (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
            write_predictions(folder / "predictions.jsonl", saved.name, dataset, predictions, saved.numbers)
            if gallery:
                write_gallery(folder / "gallery.html", saved.name, table, predictions, saved.numbers, gallery)
        typer.echo(text)


@task_app.command()
@with_reading_options
def predict(
    model: Model,
    out: Annotated[str, typer.Option(help="File to write, a JSON line a row; '-' prints them.")] = "predictions.jsonl",
    task: TaskOption = None,
    pairs: Pairs = None,
    store: Store = None,
    format: Format = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "float32",
    blank: BlankOption = None,
    allow_other_regions: OtherRegions = False,
    debug: Debug = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Write what a fine-tuned model predicts for a table, which needs no labels.

    For instance: mmpt predict runs/vqa --pairs questions.json --store regions --out predictions.jsonl
    """
    with clear_errors(debug):
        saved = _open(model, task, device, dtype, blank, batch_size)
        table = _table(saved, pairs, store, format, reading, allow_other_regions, with_labels=False)
        dataset = table.dataset
        from mmpt.tasks.prediction_files import prediction_lines

        lines = prediction_lines(saved.name, dataset, _predict(saved, dataset, batch_size), saved.numbers)
        if out == "-":
            for line in lines:
                typer.echo(line, nl=False)
            return
        with Path(out).open("w", encoding="utf-8") as file:
            file.writelines(lines)
        typer.echo(f"{out}: {len(dataset):,} predictions")


def _open(
    model: str, task: str | None, device: str | None, dtype: str, blank: Any, batch_size: int
) -> "SavedTaskModel":
    if batch_size < 1:
        raise MmptValueError(f"got --batch-size {batch_size}, expected 1 or more")
    from mmpt import register_auto_classes
    from mmpt.tasks.evaluation import open_task_model

    register_auto_classes()
    return open_task_model(model, task, device=device, dtype=dtype, blank=blank)


def _table(
    saved: "SavedTaskModel",
    pairs: str | None,
    store: str | None,
    format: str | None,
    reading: Mapping[str, Any],
    allow_other_regions: bool,
    with_labels: bool,
) -> "TaskTable":
    """Return the table that the options name, or the evaluation rows of the model's recipe."""
    from mmpt.processing.store.fit import check_store_fits
    from mmpt.processing.store.record import check_same_regions, record_of
    from mmpt.training.data_sources import evaluation_table, store_table

    if (pairs is None) != (store is None):
        raise MmptValueError("got one of --pairs and --store, expected both: a table, and the regions of its images")
    options = reader_options(reading)
    if pairs is None and options:
        raise MmptValueError(f"got --{next(iter(options)).replace('_', '-')} without --pairs, which it is for")
    if pairs is not None and store is not None:
        options = _as_trained(saved, pairs, format, options)
        table, corpus = store_table(pairs, store, format, saved.name, with_labels, **options), None
    elif saved.recipe is None:
        raise MmptValueError("the model's folder has no recipe.yaml that names its data; give --pairs and --store")
    else:
        table = evaluation_table(saved.recipe.data, saved.name)
        store, corpus = saved.recipe.data.store, saved.recipe.data.corpus
    given = record_of(table.dataset.regions, corpus)
    check_store_fits(saved.model.config, given, f"{store or corpus!r}")
    if not allow_other_regions:
        check_same_regions(saved.trained_on, given, f"{store or corpus!r}", "add --allow-other-regions")
    return table


def _as_trained(saved: "SavedTaskModel", pairs: str, format: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return options of the reader with the columns and the form of ids of the model's recipe, where they fit.

    A table that has none of these columns, and one whose reader knows no such option, is read without them.
    """
    from mmpt.processing.annotations.annotation_formats import options_that_fit

    known = {} if saved.recipe is None else saved.recipe.data.reading()
    kept = {name: known[name] for name in ("columns", "image_id_stem", "image_id_format") if name in known}
    kept = options_that_fit(
        pairs, format, {name: value for name, value in kept.items() if name not in options}, options
    )
    if kept:
        typer.echo(f"{pairs} is read as in the model's recipe: {json.dumps(kept, ensure_ascii=False)}", err=True)
    return kept | options


def _predict(saved: "SavedTaskModel", dataset: Any, batch_size: int) -> Any:
    from mmpt.commands.progress import Progress

    with Progress(len(dataset), "row") as progress:
        yield from saved.predict(dataset, batch_size, progress)
