"""Decoding of single fields: whole numbers, base64 arrays, raw arrays. Every fault is a ValueError."""

import base64
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError

MAX_REGIONS = 100_000  # of one image; a larger number is a damaged field
MAX_SIDE = 1_000_000  # pixels
MAX_BYTES = 512 * 2**20  # of one array, declared or real
RESNET_WIDTH = 2048  # what every predecessor's detector gives

MAX_SPREAD = 5.0  # standard deviation of log2 |feature|; of real features it is 1 to 3, in the wrong type 6 or more
MAX_SHIFT = 2.0  # difference of the means of log2 |feature| in even and odd positions

_PLAIN_DTYPE = re.compile(r"[<>|=]?([fiub][1248]|[US][0-9]{1,4})")


def whole_number(value: object, name: str, most: int, least: int = 1) -> int:
    """Return a number that a file gives as digits, as a number or as an array of one number."""
    number = value
    if isinstance(value, bytes | str):
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
        number = int(text) if re.fullmatch(r"[0-9]{1,12}", text) else None
    elif isinstance(value, np.ndarray | np.generic) and value.size == 1:
        number = value.item()
    if not (isinstance(number, int | float) and least <= number <= most and number == int(number)):
        raise MmptValueError(f"{name} is {shown(value)}, expected a whole number from {least} to {most}")
    return int(number)


def text_of(value: bytes, name: str) -> str:
    """Return a field that must be UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise MmptValueError(f"{name} is {shown(value)}, expected UTF-8 text") from None


def base64_array(text: bytes | str, name: str, rows: int, columns: int | None, types: Sequence[str]) -> NDArray[Any]:
    """Decode a base64 field into (rows, columns), or (rows,) where `columns` is 0.

    Args:
        columns: None if the width is what the number of bytes says.
        types: the types that the field may have; the one whose size fits exactly is taken.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MmptValueError(
            f"{name} ({len(text)} characters) is not base64: {error}; was the file cut, or its columns mixed up?"
        ) from None
    return sized_array(data, name, rows, columns, types)


def sized_array(data: bytes, name: str, rows: int, columns: int | None, types: Sequence[str]) -> NDArray[Any]:
    """Return raw numbers as (rows, columns), or (rows,) where `columns` is 0, in the type whose size fits exactly."""
    wanted = []
    for dtype in [np.dtype(name) for name in types]:
        row = dtype.itemsize * (columns or 1)
        fits = len(data) == rows * row if columns is not None else bool(data) and len(data) % (rows * row) == 0
        if fits:
            return np.frombuffer(data, dtype).reshape((rows,) if columns == 0 else (rows, -1))
        width = f" x {columns}" if columns else " x width" if columns is None else ""
        multiple = "a multiple of " if columns is None else ""
        wanted.append(f"{multiple}{rows * row} ({rows}{width} {dtype.name})")
    raise MmptValueError(
        f"{name} has {len(data)} bytes, expected {' or '.join(wanted)}; num_boxes is wrong, or the field was cut"
    )


def base64_features(text: bytes | str, rows: int, boxes: NDArray[Any], dtype: str | None = None) -> NDArray[Any]:
    """Decode base64 features, whose width no field has.

    Args:
        dtype: "float16", "float32" or "float64"; None means float32, as in the files of all predecessors, and beside
            float64 boxes the type that gives 2048 numbers a region.
    """
    if dtype is not None:
        return float_array(base64_array(text, "features", rows, None, (dtype,)), "features")
    if boxes.dtype.itemsize == 4:
        return base64_array(text, "features", rows, None, ("<f4",))
    return base64_array(text, "features", rows, RESNET_WIDTH, ("<f4", "<f8")).astype(np.float32)


def float16_evidence(data: bytes, rows: int) -> tuple[bool, bool]:
    """Return whether raw features are plausible as float32, and whether as float16.

    Features of a network spread over few orders of magnitude. Read in the wrong type they spread over many, are not
    finite, or differ between the even and the odd positions, which are then the halves of one number.
    """
    whole = len(data) % (4 * rows) == 0 and _is_plausible(np.frombuffer(data, "<f4"))
    if len(data) % (2 * rows):
        return whole, False
    halves = np.frombuffer(data, "<f2").astype(np.float32)
    even, odd = _logs(halves[::2]), _logs(halves[1::2])
    sizes = 2 * len(even) / max(1, halves.size), 2 * len(odd) / max(1, halves.size)
    alike = abs(sizes[0] - sizes[1]) < 0.3 and (
        not (len(even) and len(odd)) or abs(float(even.mean() - odd.mean())) < MAX_SHIFT
    )
    return whole, alike and _is_plausible(halves)


def float64_is_plausible(data: bytes, rows: int) -> bool:
    """Return whether raw features are plausible as float64."""
    return len(data) % (8 * rows) == 0 and _is_plausible(np.frombuffer(data, "<f8"))


def _is_plausible(values: NDArray[Any]) -> bool:
    logs = _logs(values)
    return bool(np.isfinite(values).all()) and len(logs) > 3 and float(logs.std()) < MAX_SPREAD


def _logs(values: NDArray[Any]) -> NDArray[Any]:
    """Return log2 of the magnitudes of the numbers that are finite and not 0."""
    with np.errstate(all="ignore"):
        sizes = np.abs(values[np.isfinite(values) & (values != 0)].astype(np.float64))
    return np.log2(sizes)


def plain_dtype(name: object) -> np.dtype[Any]:
    """Return the type that a file names; only numbers and text are taken, never objects or records."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text):
        raise MmptValueError(f"an array has type {shown(name)}, expected plain numbers such as '<f4'")
    try:
        return np.dtype(text)
    except TypeError:
        raise MmptValueError(f"an array has type {shown(name)}, which numpy does not know") from None


def raw_array(data: object, dtype: np.dtype[Any], shape: object, fortran: bool = False) -> NDArray[Any]:
    """Return an array from its parts as a file names them, once they agree on the number of bytes."""
    if not isinstance(shape, tuple | list) or not all(isinstance(n, int) and 0 <= n <= MAX_BYTES for n in shape):
        raise MmptValueError(
            f"the shape of an array is {shown(shape)}, expected a list of whole numbers up to {MAX_BYTES}"
        )
    if not isinstance(data, bytes | bytearray | memoryview):
        raise MmptValueError(f"an array holds {type(data).__name__}, expected bytes")
    size = dtype.itemsize
    for length in shape:
        size *= length  # of Python's unbounded integers
    if size != len(data) or len(shape) > 4 or not dtype.itemsize:
        raise MmptValueError(f"an array has {len(data)} bytes, expected {size} ({dtype.name} of shape {list(shape)})")
    return np.frombuffer(data, dtype).reshape(tuple(shape), order="F" if fortran else "C")


def float_array(value: object, name: str) -> NDArray[Any]:
    """Return an array of float16 or float32; float64 is cast."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise MmptValueError(f"{name} is {got}, expected an array of float16, float32 or float64")
    return value.astype(f"f{min(value.dtype.itemsize, 4)}", copy=False)  # in this machine's byte order


def shown(value: object) -> str:
    """Return a value for an error; of a container only its type, because it may be endless when written out."""
    if isinstance(value, bytes | str):
        value = value[:200]
    text = repr(value) if isinstance(value, bytes | str | int | float | np.generic | None) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
