"""Find access tokens in texts that are about to be written or shared."""

import os
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import get_token

from mmpt.configuration.errors import MmptValueError

_KNOWN = re.compile(
    r"\b(?:hf_|api_org_)[A-Za-z0-9]{20,}"  # Hugging Face
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}"  # GitHub
    r"|\bAKIA[A-Z0-9]{16}\b"  # AWS
    r"|\bsk-[A-Za-z0-9_-]{20,}"  # OpenAI and others
)
_ADDRESS = re.compile(
    r"\b[a-z][a-z0-9+.-]*://[^\s/@:]*:[^\s/@]+@"  # user:password@host
    r"|[?&](?:[\w-]*token|[\w-]*api[_-]?key|[\w-]*signature|sig|password)=[^\s&]+",
    re.IGNORECASE,
)
_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "COMET_API_KEY",
    "MLFLOW_TRACKING_TOKEN",
    "NEPTUNE_API_TOKEN",
    "WANDB_API_KEY",
)
_SHORTEST = 8  # a shorter value of a variable could be a word


def find_token(text: str, *known: str | None) -> str | None:
    """Return what kind of token a text holds, or None; the token itself is never part of the answer.

    Args:
        known: tokens in use, beside those of `hf auth login` and of the environment.
    """
    in_use = [("the access token of the Hub", get_token()), *(("the access token in use", token) for token in known)]
    in_use += [(f"the value of {name}", os.environ.get(name)) for name in _VARIABLES]
    for kind, token in in_use:
        if token and len(token) >= _SHORTEST and token in text:
            return kind
    if _KNOWN.search(text):
        return "an access token"
    return "an address with a password or token" if _ADDRESS.search(text) else None


def refuse_tokens(values: Mapping[str, Any], where: str) -> None:
    """Raise if a value holds an access token; the message names the key and not the token.

    Args:
        values: a value of any depth by key.
        where: what the values are of, for the message.

    Raises:
        ValueError: if one does.
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            refuse_tokens(value, f"{where}, {key}")
        elif (found := find_token(str(value))) is not None:
            raise MmptValueError(
                f"{where}, {key} holds {found}, which would be written into the run's folder for all to read; leave it "
                "out, and log in with `hf auth login` or give it in the environment"
            )
