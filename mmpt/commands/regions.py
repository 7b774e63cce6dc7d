"""The commands about region features: extract, import, merge, validate, info, show, pairs."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from mmpt.commands.annotation_options import reader_options, with_reading_options
from mmpt.commands.errors import clear_errors
from mmpt.configuration.errors import MmptValueError

region_app = typer.Typer()

SHOWN = 5  # ids that are named of those that were passed over

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Store = Annotated[str, typer.Argument(help="Folder of a region store.", metavar="STORE")]
ShardBytes = Annotated[int, typer.Option(help="A shard ends when it has this size.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad one instead of noting it.")]


@region_app.command()
def extract(
    images: Annotated[str, typer.Option(help="Folder, JSONL or CSV of images, or a saved `datasets` dataset.")],
    model: Annotated[str, typer.Option(help="Detector or image encoder of transformers: folder or Hub name.")],
    out: Annotated[str, typer.Option(help="Folder of the store to write.")],
    backend: Annotated[str | None, typer.Option(help="detector, grid or boxes; the model tells by default.")] = None,
    max_regions: Annotated[int, typer.Option(help="The most regions of an image.")] = 36,
    min_regions: Annotated[int, typer.Option(help="The fewest, below the threshold too.")] = 1,
    threshold: Annotated[float, typer.Option(help="The lowest score that a detector's region may have.")] = 0.0,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Of bottom-up attention's detector, whose regions: uniter, lxmert, visual_bert, oscar, volta, "
            "volta_flickr, vinvl."
        ),
    ] = None,
    background: Annotated[
        str | None, typer.Option(help="Of the same, class 0 is the background (first) or there is none (none).")
    ] = None,
    box_format: Annotated[str, typer.Option(help="Given boxes are 'pixel' or 'normalized'.")] = "pixel",
    shard: Annotated[
        str | None, typer.Option(help="i/n: the i-th of n parts, 1/4 say; `mmpt merge` joins them.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; a GPU if there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    batch_size: Annotated[int, typer.Option(help="Images that go through the model at once.")] = 8,
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of a model of the Hub.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of a CSV of images: latin-1, gbk, ...; UTF-8 or its mark by default.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns of a table by our names: photo=image.")] = None,
    separator: Annotated[str | None, typer.Option(help="Of the columns of a CSV of images; the header tells.")] = None,
    shard_bytes: ShardBytes = 500_000_000,
    strict: Strict = False,
    debug: Debug = False,
) -> None:
    """Extract regions from images into a store; the same command again goes on where it was interrupted.

    For instance: mmpt extract --images photos --model PekingU/rtdetr_v2_r50vd --out regions --threshold 0.2
    """
    with clear_errors(debug):
        part, count = _part_of(shard)
        from mmpt import register_auto_classes
        from mmpt.processing.region_extraction.image_regions import ImageRegions
        from mmpt.processing.region_extraction.image_sources import open_images
        from mmpt.processing.region_extraction.region_extractor import RegionExtractor

        register_auto_classes()
        if box_format not in ("pixel", "normalized"):
            raise MmptValueError(f"got --box-format {box_format!r}, expected pixel or normalized")
        _check_shard_bytes(shard_bytes)
        named = reader_options({"columns": columns}).get("columns")
        source = open_images(images, encoding=encoding, separator=separator, columns=named)
        extractor = RegionExtractor.from_pretrained(
            model,
            backend=backend,
            max_regions=max_regions,
            min_regions=min_regions,
            threshold=threshold,
            preset=preset,
            background=background,  # type: ignore[arg-type]
            revision=revision,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
        )
        regions = ImageRegions(source, extractor, box_format=box_format, shard=(part - 1, count))  # type: ignore[arg-type]
        path = out if shard is None else f"{out}-{part:05d}-of-{count:05d}"
        _fill(path, regions, "image", shard_bytes, strict)


@region_app.command("import")
def import_features(
    file: Annotated[str, typer.Argument(help="A predecessor's feature file or folder.", metavar="FILE")],
    out: Annotated[str, typer.Option(help="Folder of the store to write.")],
    format: Annotated[str | None, typer.Option(help="Name of the format; the content tells by default.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled values, of which only arrays, numbers and texts.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="float16, float32 or float64: of base64 features; detected by default.")
    ] = None,
    boxes: Annotated[
        str | None, typer.Option(help="whole_image: the box of every region of a file that has no boxes.")
    ] = None,
    num_boxes_path: Annotated[
        str | None, typer.Option(help="UNITER's nbb_*.json; the one beside the LMDB by default.")
    ] = None,
    class_names: Annotated[
        str | None, typer.Option(help="Text file with the name of a class in each line, in the order of the labels.")
    ] = None,
    image_sizes: Annotated[
        str | None, typer.Option(help="Sizes of the images, for boxes in pixels: COCO's JSON, hw.tsv, JSONL or CSV.")
    ] = None,
    shard_bytes: ShardBytes = 500_000_000,
    strict: Strict = False,
    debug: Debug = False,
) -> None:
    """Import a predecessor's region features into a store; the same command again goes on where it was interrupted.

    For instance: mmpt import train2014_obj36.tsv --out regions
    """
    with clear_errors(debug):
        from mmpt.processing.region_readers.open_features import open_features

        _check_shard_bytes(shard_bytes)
        names = None if class_names is None else Path(class_names).read_text(encoding="utf-8").splitlines()
        source = open_features(
            file,
            format,
            allow_pickle=allow_pickle,
            num_boxes_path=num_boxes_path,
            class_names=names,
            dtype=dtype,
            boxes=boxes,
            image_sizes_path=image_sizes,
        )
        for note in source.notes:
            typer.echo(note, err=True)
        _fill(out, source, "row", shard_bytes, strict)


@region_app.command()
def merge(
    stores: Annotated[list[str], typer.Argument(help="Stores of one extractor, in order.", metavar="STORE...")],
    out: Annotated[str, typer.Option(help="Folder of the store to write.")],
    debug: Debug = False,
) -> None:
    """Join stores, those of `mmpt extract --shard 1/4 ... 4/4` say, into one."""
    with clear_errors(debug):
        from mmpt.processing.store.merge import merge_stores

        merged = merge_stores(stores, out)
        errors = merged.manifest["errors"]
        if errors:
            typer.echo(f"{errors['rows']:,} were rejected when the stores were written: {_first_rejected(out)}")
        typer.echo(f"{out}: {len(merged):,} images of {len(stores)} stores")


@region_app.command()
@with_reading_options
def validate(
    store: Store,
    deep: Annotated[bool, typer.Option("--deep", help="Check every byte against the checksums.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Write again what is damaged, and only that.")] = False,
    source: Annotated[
        str | None, typer.Option(help="With --repair: a copy of the store, or the file that it was imported from.")
    ] = None,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Read a pickled --source or --pairs.")] = False,
    pairs: Annotated[
        str | None, typer.Option(help="Table or annotations whose join with the store is checked.")
    ] = None,
    eval_pairs: Annotated[str | None, typer.Option(help="The same to evaluate on; leakage is checked.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of --pairs and --eval-pairs; the content tells.")] = None,
    eval_annotations: Annotated[str | None, typer.Option(help="As --annotations, for --eval-pairs.")] = None,
    eval_split: Annotated[str | None, typer.Option(help="As --split, for --eval-pairs.")] = None,
    debug: Debug = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Check a store and, with --pairs, whether it has the images that a table names. Exit code 1 if something is wrong.

    For instance: mmpt validate regions --deep --pairs captions.csv
    """
    with clear_errors(debug):
        if source and not repair:
            raise MmptValueError("got --source without --repair, which it is for")
        options = reader_options(reading)
        alone = [name for name in options if name != "allow_pickle" or not repair]
        if alone and not pairs:
            raise MmptValueError(f"got --{alone[0].replace('_', '-')} without --pairs, which it is for")
        if eval_pairs and not pairs:
            raise MmptValueError("got --eval-pairs without --pairs, expected both")
        sound = _repair(store, source, allow_pickle) if repair else _check(store, deep)
        if pairs:
            own = reader_options({**reading, "annotations": eval_annotations, "split": eval_split})
            sound = _check_join(store, pairs, eval_pairs, format, options, own) and sound
        if not sound:
            raise typer.Exit(1)


