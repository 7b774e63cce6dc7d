"""What gets installed: one top-level name with all rooms, every class once, a command that starts at once."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.factories.clean_environment import make_site, run_clean
from tests.factories.paths import ROOT
from tests.runs.lowest_versions import declared_requirements, lowest_pins

ROOMS = ("configuration", "modeling_mmpt", "processing", "mmpt")
TRIES = 3
IMPORT_LIMIT = 0.7
HELP_LIMIT = 1.0

# Two modules that load nothing heavy, of a room and of the package's own folder.
PLACES = """
import json
import mmpt, mmpt.recipe.values, mmpt.processing.regions
print(json.dumps([mmpt.__file__, mmpt.recipe.values.__file__, mmpt.processing.regions.__file__]))
"""
# A whole process: the price of the import, what it registers, every module that the public names load.
IMPORT = """
import importlib, json, sys, time
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel
start = time.process_time()
import mmpt
cost = time.process_time() - start
configs = [AutoConfig.for_model(name) for name in ("mmpt_single_stream", "mmpt_dual_stream")]
for name in mmpt.__all__:
    getattr(mmpt, name)
modules = {}
for name, module in sys.modules.items():
    file = getattr(module, "__file__", None) or ""
    if name != "__main__" and file.startswith(sys.argv[1]) and "site-packages" not in file:
        modules.setdefault(file, []).append(name)
bare = []
for name in ("configuration.configuration_mmpt", "modeling_mmpt.heads", "processing.regions"):
    try:
        importlib.import_module(name)
    except ImportError as error:
        bare.append(str(error))
print(json.dumps([cost, [type(config).__name__ for config in configs], list(modules.values()), bare]))
"""
# A model, a task head and a processor, saved by the installed package; its template of cards is there.
SAVE = """
import json, sys
from pathlib import Path
from safetensors.torch import save_file
import mmpt
from mmpt.hub.model_card import template
from tests.factories.hub_saved import every_class, outputs_of
from tests.factories.examples import TOKENIZER
cases, installed = map(Path, sys.argv[1:])
assert Path(mmpt.__file__).is_relative_to(installed) and template().is_relative_to(installed)
rows = [{"name": "processor", "source": str(cases / "processor"), "auto": "AutoProcessor"}]
mmpt.MmptProcessor(mmpt.MmptImageProcessor(max_regions=2), TOKENIZER).save_pretrained(cases / "processor")
for saved in every_class():
    if saved.name in ("single-pretraining", "dual-Grounding"):
        saved.model.save_pretrained(cases / saved.name)
        save_file(saved.batch, cases / f"{saved.name}.batch.safetensors")
        outputs = {name: value.contiguous() for name, value in outputs_of(saved.model, saved.batch).items()}
        save_file(outputs, cases / f"{saved.name}.outputs.safetensors")
        rows.append({"name": saved.name, "source": str(cases / saved.name), "auto": saved.auto})
