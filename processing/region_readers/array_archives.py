"""Decoding of what numpy.save, numpy.savez and msgpack-numpy wrote, without pickle and with bounds on every size."""

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Container
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.pretrained import reason_of
from mmpt.processing.region_readers.field_decoding import MAX_BYTES, plain_dtype, raw_array, shown
from mmpt.processing.region_readers.file_source import require_module

SMALL_BYTES = 16 * 2**20  # an array up to here may be compressed as well as it can be: it may be zeros
MAX_RATIO = 100  # a larger array of real features is never compressed better than this

# What numpy's parser of headers raises on nonsense: it tokenizes a header that is no literal.
_HEADER_ERRORS = (
    *(ValueError, TypeError, KeyError, OverflowError, MemoryError),
    *(SyntaxError, TokenError, RecursionError),
)


def decode_npz(data: bytes, wanted: Container[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a `.npz` file that are wanted; others, pickled ones too, are passed over.

    Raises:
        ValueError: if it is damaged, or an array's declared size is out of bounds.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in wanted]
            total = sum(info.file_size for info in members)
            if total > MAX_BYTES:
                raise MmptValueError(f"the npz says that its arrays have {total} bytes, expected up to {MAX_BYTES}")
            for info in members:
                name = info.filename.removesuffix(".npy")
                arrays[name] = decode_npy(_member(archive, info, name), name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, struct.error, RuntimeError, KeyError) as error:
        raise MmptValueError(f"the npz is damaged ({type(error).__name__}: {reason_of(error)})") from None
    return arrays


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bytes:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MmptValueError(f"array {name} of the npz has compression {info.compress_type}, expected deflate or none")
    if info.file_size > SMALL_BYTES and info.file_size > MAX_RATIO * info.compress_size:
        raise MmptValueError(
            f"array {name} of the npz says that {info.compress_size} bytes become {info.file_size}, expected up to "
            f"{MAX_RATIO} times as many; this looks like a zip bomb"
        )
    with archive.open(info) as file:
        return file.read(info.file_size)


def decode_npy(data: bytes, name: str) -> NDArray[Any]:
    """Return the array of a `.npy` file.

    Raises:
        ValueError: if it is damaged or holds objects, which only pickle could read.
    """
    dtype, shape, fortran, start = npy_header(data, name)
    if dtype.hasobject:
        raise MmptValueError(f"array {name} holds objects, which numpy pickled; expected an array of numbers")
    return raw_array(memoryview(data)[start:], plain_dtype(dtype.str), shape, fortran)


def npy_header(data: bytes, name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Return type, shape, whether the order is Fortran's, and where the numbers begin."""
    file = io.BytesIO(data[: 2**17])
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise MmptValueError(f"version {version} is not known")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a header is of Python 2 is no one's concern here
            shape, fortran, dtype = readers[version](file)
    except _HEADER_ERRORS as error:
        raise MmptValueError(f"array {name} is no .npy: {str(error)[:200]}") from None
    return dtype, shape, fortran, file.tell()


def decode_msgpack(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a dict that msgpack-numpy wrote; msgpack-numpy itself would unpickle arrays of objects.

    Raises:
        ValueError: if it is damaged or no dict.
        ModuleNotFoundError: if msgpack is not installed.
    """
    require_module("msgpack", "lmdb")
    import msgpack

    try:
        item = msgpack.unpackb(data, raw=True, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException) as error:
        raise MmptValueError(f"the msgpack is damaged ({type(error).__name__}: {str(error)[:200]})") from None
    if not isinstance(item, dict):
        raise MmptValueError(f"the msgpack holds {type(item).__name__}, expected a dict of arrays")
    arrays = {}
    for key, value in item.items():
        name = key.decode("utf-8", "replace") if isinstance(key, bytes) else shown(key)
        if isinstance(value, dict) and value.get(b"nd") is True:
            try:
                arrays[name] = raw_array(value.get(b"data"), plain_dtype(value.get(b"type")), value.get(b"shape"))
            except ValueError as error:
                raise MmptValueError(f"{name}: {error}") from None
    return arrays
