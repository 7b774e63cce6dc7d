"""What a process that does nothing but train sets for itself."""

import ctypes
import os
import platform
import sys

from transformers.utils.logging import disable_progress_bar

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def configure_process() -> None:
    """Set up this process for training: freed memory is kept, a batch is tokenized by one thread, and progress bars
    are for terminals.

    A batch of captions is tokenized in two milliseconds, and several threads take longer to come together. A value of
    `TOKENIZERS_PARALLELISM` that is set already stays.
    """
    keep_freed_memory()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        disable_progress_bar()


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, and return whether it does; with the GNU C library only.

    By default an array of some megabytes is given back to the system when it is freed, and the next step gets it anew,
    page by page: the word table's gradient alone is 8,000 pages a step. A process that only trains needs the same
    memory in every step.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(M_MMAP_MAX, 0)) and bool(library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
