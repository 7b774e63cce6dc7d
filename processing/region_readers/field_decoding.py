"""Decode single fields: integers, base64 arrays, raw arrays. A damaged field raises ValueError."""

import base64
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError

MAX_REGIONS = 100_000  # per image; a larger number means a damaged field
MAX_SIDE = 1_000_000  # pixels
MAX_BYTES = 512 * 2**20  # per array, declared or actual
RESNET_WIDTH = 2048  # feature dimension of every predecessor's detector

MAX_SPREAD = 5.0  # standard deviation of log2 |feature|: 1 to 3 for real features, 6 or more in the wrong dtype
MAX_SHIFT = 2.0  # difference between the means of log2 |feature| at even and at odd positions

_PLAIN_DTYPE = re.compile(r"[<>|=]?([fiub][1248]|[US][0-9]{1,4})")


def whole_number(value: object, name: str, most: int, least: int = 1) -> int:
    """Return an integer given as digits, as a number or as an array of one number."""
    number = value
    if isinstance(value, bytes | str):
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
        number = int(text) if re.fullmatch(r"[0-9]{1,12}", text) else None
    elif isinstance(value, np.ndarray | np.generic) and value.size == 1:
        number = value.item()
    if not (isinstance(number, int | float) and least <= number <= most and number == int(number)):
        raise MmptValueError(f"{name} is {shown(value)}, expected an integer from {least} to {most}")
    return int(number)


def text_of(value: bytes, name: str) -> str:
    """Decode a UTF-8 field."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise MmptValueError(f"{name} is {shown(value)}, expected UTF-8 text") from None


def base64_array(text: bytes | str, name: str, rows: int, columns: int | None, types: Sequence[str]) -> NDArray[Any]:
    """Decode a base64 field to (rows, columns), or to (rows,) if `columns` is 0.

    Args:
        columns: None derives the number of columns from the number of bytes.
        types: possible dtypes; the first whose size matches exactly is used.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MmptValueError(
            f"{name} ({len(text)} characters) is not base64: {error}; was the file cut, or its columns mixed up?"
        ) from None
    return sized_array(data, name, rows, columns, types)


def sized_array(data: bytes, name: str, rows: int, columns: int | None, types: Sequence[str]) -> NDArray[Any]:
    """Return raw bytes as an array; see `base64_array` for shape and dtype."""
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
    """Decode base64 features, whose dimension is not stored in the file, to (rows, feature).

    Args:
        dtype: "float16", "float32" or "float64". None means float32, as in the files of all predecessors; if the boxes
            are float64, it means the dtype that gives a feature dimension of 2048.
    """
    if dtype is not None:
        return float_array(base64_array(text, "features", rows, None, (dtype,)), "features")
    if boxes.dtype.itemsize == 4:
        return base64_array(text, "features", rows, None, ("<f4",))
    return base64_array(text, "features", rows, RESNET_WIDTH, ("<f4", "<f8")).astype(np.float32)


def float16_evidence(data: bytes, rows: int) -> tuple[bool, bool]:
    """Return (whether raw features are plausible as float32, whether as float16).

    Features of a network span few orders of magnitude. In the wrong dtype they span many, are not finite, or differ
    between even and odd positions, because these are then the two halves of one number.
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
    """Return log2 of the magnitudes of the finite nonzero numbers."""
    with np.errstate(all="ignore"):
        sizes = np.abs(values[np.isfinite(values) & (values != 0)].astype(np.float64))
    return np.log2(sizes)


def plain_dtype(name: object) -> np.dtype[Any]:
    """Return the dtype that a file names; only numbers and strings are allowed, not objects or records."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text):
        raise MmptValueError(f"an array has type {shown(name)}, expected plain numbers such as '<f4'")
    try:
        return np.dtype(text)
    except TypeError:
        raise MmptValueError(f"an array has type {shown(name)}, which is unknown to numpy") from None


def raw_array(data: object, dtype: np.dtype[Any], shape: object, fortran: bool = False) -> NDArray[Any]:
    """Build an array from bytes, dtype and shape after checking that they agree."""
    if not isinstance(shape, tuple | list) or not all(isinstance(n, int) and 0 <= n <= MAX_BYTES for n in shape):
        raise MmptValueError(f"the shape of an array is {shown(shape)}, expected a list of integers up to {MAX_BYTES}")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise MmptValueError(f"an array contains {type(data).__name__}, expected bytes")
    size = dtype.itemsize
    for length in shape:
        size *= length  # Python integers cannot overflow
    if size != len(data) or len(shape) > 4 or not dtype.itemsize:
        raise MmptValueError(f"an array has {len(data)} bytes, expected {size} ({dtype.name} of shape {list(shape)})")
    return np.frombuffer(data, dtype).reshape(tuple(shape), order="F" if fortran else "C")


def float_array(value: object, name: str) -> NDArray[Any]:
    """Return an array as float16 or float32; float64 is cast to float32."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise MmptValueError(f"{name} is {got}, expected an array of float16, float32 or float64")
    return value.astype(f"f{min(value.dtype.itemsize, 4)}", copy=False)  # in native byte order


def shown(value: object) -> str:
    """Format a value for an error; of a container only the type, because its repr may be huge."""
    if isinstance(value, bytes | str):
        value = value[:200]
    text = repr(value) if isinstance(value, bytes | str | int | float | np.generic | None) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
