"""A slice of `make kill`: killed imports and extractions leave sound stores, and end like undisturbed ones."""

import os
from pathlib import Path

import pytest

from tests.runs.kill import kill_often, make_extraction, make_import

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")


def test_killed_import_ends_in_the_same_bytes(tmp_path: Path) -> None:
    assert kill_often(make_import(tmp_path), tmp_path, kills=8)[1] == 8


def test_killed_extraction_ends_in_the_same_regions(tmp_path: Path) -> None:
    kill_often(make_extraction(tmp_path), tmp_path, kills=4)
