# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Loading by a folder or a name on the Hub, with one error for a name that holds nothing usable."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.errors import StrictDataclassError

from mmpt.configuration.errors import MmptConnectionError, MmptError, MmptFileNotFoundError, MmptValueError

Loaded = TypeVar("Loaded")


def load_by_name(load: Callable[..., Loaded], name: str | Path, what: str, **options: Any) -> Loaded:
    """Return what a `from_pretrained` of transformers loads.

    Args:
        name: a folder, or a name on the Hub.
        what: what is loaded; the error begins with it.
        options: of `load`.

    Raises:
        MmptError: if there is no such folder or name, or what lies there is of another kind or damaged.
    """
    text = str(name)
    looks_local = text.startswith(("/", "./", "../", "~")) or text.count("/") > 1
    if looks_local and not os.path.exists(text):
        raise MmptFileNotFoundError(f"{what} {text!r} is not there; give a folder, or the name of a model on the Hub")
    try:
        return load(text, **options)
    except (MmptError, StrictDataclassError):
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        kind = MmptConnectionError if isinstance(error, ConnectionError) else MmptValueError
        raise kind(f"{what} {text!r} cannot be loaded: {' '.join(str(error).split())[:500]}") from error