@region_app.command()
def info(store: Store, debug: Debug = False) -> None:
    """Print what is in a store: counts, widths, arrays, classes, extractor."""
    with clear_errors(debug):
        from mmpt.processing.store.region_store import RegionStore
        from mmpt.processing.store.summary import summarise

        typer.echo(str(summarise(RegionStore.open(store))))


@region_app.command()
def show(
    store: Store,
    image_id: Annotated[str, typer.Argument(help="The image's id.", metavar="IMAGE_ID")],
    image: Annotated[str | None, typer.Option(help="The picture itself; an empty sheet without.")] = None,
    out: Annotated[str, typer.Option(help="PNG to write.")] = "regions.png",
    top: Annotated[int | None, typer.Option(help="Draw the so many most certain regions alone.", min=1)] = None,
    threshold: Annotated[float | None, typer.Option(help="Draw no region with a lower score.")] = None,
    font: Annotated[str | None, typer.Option(help="Font file for the labels; found by their characters.")] = None,
    debug: Debug = False,
) -> None:
    """Draw an image's boxes with labels and scores."""
    with clear_errors(debug):
        from mmpt.inference.region_picture import choose_regions, draw_regions
        from mmpt.processing.store.region_store import RegionStore

        opened = RegionStore.open(store)
        regions = choose_regions(opened[image_id], top, threshold)
        draw_regions(regions, image, opened.class_names, font_file=font).save(out, format="PNG")
        typer.echo(out)


