"""The commands that show what a model does: explain, report, demo."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmpt.commands.errors import clear_errors
from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError

if TYPE_CHECKING:
    from mmpt.inference.pipeline import MmptPipeline

explanation_app = typer.Typer()

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
EXAMPLES = {"example": "single", "example-single": "single", "example-dual": "dual"}
"""The packaged models by the names that a command takes."""


@explanation_app.command()
def explain(
    model: Annotated[
        str,
        typer.Argument(help="Folder or Hub name of a model; example or example-dual: a packaged one.", metavar="MODEL"),
    ],
    image: Annotated[str, typer.Argument(help="An image file; with --store its name is the image id.")],
    text: Annotated[str, typer.Argument(help="A text; [MASK] stands for a word to predict.")],
    out: Annotated[str, typer.Option(help="Folder for the pictures and explanation.json.")] = "explanation",
    regions: Annotated[
        str | None, typer.Option(help="Regions of the image, .npz; else the model's extractor finds them.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Region store that has the image's regions.")] = None,
    mask: Annotated[int, typer.Option(help="Which [MASK] of the text is explained, counted from 0.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; a GPU if there is one.")] = None,
    allow_other_regions: Annotated[
        bool, typer.Option("--allow-other-regions", help="Take regions of another extractor than in training.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Show what a model's answer about an image depends on, as pictures and numbers.

    Attention between words and regions by layer and head, relevance by gradient-weighted attention (Chefer et al.
    2021), the answer with each region zeroed, what text and image say by themselves in late and hybrid fusion, and
    what a pre-trained model predicts for masked regions.

    For instance: mmpt explain example scene-0 "a [MASK] triangle at top middle"
    """
    with clear_errors(debug):
        from mmpt import register_auto_classes
        from mmpt.explanations.explanation import explain as run
        from mmpt.explanations.files import write_explanation

        register_auto_classes()
        if regions is not None and store is not None:
            raise MmptValueError("got --regions and --store, expected one of them")
        pipeline = _open(model, store, device, allow_other_regions)
        given, picture = _image(model, image, regions, store)
        explanation = run(pipeline, text, given, mask)
        for path in write_explanation(explanation, Path(out), picture):
            typer.echo(path)
        for name, probability in explanation.answers:
            typer.echo(f"{probability:.3f}  {name}")


@explanation_app.command()
def report(
    run: Annotated[str, typer.Argument(help="Folder of a finished run.", metavar="RUN")],
    out: Annotated[str | None, typer.Option(help="File to write; RUN/report.html by default.")] = None,
    examples: Annotated[int, typer.Option(help="How many of the best and of the worst examples are shown.")] = 6,
    rows: Annotated[int, typer.Option(help="How many evaluation rows the examples are chosen from.")] = 200,
    debug: Debug = False,
) -> None:
    """Write one HTML page about a run, which needs no network.

    Headline measures against chance and what they mean, curves, best and worst examples with their pictures, all
    measures, recipe, environment.
    """
    with clear_errors(debug):
        from mmpt import register_auto_classes
        from mmpt.explanations.report import write_report

        if examples < 0 or rows < 1:
            raise MmptValueError(f"got --examples {examples} and --rows {rows}, expected 0 or more, and 1 or more")
        register_auto_classes()
        folder = Path(run)
        typer.echo(write_report(folder, folder / "report.html" if out is None else Path(out), examples, rows))


@explanation_app.command()
def demo(
    model: Annotated[
        str, typer.Argument(help="Folder or Hub name of a model; the packaged one by default.", metavar="[MODEL]")
    ] = "example",
    port: Annotated[int | None, typer.Option(help="Port of the page; a free one from 7860 on by default.")] = None,
    share_host: Annotated[
        str | None,
        typer.Option(help="Address to serve on, 0.0.0.0 say: others reach the page. This machine alone by default."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; a GPU if there is one.")] = None,
    debug: Debug = False,
) -> None:
    """Serve a page in the browser to try a model on (extras demo and plots).

    Sample or uploaded image, and a tab for each thing that the model does, with explanations. Images are extracted with
    the extractor that the model was trained with. Nothing is sent to another host.
    """
    with clear_errors(debug):
        from mmpt import register_auto_classes
        from mmpt.demo.functions import DemoModel
        from mmpt.demo.page import LOOPBACK, build_page, serve
        from mmpt.example.loading import load_scenes

        register_auto_classes()
        pipeline = _open(model, None, device, False)
        page = build_page(DemoModel(pipeline, load_scenes() if model in EXAMPLES else []))
        typer.echo(f"{serve(page, port, share_host or LOOPBACK)}   (Ctrl-C ends it)")
        page.block_thread()


def model_folder(model: str) -> str:
    """Return the folder of a packaged model by its name, and any other name as it is."""
    from mmpt.example.loading import example_model

    return str(example_model(EXAMPLES[model])) if model in EXAMPLES and not Path(model).exists() else model


def _open(model: str, store: str | None, device: str | None, allow_other_regions: bool) -> "MmptPipeline":
    from mmpt.inference.pipeline import MmptPipeline
    from mmpt.processing.store.region_store import RegionStore

    found = None if store is None else RegionStore.open(store)
    folder = model_folder(model)
    return MmptPipeline.from_pretrained(folder, device=device, regions=found, allow_other_regions=allow_other_regions)


def _image(model: str, image: str, regions: str | None, store: str | None) -> tuple[Any, Any]:
    """Return what the pipeline takes for the image, and the picture to draw on, if there is one."""
    from mmpt.example.loading import load_scenes, read_regions

    if store is not None:
        return (Path(image).stem, image) if Path(image).is_file() else (image, None)
    scenes = {scene.path.stem: scene for scene in load_scenes()} if model in EXAMPLES else {}
    if image in scenes:
        return scenes[image].regions, scenes[image].image
    if not Path(image).is_file():
        known = f", or one of the packaged {', '.join(scenes)}" if scenes else ""
        raise MmptFileNotFoundError(f"{image} is not a file; expected an image{known}, or an image id with --store")
    beside = Path(image).with_suffix(".npz")
    if regions is None and beside.is_file():
        regions = str(beside)
    return (image if regions is None else read_regions(Path(regions))), image
