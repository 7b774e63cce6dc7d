"""What a command prints when something is wrong: one line for bad input, a traceback for a fault of the program."""

import contextlib
import os
import time
import traceback
from collections.abc import Iterator

import typer

from mmpt.configuration.errors import MmptError, MmptFloatingPointError, MmptRuntimeError


@contextlib.contextmanager
def clear_errors(debug: bool) -> Iterator[None]:
    """Print bad input as one line and exit with 2; let errors of the program keep their traceback."""
    try:
        yield
    except Exception as error:
        cause = bad_input(error)
        if debug or cause is None:
            raise
        if isinstance(cause, MmptFloatingPointError) and os.environ.get("RANK", "0") != "0":
            # Every process raises the same one. torchrun ends the others when one ends: let the first print it.
            time.sleep(3)
            raise typer.Exit(2) from None
        message = str(cause.args[0]) if isinstance(cause, KeyError) and cause.args else str(cause)
        typer.echo(f"error: {' '.join(message.split())}", err=True)
        raise typer.Exit(2) from None


def bad_input(error: Exception) -> Exception | None:
    """Return the error to show where it is about what a person gave, or None where it may be a fault of the program.

    Errors of this package are, and so are files that cannot be read and values that transformers' TrainingArguments
    refuses. Another error of a library may come from the middle of its work.
    """
    from huggingface_hub.errors import HFValidationError, StrictDataclassError

    if isinstance(error, StrictDataclassError) and isinstance(error.__cause__, Exception):
        return error.__cause__  # it has the message; the error around it says which method of a configuration ran
    if isinstance(error, MmptError | OSError):
        return error
    if isinstance(error, HFValidationError):  # of a name that cannot be one of the Hub
        return error
    if isinstance(error, RuntimeError) and _is_out_of_memory(error):
        return MmptRuntimeError(
            f"out of memory ({str(error).splitlines()[0][:200]}); make the model or the batch smaller"
        )
    refused = isinstance(error, ValueError | ImportError) and _raised_in(error) == "transformers.training_args"
    return error if refused else None


def _is_out_of_memory(error: RuntimeError) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _raised_in(error: Exception) -> str:
    """Return the name of the module whose line raised the error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals["__name__"]