@region_app.command()
@with_reading_options
def pairs(
    annotations: Annotated[str, typer.Argument(help="Annotation file or folder.", metavar="FILE")],
    out: Annotated[str, typer.Option(help="Table to write: .parquet, .jsonl, .csv or .tsv.")],
    format: Annotated[str | None, typer.Option(help="Name of the format; the content tells by default.")] = None,
    answers: Annotated[
        str | None, typer.Option("--annotations", help="File of the answers to the questions of VQA v2.")
    ] = None,
    debug: Debug = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Turn annotations (COCO, Flickr30k, VQA, ...; docs/annotations.md) into a table of pairs.

    For instance: mmpt pairs captions_train2014.json --out captions.csv --skip-bad
    """
    with clear_errors(debug):
        from mmpt.processing.annotations.annotation_formats import read_annotations
        from mmpt.processing.annotations.bad_rows import errors_beside
        from mmpt.processing.annotations.pair_writing import check_table_suffix, write_pairs

        check_table_suffix(Path(out))
        options = reader_options({**reading, "annotations": answers})
        errors = None if options.get("strict", True) else errors_beside(out)
        for written in filter(None, (Path(out), errors)):
            for source in filter(None, (annotations, answers, options.get("instances"))):
                _refuse_own_input(written, Path(source))
        table = read_annotations(annotations, format, errors=errors, **options)
        write_pairs(table, out)
        typer.echo(f"{out}: {len(table):,} rows, columns {', '.join(table.column_names)}")


def _refuse_own_input(written: Path, source: Path) -> None:
    """Refuse to write over what is read."""
    if not written.exists() or not source.exists():
        return
    inside = source.is_dir() and written.resolve().is_relative_to(source.resolve())
    if inside or written.samefile(source):
        raise MmptValueError(
            f"writing {str(written)!r} would destroy what is read from {str(source)!r}; give another --out"
        )


def _check_shard_bytes(shard_bytes: int) -> None:
    if shard_bytes < 1:
        raise MmptValueError(f"got --shard-bytes {shard_bytes}, expected 1 or more")


def _fill(out: str, source: Any, unit: str, shard_bytes: int, strict: bool) -> None:
    """Fill a store, print how far it is and what came out, and exit with 1 if something was rejected."""
    from mmpt.commands.progress import Progress
    from mmpt.processing.store.filling import fill_store

    try:
        with Progress(source.total, unit) as progress:
            report = fill_store(out, source, shard_bytes=shard_bytes, strict=strict, progress=progress)
    except KeyboardInterrupt:
        typer.echo(f"stopped; give the same command again and {out} goes on behind its last complete shard", err=True)
        raise typer.Exit(130) from None
    if report.added:
        typer.echo(f"{report.added:,} images taken in that were repaired or added since")
    if report.gone:
        names = ", ".join(f"{name:.60}" for name in report.gone[:SHOWN]) + (", ..." if len(report.gone) > SHOWN else "")
        typer.echo(
            f"{len(report.gone):,} images are in {out} and no longer in the source ({names}): their regions stay; to "
            "leave them out, write another store"
        )
    if report.resumed_at:
        typer.echo(f"{report.resumed_at:,} {unit}s were there from a run before")
    reasons = f"; the reasons are in {Path(out) / 'errors.jsonl'}" if report.rejected else ""
    if report.rejected:
        typer.echo(f"rejected: {_first_rejected(out)}")
    typer.echo(f"{out}: {report.images:,} images, {report.rejected:,} {unit}s rejected{reasons}")
    if report.rejected:
        raise typer.Exit(1)


def _first_rejected(out: str) -> str:
    """Return the ids of the first images in a store's errors.jsonl, or their places where they have none."""
    from mmpt.processing.store.update import read_errors

    rows = read_errors(Path(out))
    names = [row["where"] if row["image_id"] is None else row["image_id"] for row in rows[:SHOWN]]
    return ", ".join(f"{name:.60}" for name in names) + (", ..." if len(rows) > SHOWN else "")


def _check(store: str, deep: bool) -> bool:
    from mmpt.processing.store.region_store import RegionStore
    from mmpt.processing.store.validation import find_faults

    faults = find_faults(Path(store), deep=deep)
    for fault in faults:
        typer.echo(f"damaged: {fault}")
    if faults:
        typer.echo(
            f"{store}: {len(faults)} files are damaged; mmpt validate {store} --repair [--source ...] mends them"
        )
        return False
    opened = RegionStore.open(store)
    how = "every byte is as it was written" if deep else "every file is there in its size; --deep checks every byte"
    typer.echo(f"{store}: {len(opened):,} images; {how}")
    if not opened.complete:
        typer.echo("its writing was interrupted: run the command that wrote it again, it goes on")
    return opened.complete


def _repair(store: str, source: str | None, allow_pickle: bool) -> bool:
    from mmpt.processing.region_readers.open_features import open_features
    from mmpt.processing.store.format import MANIFEST
    from mmpt.processing.store.region_store import RegionStore
    from mmpt.processing.store.repair import repair_store

    given: Any = None
    if source is not None:
        is_store = (Path(source) / MANIFEST).is_file()
        given = RegionStore.open(source) if is_store else open_features(source, allow_pickle=allow_pickle)
    repair = repair_store(store, given)
    for fault in repair.faults:
        typer.echo(f"was damaged: {fault}")
    for image_id in repair.dropped:
        typer.echo(f"dropped: {'an image whose id is lost' if image_id is None else image_id}")
    typer.echo(
        f"{store}: {len(repair.faults)} files written again, {len(repair.mended):,} images mended, "
        f"{len(repair.dropped):,} dropped"
    )
    return not repair.dropped


def _check_join(
    store: str,
    pairs: str,
    eval_pairs: str | None,
    format: str | None,
    options: dict[str, Any],
    eval_options: dict[str, Any],
) -> bool:
    from mmpt.processing.pairs.checks import check_pairs
    from mmpt.processing.pairs.image_names import read_pairs
    from mmpt.processing.store.region_store import RegionStore

    opened = RegionStore.open(store)
    evaluation = None if eval_pairs is None else read_pairs(eval_pairs, opened, format, **eval_options)
    report = check_pairs(read_pairs(pairs, opened, format, **options), opened, evaluation)
    typer.echo(str(report))
    return report.ok


def _part_of(shard: str | None) -> tuple[int, int]:
    """Return which of how many parts; the first of one where nothing is said."""
    if shard is None:
        return 1, 1
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise MmptValueError(f"got --shard {shard!r}, expected i/n with i from 1 to n: 1/4, say")
    return int(match[1]), int(match[2])
