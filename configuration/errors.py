# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Errors that mmpt raises: one base class, and one subclass per built-in error that callers may want to catch."""


class MmptError(Exception):
    """An input is not usable. The message says what was found, what was expected and what to do.

    `except MmptError` catches every error of this package and none of a library. Each subclass also inherits from the
    built-in error of its name, so `except ValueError` and `except FileNotFoundError` work as usual.
    """


class MmptValueError(MmptError, ValueError):
    """An argument, a file or a combination of them has an unusable value."""


class MmptTypeError(MmptError, TypeError):
    """An argument has the wrong type, or a keyword does not exist."""


class MmptKeyError(MmptError, KeyError):
    """A mapping does not have the key."""

    __str__ = Exception.__str__  # KeyError would show the message with quotes around it


class MmptIndexError(MmptError, IndexError):
    """A sequence does not have the index."""


class MmptImportError(MmptError, ModuleNotFoundError):
    """An optional package is not installed."""


class MmptOSError(MmptError, OSError):
    """The file system or an external service refused an operation."""


class MmptFileNotFoundError(MmptError, FileNotFoundError):
    """A file or folder does not exist."""


class MmptFileExistsError(MmptError, FileExistsError):
    """A file or folder exists and would be overwritten."""


class MmptPermissionError(MmptError, PermissionError):
    """A file or folder may not be read or written."""


class MmptConnectionError(MmptError, ConnectionError):
    """A service could not be reached."""


class MmptRuntimeError(MmptError, RuntimeError):
    """An operation failed for a reason outside its arguments."""


class MmptFloatingPointError(MmptError, FloatingPointError):
    """A loss, gradient or weight is NaN or infinite."""
