"""Interpreter for the few pickle opcodes that dictionaries of numpy arrays need; it cannot run code."""

import pickletools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.field_decoding import plain_dtype, raw_array, shown

_NUMPY = ("numpy.core", "numpy._core")
_CONSTRUCTORS = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
    **{(f"{core}.multiarray", "_reconstruct"): "reconstruct" for core in _NUMPY},
    **{(f"{core}.multiarray", "scalar"): "scalar" for core in _NUMPY},
    **{(f"{core}.numeric", "_frombuffer"): "frombuffer" for core in _NUMPY},
}
_MARK = object()
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_BYTE_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # strings of Python 2; read as Latin-1
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Name:
    """A constructor named in the pickle; `_call` implements it."""

    def __init__(self, name: str) -> None:
        self.name = name


class _DType:
    """A numpy dtype under construction: its code, then its byte order."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, ""

    def numpy(self) -> np.dtype[Any]:
        """Return the dtype."""
        return plain_dtype(f"{self.order}{self.code}" if self.code != "b1" else "|b1")


class _Array:
    """A numpy array under construction."""

    value: Any = None


def load_pickle(data: bytes, text_encoding: str = "latin-1") -> Any:
    """Load a pickle of dicts, lists, tuples, numbers, strings and numpy arrays.

    Nothing in it is imported or called, so it cannot run code. An array of one object gives the object.

    Args:
        text_encoding: encoding of Python 2 strings, which are bytes; undecodable bytes become lone surrogates.

    Raises:
        ValueError: if it is damaged, or contains anything else.
    """
    try:
        return _finished(_run(data, text_encoding))
    except MmptValueError:
        raise
    except (LookupError, TypeError, ValueError, struct.error, OverflowError, MemoryError, RecursionError) as error:
        raise MmptValueError(f"the pickle is damaged ({type(error).__name__}: {error})") from None


def _run(data: bytes, text_encoding: str) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in _BYTE_STRINGS and text_encoding != "latin-1":
            stack.append(str(argument).encode("latin-1").decode(text_encoding, "surrogateescape"))
        elif name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name == "TUPLE":
            stack.append(tuple(_to_mark(stack)))
        elif name == "LIST":
            stack.append(_to_mark(stack))
        elif name == "DICT":
            items = _to_mark(stack)
            stack.append(_set_items({}, items))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else _to_mark(stack)
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _to_mark(stack)
            _set_items(_expect(stack[-1], dict), items)
        elif name == "GLOBAL":
            module, attribute = str(argument).split(" ", 1)
            stack.append(_named(module, attribute))
        elif name == "STACK_GLOBAL":
            attribute, module = _expect(stack.pop(), str), _expect(stack.pop(), str)
            stack.append(_named(module, attribute))
        elif name == "REDUCE":
            arguments, constructor = stack.pop(), stack.pop()
            stack.append(_call(_expect(constructor, _Name).name, _expect(arguments, tuple)))
        elif name == "BUILD":
            state = stack.pop()
            _build(stack[-1], _expect(state, tuple))
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise MmptValueError(f"the pickle has the opcode {name}; only dicts, lists and numpy arrays are read")
    raise MmptValueError("the pickle has no end")


def _named(module: str, attribute: str) -> _Name:
    constructor = _CONSTRUCTORS.get((module, attribute))
    if constructor is None:
        raise MmptValueError(
            f"the pickle names {shown(f'{module}.{attribute}')}; it was refused, because only numpy arrays "
            "and plain values are read. Do not open this file with pickle.load unless you know who wrote it"
        )
    return _Name(constructor)


def _call(constructor: str, arguments: tuple[Any, ...]) -> Any:
    if constructor == "dtype":
        return _DType(_expect(arguments[0], str))
    if constructor == "reconstruct":
        return _Array()
    if constructor == "scalar":
        return raw_array(_bytes(arguments[1]), _expect(arguments[0], _DType).numpy(), ())[()]
    if constructor == "frombuffer":
        buffer, dtype, shape, order = arguments
        return raw_array(_bytes(buffer), _expect(dtype, _DType).numpy(), shape, fortran=order == "F")
    if constructor == "encode":  # protocol 2 encodes bytes like this
        return _expect(arguments[0], str).encode("latin-1")
    if constructor == "bytes" and not arguments:  # protocol 2 encodes empty bytes like this
        return b""
    raise MmptValueError(f"the pickle calls {constructor}, expected it as an argument only")


def _build(target: Any, state: tuple[Any, ...]) -> None:
    if isinstance(target, _DType):
        target.order = _expect(state[1], str)
        return
    _, shape, dtype, fortran, data = state
    dtype = _expect(dtype, _DType)
    if dtype.code.startswith("O"):
        if shape != () or len(_expect(data, list)) != 1:
            raise MmptValueError("the pickle has an array of several objects, expected arrays of numbers")
        _expect(target, _Array).value = data[0]
    else:
        _expect(target, _Array).value = raw_array(_bytes(data), dtype.numpy(), shape, bool(fortran))


def _set_items(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[key if isinstance(key, int) else _text(key)] = value
    return target


def _to_mark(stack: list[Any]) -> list[Any]:
    items = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else _expect(key, str)


def _bytes(data: Any) -> bytes:
    return data.encode("latin-1") if isinstance(data, str) else data  # Python 2 wrote bytes as strings


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise MmptValueError(f"the pickle has {type(value).__name__} where {kind.__name__} is expected")
    return value


def _finished(value: Any) -> Any:
    """Return the value with its arrays in place, in dicts too."""
    if isinstance(value, _Array):
        value = value.value
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    return value
