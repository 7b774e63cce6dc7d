# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""The errors that mmpt raises: one base class, and below it the built-in kinds that callers tell apart."""


class MmptError(Exception):
    """Something that was given or found is not usable; the message says what, what was expected and what to do.

    `except MmptError` catches every error of this package and none of a library. Each subclass is also the built-in
    error of its name, so that `except ValueError` and `except FileNotFoundError` work as usual.
    """


class MmptValueError(MmptError, ValueError):
    """An argument, a file or a combination of them has an unusable value."""


class MmptTypeError(MmptError, TypeError):
    """An argument has the wrong type, or a keyword does not exist."""


class MmptKeyError(MmptError, KeyError):
    """A mapping does not have the key."""

    __str__ = Exception.__str__  # KeyError would show the message with quotes around it


class MmptIndexError(MmptError, IndexError):
    """A sequence does not have the position."""


class MmptImportError(MmptError, ModuleNotFoundError):
    """An optional package is not installed."""


class MmptOSError(MmptError, OSError):
    """The file system or an outside service refused."""


class MmptFileNotFoundError(MmptError, FileNotFoundError):
    """A file or folder does not exist."""


class MmptFileExistsError(MmptError, FileExistsError):
    """A file or folder exists that would be overwritten."""


class MmptPermissionError(MmptError, PermissionError):
    """A file or folder must not be read or written."""


class MmptConnectionError(MmptError, ConnectionError):
    """A service could not be reached."""


class MmptRuntimeError(MmptError, RuntimeError):
    """An operation failed for a reason outside its arguments."""


class MmptFloatingPointError(MmptError, FloatingPointError):
    """A loss, gradient or weight is NaN or infinite."""
