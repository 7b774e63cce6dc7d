"""Files that are not what their name says: empty files, web pages and git-lfs pointers saved in place of data."""

from pathlib import Path

from mmpt.configuration.errors import MmptValueError

_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml")
_POINTER = b"version https://git-lfs"


def refuse_placeholder(path: Path) -> None:
    """Raise if a file holds something that a failed download leaves in the place of data.

    Raises:
        ValueError: for an empty file, a web page or a git-lfs pointer, with what to do.
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(256)
    if not start:
        raise MmptValueError(f"{path} is empty; download or copy it again")
    if start.startswith(_POINTER):
        raise MmptValueError(
            f"{path} is a git-lfs pointer of {path.stat().st_size} bytes, not the file itself; run `git lfs pull` in "
            "its repository, or download the file"
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        raise MmptValueError(
            f"{path} is a web page, not the file itself; the download was redirected (to a login or a confirmation, "
            "say): download it again in a browser, and look at the size"
        )
