"""A Python that has torch, transformers, pillow, numpy and what these need, and nothing else: above all no mmpt."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "pillow", "numpy")


def make_site(folder: Path) -> Path:
    """Link the installed packages, and all that they require, into a folder that stands for site-packages."""
    folder.mkdir()
    waiting, done = list(PACKAGES), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in done:
            continue
        done.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        # Those of an extra have a marker that names it.
        waiting += [re.split(r"[^\w.-]", line)[0] for line in found.requires or () if "extra ==" not in line]
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(found.locate_file(top)))
            if source.exists() and not (folder / top).exists():
                (folder / top).symlink_to(source)
    return folder


def run_clean(
    script: Path, *arguments: Any, site: Path, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script with the packages of `site` alone; `cwd` also holds what transformers downloads and copies."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    settings = {
        "PYTHONPATH": str(site),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(cwd / "hf"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return subprocess.run(
        # Without -S the interpreter would add its own site-packages; the script's folder is not on the path with -P.
        [sys.executable, "-S", "-s", "-c", _RUN, str(script), *map(str, arguments)],
        cwd=cwd,
        env=kept | settings | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


_RUN = "import runpy, sys; del sys.argv[0]; sys.path.remove(''); runpy.run_path(sys.argv[0], run_name='__main__')"