(cases / "cases.json").write_text(json.dumps(rows))
"""


class Import(NamedTuple):
    """What `IMPORT` prints: CPU seconds, configurations, the names of each loaded file, errors of bare rooms."""

    cost: float
    configs: list[str]
    modules: list[list[str]]
    bare: list[str]


def run(arguments: list[str], cwd: Path, path: list[Path]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result


def import_mmpt() -> Import:
    return Import(*json.loads(run(["-c", IMPORT, str(ROOT)], ROOT, []).stdout))


@pytest.fixture(scope="module")
def imported() -> Import:
    return import_mmpt()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packed, so that the checkout stays clean and no old build gets in."""
    source = tmp_path_factory.mktemp("source")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "model_cards").mkdir()
    shutil.copy(ROOT / "model_cards" / "template.md", source / "model_cards")
    shutil.copytree(ROOT / "recipes", source / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the unpacked sdist, as pip builds it where there is no wheel."""
    target = tmp_path_factory.mktemp("wheel")
    run(["-c", f"from setuptools import build_meta; build_meta.build_sdist({str(target)!r})"], source, [])
    with tarfile.open(next(target.glob("*.tar.gz"))) as archive:
        archive.extractall(target, filter="data")
    source = next(path for path in target.iterdir() if path.is_dir())
    # Without isolation, because isolation fetches setuptools from the network.
    run(["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(target), str(source)], source, [])
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as an installation lays it out."""
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


@pytest.fixture
def places(tmp_path: Path) -> Callable[..., list[Path]]:
    """Where mmpt and its modules come from, for a script started as the installed command is."""
    script = tmp_path / "bin" / "mmpt"
    script.parent.mkdir()
    script.write_text(PLACES, encoding="utf-8")

    def ask(*path: Path) -> list[Path]:
        return [Path(file) for file in json.loads(run([str(script)], tmp_path, list(path)).stdout)]

    return ask


def test_wheel_has_one_top_level_name(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {re.sub(r"-.*\.dist-info$", ".dist-info", top) for top in tops} == {"mmpt", "mmpt.dist-info"}


def test_wheel_has_every_file_of_every_room(wheel: Path):
    expected = {"mmpt/py.typed", "mmpt/__init__.pyi", "mmpt/model_cards/template.md"}
    for room in ROOMS:
        inside = "mmpt" if room == "mmpt" else f"mmpt/{room}"
        expected |= {f"{inside}/{file.relative_to(ROOT / room).as_posix()}" for file in (ROOT / room).rglob("*.py")}
    recipes = [file for file in (ROOT / "recipes").rglob("*") if file.suffix == ".yaml"]
    expected |= {f"mmpt/recipes/{file.relative_to(ROOT / 'recipes').as_posix()}" for file in recipes}
    example = [file for file in (ROOT / "mmpt" / "example").glob("*/*") if file.suffix != ".pyc"]
    expected |= {file.relative_to(ROOT).as_posix() for file in example}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected


def test_wheel_installs_the_command(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        assert "mmpt = mmpt.commands.main:main" in archive.read(name).decode()


def test_installed_package_uses_its_own_rooms(installed: Path, places: Callable[..., list[Path]]):
    package = installed / "mmpt"
    assert places(installed) == [
        package / "__init__.py",
        package / "recipe" / "values.py",
        package / "processing" / "regions.py",
    ]


@pytest.mark.parametrize("also_installed", [False, True], ids=["not_installed", "installed_too"])
def test_checkout_uses_its_own_rooms(also_installed: bool, installed: Path, places: Callable[..., list[Path]]):
    assert places(ROOT, *([installed] if also_installed else [])) == [
        ROOT / "mmpt" / "__init__.py",
        ROOT / "mmpt" / "recipe" / "values.py",
        ROOT / "processing" / "regions.py",
    ]


def test_what_an_installed_package_saves_loads_without_it(installed: Path, tmp_path: Path):
    cases, out = tmp_path / "cases", tmp_path / "out"
    cases.mkdir()
    out.mkdir()
    run(["-c", SAVE, str(cases), str(installed)], tmp_path, [installed, ROOT, ROOT / "tests"])
    done = run_clean(ROOT / "tests" / "runs" / "clean.py", cases, out, site=make_site(tmp_path / "site"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    assert result["processor"]["same"]
    for name in ("single-pretraining", "dual-Grounding"):
        assert result[name]["module"] == "transformers_modules"
        assert max(result[name]["difference"], result[name]["again"]) <= 1e-6


def test_checkout_gives_no_class_twice(imported: Import):
    assert len(imported.modules) > len(ROOMS)
    assert [names for names in imported.modules if len(names) > 1] == []
    assert imported.bare == [
        f"got the import of '{room}', expected 'mmpt.{room}'; write mmpt. in front" for room in ROOMS if room != "mmpt"
    ]


def test_import_registers_the_auto_classes(imported: Import):
    assert imported.configs == ["MmptSingleStreamConfig", "MmptDualStreamConfig"]


def test_import_costs_little_more_than_torch_and_transformers(imported: Import):
    """In CPU seconds, which other processes do not stretch; the best of some tries counts."""
    costs = [imported.cost]
    while min(costs) > IMPORT_LIMIT and len(costs) < TRIES:
        costs.append(import_mmpt().cost)
    assert min(costs) <= IMPORT_LIMIT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the CPU time of child processes is counted on POSIX only")
def test_help_of_the_command_comes_at_once():
    """In CPU seconds, as above."""
    costs: list[float] = []
    while len(costs) < TRIES and min(costs, default=HELP_LIMIT + 1) > HELP_LIMIT:
        before = os.times()
        assert "pretrain" in run(["-m", "mmpt", "--help"], ROOT, []).stdout
        after = os.times()
        costs.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(costs) <= HELP_LIMIT


def test_help_of_the_command_loads_nothing_heavy():
    loaded = re.findall(
        r"\| +([\w.]+)$", run(["-X", "importtime", "-m", "mmpt", "--help"], ROOT, []).stderr, re.MULTILINE
    )
    assert "mmpt.commands.main" in loaded
    assert not {"torch", "transformers", "datasets", "numpy"} & set(loaded)


def test_every_public_name_is_defined_where_the_list_says():
    import mmpt

    for name, module in mmpt._MODULES.items():
        value = getattr(mmpt, name)
        assert value.__module__ == module, name
    assert set(mmpt.__all__) == {*mmpt._MODULES, "register_auto_classes"} <= set(dir(mmpt))


def test_unknown_public_name_is_an_error():
    import mmpt

    with pytest.raises(AttributeError, match="module 'mmpt' has no attribute 'MmptTriner'"):
        mmpt.MmptTriner  # noqa: B018


def test_every_requirement_has_one_lowest_version():
    pins = lowest_pins(declared_requirements())
    assert "mkdocstrings==1.0" in pins  # required with an extra of its own
    assert len({pin.partition("==")[0] for pin in pins}) == len(pins)
