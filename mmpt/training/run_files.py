"""Files of a run: each is replaced as a whole, and a disk that takes no more is one sentence."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mmpt.configuration.errors import MmptOSError

_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOENT}
_WRITER = ("PytorchStreamWriter", "inline_container", "file write failed", "unexpected pos")
"""What an error of torch.save mentions when the file system refuses."""


@contextmanager
def clear_write_errors(path: Path) -> Iterator[None]:
    """Turn what file system, safetensors and torch.save raise when a file cannot be written into one sentence.

    Raises:
        MmptOSError: naming the path.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, MmptOSError):
            raise
        reason = _why_refused(error)
        if reason is None:
            raise
        free = shutil.disk_usage(next(each for each in (path, *path.absolute().parents) if each.exists())).free
        raise MmptOSError(
            f"{path} could not be written: {reason} ({free / 1e6:,.0f} MB are free there); make room, and resume with "
            "--resume_from_checkpoint last"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which then takes the place of `path`; after an error `path` is as it was.

    Raises:
        MmptOSError: if the file system refuses.
    """
    temporary = path.with_name(f"_new_{path.name}")  # the suffix stays: matplotlib goes by it
    try:
        with clear_write_errors(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _why_refused(error: Exception) -> str | None:
    if isinstance(error, OSError):
        return error.strerror if error.errno in _REFUSED else None
    if isinstance(error, SafetensorError):
        return str(error) if "IoError" in str(error) or "I/O error" in str(error) else None
    return "the disk took only a part of it" if any(word in str(error) for word in _WRITER) else None
