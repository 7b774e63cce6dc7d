"""The house: imports go left only, in one form, and the files that travel to the Hub need only what is there."""

import ast
import sys
from collections.abc import Iterator, Mapping

from tests.factories.paths import ROOT

ROOMS = ("configuration", "modeling_mmpt", "processing", "mmpt")  # imports go left only
OUTSIDE = ("demo", "examples", "benchmarks", "docs", "tests")
DEFINED_BY_THE_PACKAGE = ("from mmpt import __version__", "from mmpt import register_auto_classes")
TRAVELLING_ROOMS = ("configuration", "modeling_mmpt")
TRAVELLING_MODULES = ("mmpt.processing.processing_mmpt", "mmpt.processing.image_processing_mmpt")
TRAVELLING_NEEDS = {"torch", "transformers", "huggingface_hub", "numpy"}

Sources = Mapping[str, str]
"""Path from the root, as in "processing/regions.py" -> source."""


def read_sources(folders: tuple[str, ...]) -> Sources:
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def module_name(path: str) -> str:
    """Return the name that a file of a room is imported by."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(parts if parts[0] == "mmpt" else ["mmpt", *parts])


def room_of(module: str) -> str:
    """Return the room of a module: mmpt.processing.regions -> processing, mmpt.trainer -> mmpt."""
    second = [*module.split("."), ""][1]
    return second if second in ROOMS else "mmpt"


def imports(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line, what is written, module that is named) of every import, also of those inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, f"import {alias.name}", alias.name
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names = ", ".join(alias.name for alias in node.names)
            yield node.lineno, f"from {module} import {names}", module


def imports_to_the_right(sources: Sources) -> list[str]:
    found = []
    for path, source in sources.items():
        own = room_of(module_name(path))
        for line, written, module in imports(source):
            if module.split(".")[0] == "mmpt" and ROOMS.index(room_of(module)) > ROOMS.index(own):
                found.append(f"{path}:{line}: {own} is left of {room_of(module)}, but has `{written}`")
    return found


def imports_in_another_form(sources: Sources) -> list[str]:
    files = {module_name(path) for path in sources if not path.endswith("__init__.py")}
    found = []
    for path, source in sources.items():
        for line, written, module in imports(source):
            if written in DEFINED_BY_THE_PACKAGE and room_of(module_name(path)) == "mmpt":
                continue
            inside = module.split(".")[0] in ("", *ROOMS)
            if inside and not (written.startswith("from ") and "*" not in written and module in files):
                found.append(f"{path}:{line}: got `{written}`, expected `from mmpt.<room>.<module> import X`")
    return found


def imports_of_bare_rooms(sources: Sources) -> list[str]:
    bare = set(ROOMS) - {"mmpt"}
    return [
        f"{path}:{line}: got `{written}`, expected mmpt.{module} (classes would exist twice)"
        for path, source in sources.items()
        for line, written, module in imports(source)
        if module.split(".")[0] in bare
    ]


def travellers(sources: Sources) -> dict[str, str]:
    """Return module -> path of the files that a saved folder carries: they lie side by side there."""
    by_module = {module_name(path): path for path in sources if not path.endswith("__init__.py")}
    waiting = [m for m in by_module if room_of(m) in TRAVELLING_ROOMS or m in TRAVELLING_MODULES]
    found: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        if module in by_module and module not in found:
            found[module] = by_module[module]
            named = (module for _, _, module in imports(sources[found[module]]))
            waiting += [name for name in named if name.split(".")[0] == "mmpt"]
    return found


def shared_module_names(sources: Sources) -> list[str]:
    by_name: dict[str, list[str]] = {}
    for path in sorted(travellers(sources).values()):
        by_name.setdefault(path.split("/")[-1], []).append(path)
    return [f"{name} is the name of {' and '.join(paths)}" for name, paths in by_name.items() if len(paths) > 1]


def travellers_with_other_needs(sources: Sources) -> list[str]:
    return [
        f"{path}:{line}: got `{written}` in a file that travels to the Hub, "
        f"expected only {', '.join(sorted(TRAVELLING_NEEDS))}"
        for path in travellers(sources).values()
        for line, written, named in imports(sources[path])
        if named.split(".")[0] not in {"mmpt", *TRAVELLING_NEEDS, *sys.stdlib_module_names}
    ]


def import_circles(sources: Sources) -> list[str]:
    """Return each circle of modules that import each other, also inside functions; `mmpt` itself names every module."""
    modules = {module_name(path): path for path in sources if not path.endswith("__init__.py")}
    graph = {
        module: {named for _, _, named in imports(sources[path]) if named in modules}
        for module, path in modules.items()
    }
    while leaves := {module for module, named in graph.items() if not named}:
        graph = {module: named - leaves for module, named in graph.items() if module not in leaves}
    # Left are the circles and what imports them: take away what nobody left imports.
    while graph:
        imported = set().union(*graph.values())
        if imported >= set(graph):
            break
        graph = {module: named for module, named in graph.items() if module in imported}
    return [f"{module} is in a circle with {', '.join(sorted(named))}" for module, named in sorted(graph.items())]


def folders_without_init(sources: Sources) -> list[str]:
    folders = {path.rpartition("/")[0] for path in sources}
    return [
        f"{folder} has no __init__.py, so no wheel would have it"
        for folder in sorted(folders)
        if f"{folder}/__init__.py" not in sources
    ]


def test_imports_go_left_only():
    assert imports_to_the_right(read_sources(ROOMS)) == []


def test_imports_have_the_one_form():
    assert imports_in_another_form(read_sources(ROOMS)) == []


def test_no_file_imports_a_bare_room():
    assert imports_of_bare_rooms(read_sources(ROOMS + OUTSIDE)) == []


def test_no_imports_go_in_a_circle():
    assert import_circles(read_sources(ROOMS)) == []


def test_names_of_travelling_modules_are_unique():
    assert shared_module_names(read_sources(ROOMS)) == []


def test_travelling_files_need_only_what_is_there():
    assert travellers_with_other_needs(read_sources(ROOMS)) == []


def test_every_folder_is_a_package():
    assert folders_without_init(read_sources(ROOMS)) == []


def test_import_to_the_right_is_named():
    sources = {
        "processing/masking.py": "def f():\n    from mmpt.trainer import MmptTrainer\n",
        "mmpt/trainer.py": "from mmpt.processing.masking import f\n",
        "modeling_mmpt/heads.py": "from mmpt.configuration.configuration_mmpt import MmptConfig\n",
        "configuration/configuration_mmpt.py": "import mmpt.modeling_mmpt.heads\n",
    }
    assert imports_to_the_right(sources) == [
        "processing/masking.py:2: processing is left of mmpt, but has `from mmpt.trainer import MmptTrainer`",
        "configuration/configuration_mmpt.py:1: configuration is left of modeling_mmpt, but has "
        "`import mmpt.modeling_mmpt.heads`",
    ]


def test_other_forms_of_import_are_named():
    forms = [
        "from . import regions",
        "from .regions import Regions",
        "import mmpt.processing.regions",
        "from mmpt.processing import regions",
        "from mmpt import Regions",
        "from mmpt.processing.regions import *",
        "from processing.regions import Regions",
    ]
    right = "from mmpt.processing.regions import Regions"
    for form in forms:
        sources = {"processing/regions.py": "import numpy as np\n", "processing/masking.py": f"{right}\n{form}\n"}
        assert imports_in_another_form(sources) == [
            f"processing/masking.py:2: got `{form}`, expected `from mmpt.<room>.<module> import X`"
        ]


def test_import_of_a_bare_room_is_named():
    assert imports_of_bare_rooms(
        {"tests/test_x.py": "from mmpt import Regions\nfrom processing.regions import X\n"}
    ) == [
        "tests/test_x.py:2: got `from processing.regions import X`, expected mmpt.processing.regions "
        "(classes would exist twice)"
    ]


def test_two_files_of_one_name_are_named():
    assert shared_module_names({"configuration/x.py": "", "modeling_mmpt/x.py": "", "mmpt/x.py": ""}) == [
        "x.py is the name of configuration/x.py and modeling_mmpt/x.py"
    ]


def test_circle_is_named():
    sources = {
        "processing/a.py": "def f():\n    from mmpt.processing.b import g\n",
        "processing/b.py": "from mmpt.processing.a import f\nfrom mmpt.processing.c import h\n",
        "processing/c.py": "",
        "processing/d.py": "from mmpt.processing.a import f\n",
    }
    assert import_circles(sources) == [
        "mmpt.processing.a is in a circle with mmpt.processing.b",
        "mmpt.processing.b is in a circle with mmpt.processing.a",
    ]


def test_traveller_that_needs_more_is_named():
    sources = {
        "modeling_mmpt/layers.py": "import math\nfrom torch import nn\nimport einops\n",
        "processing/processing_mmpt.py": "from mmpt.processing.regions import Regions\n",
        "processing/regions.py": "import pyarrow\n",
        "processing/region_store.py": "import datasets\n",
    }
    assert sorted(line.split(" in a file")[0] for line in travellers_with_other_needs(sources)) == [
        "modeling_mmpt/layers.py:3: got `import einops`",
        "processing/regions.py:1: got `import pyarrow`",
    ]


def test_folder_without_init_is_named():
    sources = {"processing/__init__.py": "", "processing/readers/tsv.py": ""}
    assert folders_without_init(sources) == ["processing/readers has no __init__.py, so no wheel would have it"]
