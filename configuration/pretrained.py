"""Load what transformers saved without running any code from the same folder."""

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from mmpt.configuration.errors import (
    MmptConnectionError,
    MmptError,
    MmptFileNotFoundError,
    MmptOSError,
    MmptValueError,
)

_ADVICE = re.compile(r"weights_only|allow_pickle|trust_remote_code|safe_globals|use_safetensors", re.IGNORECASE)
_AROUND_ADVICE = re.compile(r"trust|still be loaded|torch\.load|run the custom code|avoid this prompt", re.IGNORECASE)
_COLOURS = re.compile(r"\x1b\[[\d;]*m")


def load_pretrained(kind: Any, source: Any, what: str = "", **options: Any) -> Any:
    """Return `kind.from_pretrained(source)` without running code of the source and without a prompt to allow it.

    Args:
        kind: a class with `from_pretrained`.
        source: a folder, or the name of a Hub repository.
        what: description of what is loaded; error messages begin with it.
        options: passed to `from_pretrained`.

    Raises:
        MmptError: if the folder or name does not exist, if its content is of another kind or damaged, if it needs
            custom code, or if it holds a pickle of more than tensors.
    """
    text = str(source)
    shown = f"{what} {text!r}".strip()
    looks_local = text.startswith(("/", "./", "../", "~")) or text.count("/") > 1
    if looks_local and not os.path.exists(text):
        raise MmptFileNotFoundError(f"{shown} does not exist; give a folder, or the name of a model on the Hub")
    try:
        with refuse_code(source):
            return kind.from_pretrained(text, trust_remote_code=False, **options)
    except (MmptError, StrictDataclassError):
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        kinds = ((ConnectionError, MmptConnectionError), (OSError, MmptOSError))
        error_kind = next((ours for theirs, ours in kinds if isinstance(error, theirs)), MmptValueError)
        raise error_kind(f"{shown} cannot be loaded: {reason_of(error)[:500]}") from error


@contextmanager
def refuse_code(source: Any) -> Iterator[None]:
    """Replace a library error that advises running code from data by one that says what was refused.

    Raises:
        ValueError: in place of an error with such advice.
    """
    try:
        yield
    except MmptValueError:
        raise
    except (ValueError, OSError, RuntimeError, ImportError, pickle.UnpicklingError) as error:
        if not (isinstance(error, pickle.UnpicklingError) or _ADVICE.search(str(error))):
            raise
        refused = "it needs custom Python code" if "trust_remote_code" in str(error) else "it holds a pickle"
        raise MmptValueError(
            f"{source} is refused: {refused}, and loading that could run any code ({reason_of(error)}). None of it was "
            "run. Use a source with safetensors weights whose classes are part of transformers or of this package"
        ) from None


def reason_of(error: BaseException) -> str:
    """Return a library's message on one line, without sentences that advise running code from data."""
    text = _COLOURS.sub("", str(error))
    if _ADVICE.search(text):
        sentences = re.split(r"(?<=[.!?])\s+|\n+", text)
        text = " ".join(each for each in sentences if not (_ADVICE.search(each) or _AROUND_ADVICE.search(each)))
    return " ".join(text.split()).rstrip(".:") or type(error).__name__
