"""Loading what transformers saved, without running any code that lies beside it."""

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
    """Return `kind.from_pretrained(source)` where no code of the source is run, and nobody is asked whether it may be.

    Args:
        kind: a class with `from_pretrained`.
        source: a folder, or a name on the Hub.
        what: what is loaded; errors begin with it.
        options: of `from_pretrained`.

    Raises:
        MmptError: if there is no such folder or name, if what lies there is of another kind or damaged, if it asks for
            code of its own, or if it holds a pickle of more than tensors.
    """
    text = str(source)
    shown = f"{what} {text!r}".strip()
    looks_local = text.startswith(("/", "./", "../", "~")) or text.count("/") > 1
    if looks_local and not os.path.exists(text):
        raise MmptFileNotFoundError(f"{shown} is not there; give a folder, or the name of a model on the Hub")
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
    """Turn a library's advice to run code from data into an error that says what was refused, and does not advise it.

    Raises:
        ValueError: in place of an error that has such advice.
    """
    try:
        yield
    except MmptValueError:
        raise
    except (ValueError, OSError, RuntimeError, ImportError, pickle.UnpicklingError) as error:
        if not (isinstance(error, pickle.UnpicklingError) or _ADVICE.search(str(error))):
            raise
        refused = "it asks for Python code of its own" if "trust_remote_code" in str(error) else "it holds a pickle"
        raise MmptValueError(
            f"{source} is refused: {refused}, and loading that could run any code ({reason_of(error)}). Nothing of it "
            "was run. Use a source whose weights are safetensors and whose classes transformers or this package has"
        ) from None


def reason_of(error: BaseException) -> str:
    """Return a library's message on one line, without the sentences that advise to run code from data."""
    text = _COLOURS.sub("", str(error))
    if _ADVICE.search(text):
        sentences = re.split(r"(?<=[.!?])\s+|\n+", text)
        text = " ".join(each for each in sentences if not (_ADVICE.search(each) or _AROUND_ADVICE.search(each)))
    return " ".join(text.split()).rstrip(".:") or type(error).__name__
