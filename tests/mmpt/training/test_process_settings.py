"""Freed memory that a process keeps is not asked for again."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource
import sys

import torch

if sys.argv[1] == "keep":
    from mmpt.training.process_settings import keep_freed_memory

    assert keep_freed_memory()
for step in range(22):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_freed_memory_is_used_again() -> None:
    # Not all, as the heap may grow once more.
    assert page_faults("keep") < page_faults("as it is") / 4
