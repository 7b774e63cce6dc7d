"""Loading what transformers saved, without running any code that lies beside it."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmpt.configuration.errors import MmptValueError

_ADVICE = re.compile(r"weights_only|allow_pickle|trust_remote_code|safe_globals|use_safetensors", re.IGNORECASE)
_AROUND_ADVICE = re.compile(r"trust|still be loaded|torch\.load|run the custom code|avoid this prompt", re.IGNORECASE)
_COLOURS = re.compile(r"\x1b\[[\d;]*m")


def load_pretrained(kind: Any, source: Any, **options: Any) -> Any:
    """Return `kind.from_pretrained(source)` where no code of the source is run, and nobody is asked whether it may be.

    Raises:
        ValueError: if the source asks for code of its own, or holds a pickle of more than tensors.
    """
    with refuse_code(source):
        return kind.from_pretrained(source, trust_remote_code=False, **options)


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
