"""Bring the tests of the installed transformers into a cache folder: `python tests/transformers_suite/fetch.py`.

The suite itself never downloads: it runs on what this script left, and skips where there is nothing. `HF_SUITE_SDIST`
names a source archive (or its unpacked folder) that is there already; `HF_SUITE_CACHE` moves the cache.
"""

import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]


def shared_tests() -> Path | None:
    """Return the folder with transformers' shared tests, or None where they were not fetched."""
    given = os.environ.get("HF_SUITE_SDIST")
    source = Path(given) if given else _cache() / _archive_name()
    if source.is_dir():
        return source / "tests"
    if not source.is_file():
        return None
    return _unpack(source)


def fetch() -> Path:
    """Download the source archive of the installed release with pip, once, and return its tests' folder.

    Raises:
        RuntimeError: if pip cannot download it.
    """
    found = shared_tests()
    if found is not None:
        return found
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--dest", str(_cache()), f"transformers=={version('transformers')}"]
    # Without isolation pip needs no build tools from the index, but an old setuptools cannot read the archive.
    if subprocess.run([*command, "--no-build-isolation"], check=False).returncode:
        subprocess.run(command, check=False)
    found = shared_tests()
    if found is None:
        raise RuntimeError(
            f"pip left no {_archive_name()} in {_cache()}. Is the package index reachable? Otherwise download the "
            "archive elsewhere and name it in HF_SUITE_SDIST"
        )
    return found


def _cache() -> Path:
    return Path(os.environ.get("HF_SUITE_CACHE") or _CHECKOUT / "build" / "transformers_suite")


def _archive_name() -> str:
    return f"transformers-{version('transformers')}.tar.gz"


def _unpack(archive: Path) -> Path:
    """Write the archive's `tests/*.py`, and nothing else of it, into the cache."""
    target = _cache() / archive.name.removesuffix(".tar.gz")
    done = target / ".done"
    if not done.exists():
        (target / "tests").mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as opened:
            for member in opened.getmembers():
                parts = Path(member.name).parts
                if len(parts) == 3 and parts[1] == "tests" and parts[2].endswith(".py"):
                    content = opened.extractfile(member)
                    if content is not None:
                        (target / "tests" / parts[2]).write_bytes(content.read())
        (target / "tests" / "__init__.py").touch()  # the tests of configurations import their own folder by path
        done.touch()
    return target / "tests"


if __name__ == "__main__":
    print(f"transformers' shared tests are in {fetch()}")
