"""The command line, `mmpt`. Nothing heavy is imported before a command needs it."""

import os
import platform
from importlib import metadata
from typing import Annotated, Any

import typer

from mmpt.commands.errors import clear_errors
from mmpt.commands.explanations import explanation_app
from mmpt.commands.recipes import recipe_app
from mmpt.commands.regions import region_app
from mmpt.commands.tasks import task_app
from mmpt.configuration.errors import MmptValueError

app = typer.Typer(
    help="Pre-train vision-and-language models on region features.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(recipe_app)
app.add_typer(region_app)
app.add_typer(task_app)
app.add_typer(explanation_app)


def _print_version(asked: bool) -> None:
    if asked:
        from mmpt import __version__

        typer.echo(f"mmpt {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Pre-train vision-and-language models on region features."""


_REPORTED = ("torch", "transformers", "datasets", "accelerate", "huggingface_hub", "safetensors", "numpy", "pyarrow")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def pretrain(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A YAML file, or a name that `mmpt recipes` lists.", metavar="RECIPE")],
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Pre-train a model as a recipe says.

    Every key of the recipe can be changed: --section.key VALUE, or --key VALUE where only one section has the key;
    for instance --stream dual --max_steps 100 --output_dir runs/dual. `mmpt keys RECIPE` lists them. A run that is in
    the folder already is resumed with --resume_from_checkpoint last (--allow_changes: with other settings), or
    replaced with --overwrite. SIGTERM saves a checkpoint and exits with 75.
    """
    with clear_errors(debug):
        if recipe.startswith("-"):
            raise MmptValueError(f"got {recipe!r} first, expected the recipe: mmpt pretrain RECIPE [--key VALUE ...]")
        from mmpt.recipe.recipe import check_output_dir, load_recipe

        loaded = load_recipe(recipe, context.args)
        check_output_dir(loaded.output_dir)
        from mmpt.training.pretraining import pretrain as run
        from mmpt.training.process_group import leave_process_group
        from mmpt.training.process_settings import configure_process

        configure_process()
        run(loaded)
        leave_process_group()
        if os.environ.get("RANK", "0") != "0":  # torchrun starts this as often as there are processes
            return
        for name in ("curves.png", "metrics.json"):
            if (loaded.output_dir / name).is_file():
                typer.echo(loaded.output_dir / name)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Weight file or folder; with --to, a folder of this package.")],
    out: Annotated[str | None, typer.Argument(help="New folder; not needed with --dry-run.")] = None,
    family: Annotated[
        str,
        typer.Option(
            "--from",
            help="uniter, visual_bert, lxmert, lxmert_original, vilbert, volta, oscar, bert or bottom_up (a detector); "
            "auto looks.",
        ),
    ] = "auto",
    to: Annotated[
        str | None, typer.Option("--to", help="lxmert or visual_bert: write a folder for transformers' own class.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="The predecessor's JSON; config.json beside the weights.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub name; the files beside the weights.")] = None,
    task: Annotated[
        str,
        typer.Option(
            help="pretraining, a task (vqa, classification, entailment, nlvr2, multiple_choice, grounding, phrases, "
            "retrieval) or the name of a head; auto takes the only fine-tuned head."
        ),
    ] = "auto",
    labels: Annotated[
        str | None,
        typer.Option(
            help="JSON with the names of the classes or answers of the head that is taken; a text file for a detector."
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="With --from bert: whose model its text part starts.")] = "uniter",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE of the new configuration; may be repeated.")
    ] = None,
    allow_unknown: Annotated[
        list[str] | None, typer.Option(help="A key, or a pattern with *, to drop unseen; may be repeated.")
    ] = None,
    allow_random: Annotated[
        list[str] | None,
        typer.Option(help="A weight of the new model, or a pattern with *, to start at random; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would become of every key.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Convert a predecessor's checkpoint, or write one back for transformers.

    For instance: mmpt convert uniter-base.pt uniter-base --tokenizer google-bert/bert-base-cased
    """
    with clear_errors(debug):
        if out is None and not dry_run:
            raise MmptValueError("got no OUT, expected a new folder to write: mmpt convert SOURCE OUT")
        from mmpt import register_auto_classes
        from mmpt.predecessors.conversion import convert as run
        from mmpt.predecessors.conversion import plan_conversion
        from mmpt.predecessors.predecessor_export import convert_back
        from mmpt.recipe.values import read_yaml

        register_auto_classes()
        if to is not None:
            others = (
                config,
                tokenizer,
                settings,
                allow_unknown,
                allow_random,
                labels,
                dry_run,
                family != "auto",
                task != "auto",
            )
            if out is None or any(others):
                raise MmptValueError("--to takes SOURCE and OUT alone: the folder of this package tells the rest")
            convert_back(source, out, to)
            typer.echo(out)
            return
        options: dict[str, Any] = dict(
            family=family,
            task=task,
            labels=labels,
            config_path=config,
            preset=preset,
            allow_unknown=allow_unknown or [],
            allow_random=allow_random or [],
        )
        for setting in settings or []:
            name, equals, value = setting.partition("=")
            if not equals:
                raise MmptValueError(f"got --set {setting!r}, expected FIELD=VALUE")
            options[name] = read_yaml(value, f"--set {name}")
        if dry_run:
            typer.echo(str(plan_conversion(source, **options).report))
            return
        report = run(source, out or "", tokenizer=tokenizer, **options)
        typer.echo(report.summary())
        for sentence in report.assumptions:
            typer.echo(f"assumed: {sentence}")
        typer.echo(out)


@app.command()
def push(
    folder: Annotated[str, typer.Argument(help="Folder of a saved model or processor, or of a region store.")],
    repo: Annotated[str, typer.Argument(help="Repository on the Hub: user/name, or name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch that is there; main by default.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Push a saved folder to the Hub, and check that it is there.

    The token is that of `hf auth login`, or of HF_TOKEN. For instance: mmpt push runs/tiny me/tiny --private
    """
    with clear_errors(debug):
        from mmpt.hub.push import push_folder

        typer.echo(push_folder(folder, repo, private=private or None, revision=revision))


@app.command()
def env() -> None:
    """Print the versions that a bug report needs."""
    import torch

    from mmpt import __version__

    typer.echo(f"mmpt: {__version__}")
    for name in _REPORTED:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "not installed"
        typer.echo(f"{name}: {version}")
    typer.echo(f"python: {platform.python_version()}")
    typer.echo(f"platform: {platform.platform()}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    typer.echo(f"gpu: {', '.join(gpus) or 'none'}")


def main() -> None:
    """Run the command line."""
    app(prog_name="mmpt")
