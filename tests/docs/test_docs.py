"""The pages of docs/ and the README do what they say: their blocks run and print what the page shows, and their
commands and links exist.

A python block runs in the namespace of those before it, in an empty folder; a text block right behind it is what it
prints, to the letter.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mmpt.processing.generated_scenes.scenes import ALL_COMPOSITIONS, render, sample_scene
from mmpt.recipe.recipe import load_recipe
from tests.factories.detectors import save_detector
from tests.factories.loopback_hub import LoopbackHub
from tests.factories.paths import ROOT

DOCS = ROOT / "docs"
ROOMS = ("configuration", "modeling_mmpt", "processing", "mmpt")
PAGES = [
    *sorted(path.name for path in DOCS.glob("*.md")),
    *sorted(f"../{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "examples").glob("*/README.md")),
    "../README.md",
]
PATCH_PAGE = "adding-an-objective.md"  # its blocks run in a copy of the code that its diffs were applied to
HUB_PAGE = "hub.md"  # its blocks and commands run in a process whose Hub is a server on this machine
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; `printed` is the text block right behind it, if there is one."""

    language: str
    source: str
    line: int
    printed: str | None


def blocks_of(page: str) -> list[Block]:
    found = list(FENCE.finditer(page))
    blocks = []
    for place, fence in enumerate(found):
        after = found[place + 1] if place + 1 < len(found) else None
        follows = after is not None and after[1] == "text" and not page[fence.end() : after.start()].strip()
        line = page.count("\n", 0, fence.start()) + 1
        blocks.append(Block(fence[1], fence[2], line, after[2] if after is not None and follows else None))
    return blocks


def run_page(page: str, name: str, commands: bool = False) -> None:
    """Run the python blocks of a page in the working folder and, if asked to, its commands too."""
    namespace = {"__name__": name}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for block in blocks_of(page):
        if block.language == "bash" and commands and "recipes/" not in block.source:  # those take minutes
            script = ["bash", "-euo", "pipefail", "-c", block.source]
            done = subprocess.run(script, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=240)
            assert done.returncode == 0, f"{name}, line {block.line}: {done.stdout[-500:]}{done.stderr[-2000:]}"
        if block.language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * block.line + block.source, name, "exec"), namespace)  # a traceback names the line
        if block.printed is not None:
            assert printed.getvalue() == block.printed, f"{name}, line {block.line}"


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of a page, and print options as they were behind it."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    torch.set_printoptions(profile="default")


def draw_original_nlvr(folder: Path) -> None:
    """Write two examples a split, one true and one false, in the layout of github.com/lil-lab/nlvr."""
    colours = {"Yellow": (255, 255, 0), "Black": (0, 0, 0), "#0099ff": (0, 153, 255)}
    kinds = ("square", "circle", "triangle")
    for split in ("train", "dev"):
        images = folder / split / "images" / "5"
        images.mkdir(parents=True)
        lines = []
        for place, label in enumerate(("true", "false")):
            # Each panel has each shape once; the panels of the false image are coloured the other way round.
            order = list(colours) if label == "true" else list(reversed(colours))
            panels = [
                [
                    {"y_loc": 70, "size": 20, "type": kind, "x_loc": 30 * i, "color": colour}
                    for i, kind in enumerate(kinds)
                ]
                for colour in order
            ]
            image = Image.new("RGB", (400, 100), (211, 211, 211))
            canvas = ImageDraw.Draw(image)
            for panel, items in enumerate(panels):
                for item in items:
                    x, y = 150 * panel + item["x_loc"], item["y_loc"]
                    fill = colours[item["color"]]
                    if item["type"] == "triangle":
                        canvas.polygon([(x, y + 19), (x + 10, y), (x + 19, y + 19)], fill=fill)
                    else:
                        draw = canvas.rectangle if item["type"] == "square" else canvas.ellipse
                        draw((x, y, x + 19, y + 19), fill=fill)
            image.save(images / f"{split}-72-{place}-0.png")
            lines.append(
                {
                    "sentence": "The left box has only yellow items.",
                    "label": label,
                    "identifier": f"72-{place}",
                    "directory": "5",
                    "evals": {"r0": label},
                    "structured_rep": panels,
                }
            )
        (folder / split / f"{split}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("name", [name for name in PAGES if name not in (PATCH_PAGE, HUB_PAGE)])
def test_a_page_prints_what_it_shows(name: str, empty_folder: Path) -> None:
    if name == "../examples/nlvr/README.md":
        draw_original_nlvr(empty_folder / "corpus" / "nlvr")
    if name == "own-images.md":
        draw_photos(empty_folder)
    run_page((DOCS / name).read_text(encoding="utf-8"), name, commands=name in ("own-images.md", "fine-tuning.md"))


def draw_photos(folder: Path) -> None:
    """Write images with captions, and a small detector with random weights in the place of the page's."""
    rows = ["image_id,text"]
    (folder / "photos").mkdir()
    for number in range(12):
        scene = sample_scene(np.random.default_rng(number), ALL_COMPOSITIONS)
        render(scene).save(folder / "photos" / f"{number:04d}.png")
        rows.append(f"{number:04d},a {scene.objects[0].colour} {scene.objects[0].shape}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    save_detector("rt_detr_v2", folder / "PekingU" / "rtdetr_v2_r50vd")


def test_a_page_that_shows_something_else_is_found(empty_folder: Path) -> None:
    page = "```python\nx = 1\n```\n\n```python\nprint(x + 1)\n```\n\n```text\n{}\n```\n"
    run_page(page.format(2), "right")
    with pytest.raises(AssertionError, match="wrong, line 5"):
        run_page(page.format(3), "wrong")


def test_the_page_of_the_hub_prints_what_it_shows(tmp_path: Path) -> None:
    script = "import sys, pathlib, test_docs; test_docs.run_page(pathlib.Path(sys.argv[1]).read_text(), 'hub.md', True)"
    with LoopbackHub() as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_token"}
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        done = subprocess.run(
            [sys.executable, "-c", script, str(DOCS / HUB_PAGE)],
            cwd=tmp_path,
            env=os.environ | settings | {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert hub.repos["models/me/shapes-private"]["private"]


def test_the_objective_that_a_page_adds_works(tmp_path: Path) -> None:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = blocks_of((DOCS / PATCH_PAGE).read_text(encoding="utf-8"))
    for block in blocks:
        if block.language == "diff":
            apply(block.source, tmp_path)
    script = "\n".join(block.source for block in blocks if block.language == "python")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "".join(block.printed or "" for block in blocks if block.language == "python")


def apply(patch: str, root: Path) -> None:
    """Apply a diff whose first line names the file; hunks begin with @@ and must fit exactly one place."""
    name, *hunks = re.split(r"^@@.*\n", patch, flags=re.MULTILINE)
    path = root / name.removeprefix("--- ").strip()
    text = path.read_text(encoding="utf-8")
    for hunk in hunks:
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] != "+")
        new = "".join(line[1:] for line in lines if line[0] != "-")
        assert text.count(old) == 1, f"{path.name} has these lines {text.count(old)} times, expected once:\n{old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_links_of_a_page_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = (DOCS / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page):
        assert ((DOCS / name).parent / link).exists(), link
    for block in blocks_of(page):
        for command, recipe, keys in re.findall(
            r"mmpt (pretrain|finetune) ((?:recipes|examples)/\S+\.yaml)([^#\n]*)", block.source
        ):
            load_recipe(recipe, shlex.split(keys), command=command)  # unknown keys are errors
        for module in re.findall(r"python -m ((?:benchmarks|examples)[\w.]*)", block.source):
            assert importlib.util.find_spec(module), module
