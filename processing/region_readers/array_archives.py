"""Decode files of numpy.save, numpy.savez and msgpack-numpy, without pickle and with a limit on every size."""

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

SMALL_BYTES = 16 * 2**20  # arrays up to this size may have any compression ratio, because they may be all zeros
MAX_RATIO = 100  # larger arrays of real features never reach this compression ratio

# Errors of numpy's header parser on invalid input; it tokenizes a header that is not a literal.
_HEADER_ERRORS = (
    *(ValueError, TypeError, KeyError, OverflowError, MemoryError),
    *(SyntaxError, TokenError, RecursionError),
)


def decode_npz(data: bytes, wanted: Container[str]) -> dict[str, NDArray[Any]]:
    """Return the wanted arrays of a `.npz` file; all others, also pickled ones, are skipped.

    Raises:
        ValueError: if it is damaged, or the declared size of an array is too large.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in wanted]
            total = sum(info.file_size for info in members)
            if total > MAX_BYTES:
                raise MmptValueError(f"the npz declares arrays of {total} bytes, expected up to {MAX_BYTES}")
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
            f"array {name} of the npz declares that {info.compress_size} bytes expand to {info.file_size}, expected "
            f"up to {MAX_RATIO} times as many; this looks like a zip bomb"
        )
    with archive.open(info) as file:
        return file.read(info.file_size)


def decode_npy(data: bytes, name: str) -> NDArray[Any]:
    """Return the array of a `.npy` file.

    Raises:
        ValueError: if it is damaged, or contains objects, which only pickle could read.
    """
    dtype, shape, fortran, start = npy_header(data, name)
    if dtype.hasobject:
        raise MmptValueError(f"array {name} holds objects, which numpy pickled; expected an array of numbers")
    return raw_array(memoryview(data)[start:], plain_dtype(dtype.str), shape, fortran)


def npy_header(data: bytes, name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Return (dtype, shape, whether the order is Fortran's, offset of the data in bytes)."""
    file = io.BytesIO(data[: 2**17])
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise MmptValueError(f"version {version} is unknown")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ignore Python-2 header warnings
            shape, fortran, dtype = readers[version](file)
    except _HEADER_ERRORS as error:
        raise MmptValueError(f"array {name} is not a valid .npy: {str(error)[:200]}") from None
    return dtype, shape, fortran, file.tell()


def decode_msgpack(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a dict written by msgpack-numpy.

    msgpack-numpy itself is not used, because it would unpickle arrays of objects.

    Raises:
        ValueError: if it is damaged, or is not a dict.
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
