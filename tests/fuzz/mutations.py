"""Seeded damage to feature files: to bytes of any kind, to TSV rows, to arrays, archives and pickles."""

import base64
import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np

from tests.fuzz.feature_files import npz_bytes

Rng = random.Random
PATH_LIKE = (b"../../x", b"/abs", b"a\0b", b"x" * 1000, b"..", b"", b"~", b"\xff\xfe", "e\u0301".encode(), b"a/b")
NUMBERS = (b"-1", b"0", b"1", b"2", b"99999999999", b"1e3", b"", b"x", b" 3", b"1_0", "\u0663".encode(), b"9" * 5000)
DTYPES = ("f2", "f4", "f8", ">f4", "i8", "i4", "u1", "b1", "c8", "S3", "U2", "O")


class Payload:
    """Makes a folder where it is unpickled: what a malicious file would do."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def damage_bytes(rng: Rng, data: bytes) -> bytes:
    """Damage bytes that may be anything."""
    mutate = rng.choice(_BYTES)
    return mutate(rng, data)


def truncate(rng: Rng, data: bytes) -> bytes:
    """Cut at any place, near the ends more often."""
    places = [rng.randrange(len(data) + 1), rng.randrange(min(len(data), 64) + 1), len(data) - rng.randrange(64)]
    return data[: max(0, rng.choice(places))]


def flip(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng: Rng, data: bytes) -> bytes:
    """Write a number that may be a size, a count or an offset: huge, negative or zero."""
    number = rng.choice((0, 1, 0x7F, 0xFF, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1))
    width = rng.choice((1, 2, 4, 8))
    written = (number % 256**width).to_bytes(width, rng.choice(("little", "big")))
    place = rng.randrange(max(1, len(data)))
    return data[:place] + written + data[place + width :]


def erase(rng: Rng, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    length = rng.choice((1, 4, 16, 4096))
    return data[:start] + rng.choice((b"", b"\0" * length, b"\xff" * length)) + data[start + length :]


def insert(rng: Rng, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 3, 64))) + data[place:]


def copy_inside(rng: Rng, data: bytes) -> bytes:
    start, length = rng.randrange(len(data) + 1), rng.choice((8, 64, 4096))
    place = rng.randrange(len(data) + 1)
    return data[:place] + data[start : start + length] + data[place + rng.choice((0, length)) :]


def replace_all(rng: Rng, data: bytes) -> bytes:
    return rng.choice(
        (b"", b"PK\x03\x04", b"\x80\x04.", b"\x93NUMPY", b"\x81", rng.randbytes(200), b"\n" * 20, b"\t" * 9)
    )


_BYTES = (truncate, flip, flip, overwrite, overwrite, erase, insert, copy_inside, replace_all)


def damage_row(rng: Rng, row: bytes) -> bytes:
    """Damage one line of a TSV, which has no line end."""
    if rng.random() < 0.3:
        return damage_bytes(rng, row)
    fields = row.split(b"\t")
    place = rng.randrange(len(fields))
    field = fields[place]
    kind = rng.randrange(9)
    if kind == 0:
        fields[place] = field[: -rng.choice((1, 2, 3, 4, 8, 16))]
    elif kind == 1:
        fields[place] = rng.choice(NUMBERS)
    elif kind == 2:
        fields[0] = rng.choice(PATH_LIKE)
    elif kind == 3:
        del fields[place]
    elif kind == 4:
        fields.insert(place, rng.choice((b"", b"1", field)))
    elif kind == 5:
        other = rng.randrange(len(fields))
        fields[place], fields[other] = fields[other], field
    elif kind == 6:
        fields[place] = _other_type(rng, field)
    elif kind == 7:
        fields[place] = rng.choice((b"b'" + field + b"'", b'"' + field + b'"', field + b"AAAA", b" " + field))
    else:
        fields[place] = _strange_numbers(rng, field)
    return b"\t".join(fields)


def _other_type(rng: Rng, field: bytes) -> bytes:
    try:
        numbers = np.frombuffer(base64.b64decode(field, validate=True), "<f4")
    except ValueError:
        return field[::-1]
    with np.errstate(all="ignore"):
        return base64.b64encode(numbers.astype(rng.choice(("<f2", "<f8", "<i8", "<i2"))).tobytes())


def _strange_numbers(rng: Rng, field: bytes) -> bytes:
    try:
        numbers = np.frombuffer(base64.b64decode(field, validate=True), "<f4").copy()
    except ValueError:
        return field + field
    if len(numbers):
        numbers[rng.randrange(len(numbers))] = rng.choice((np.nan, np.inf, -np.inf, 1e38, -1.0, 70_000.0, -0.0))
    return base64.b64encode(numbers.tobytes())


def damage_arrays(rng: Rng, arrays: dict[str, Any], target: Path) -> dict[str, Any]:
    """Damage one of some named arrays: its shape, type or numbers, or leave it out."""
    name = rng.choice(sorted(arrays))
    array = np.asarray(arrays[name])
    kind = rng.randrange(8)
    changed = dict(arrays)
    with np.errstate(all="ignore"):
        if kind == 0:
            del changed[name]
        elif kind == 1:
            changed[name] = array[: rng.randrange(3)] if array.ndim else array.reshape(1)
        elif kind == 2:
            changed[name] = array.reshape(rng.choice(((-1,), (1, -1), (1, 1, -1), (-1, 1))))
        elif kind == 3:
            dtype = np.dtype(rng.choice(DTYPES))
            changed[name] = array.astype(dtype) if array.dtype.kind in "fiub" else array
        elif kind == 4:
            changed[name] = np.array([Payload(target)], dtype=object)
        elif kind == 5:
            changed[name] = np.full_like(
                array, rng.choice((0, 1, 200)), shape=(rng.choice((0, 1, 7)), *array.shape[1:])
            )
        elif kind == 6 and array.dtype.kind == "f" and array.size:
            array = array.copy()
            array.flat[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, -5.0, 3.0, 60_000.0))
            changed[name] = array
        else:
            changed["extra"] = np.array(Payload(target), dtype=object)
    return changed


def damage_npz(rng: Rng, arrays: dict[str, Any], target: Path) -> bytes:
    """Return a `.npz` with damaged arrays, a damaged archive, wrong declared sizes, or a zip bomb."""
    kind = rng.randrange(6)
    if kind <= 1:
        return npz_bytes(**damage_arrays(rng, arrays, target))
    if kind == 2 and rng.random() < 0.1:
        name = rng.choice(sorted(arrays))
        return npz_bytes(**(arrays | {name: np.zeros((rng.choice((2000, 9000)), 2500), np.float32)}))
    if kind == 3:
        return _lying_npz(rng, arrays)
    return damage_bytes(rng, npz_bytes(**arrays))


def _lying_npz(rng: Rng, arrays: dict[str, Any]) -> bytes:
    """Return an archive whose directory, or whose arrays' headers, tell wrong sizes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    ) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array)
            archive.writestr(
                f"{name}.npy", damage_npy(rng, member.getvalue()) if rng.random() < 0.5 else member.getvalue()
            )
    data = bytearray(buffer.getvalue())
    entry = data.find(b"PK\x01\x02")
    for _ in range(rng.randrange(3)):
        place = entry + rng.choice((8, 10, 16, 20, 24, 28, 32, 42))
        struct.pack_into("<I", data, place, rng.choice((0, 1, 2**20, 2**31, 2**32 - 1)))
    return bytes(data)


def damage_npy(rng: Rng, data: bytes) -> bytes:
    """Damage a `.npy`: its bytes, or the shape and type in its header."""
    if rng.random() < 0.5:
        return damage_bytes(rng, data)
    words = (
        (b"'shape': (", b"'shape': (99999999999, "),
        (b"'shape': (", b"'shape': (-1, "),
        (b"<f", b"|O"),
        (b"<f", b">f"),
        (b"'<f4'", b"[('a','<f4')]"),
        (b"False", b"True "),
        (b"'descr'", b"'escrd'"),
        (b"{", b"(" * 9 + b"{"),
        (b"'<f4'", b"'<U99'"),
    )
    old, new = rng.choice(words)
    return data.replace(old, new, 1)


def damage_item(rng: Rng, item: dict[str, Any], target: Path) -> Any:
    """Damage a dict that will be pickled: wrong fields, a payload, structures without end."""
    kind = rng.randrange(7)
    changed: dict[Any, Any] = dict(item)
    name = rng.choice(sorted(item))
    if kind == 0:
        return damage_arrays(rng, item, target)
    if kind == 1:
        changed[name] = Payload(target)
    elif kind == 2:
        changed[name] = rng.choice((None, -1, 2**70, 1e400, "12", "x" * 500, b"\xff", [1], (), {}, {"a": 1}, "../../x"))
    elif kind == 3:
        changed = {name: value for name, value in changed.items() if rng.random() < 0.7}
    elif kind == 4:
        shared: Any = ()
        for _ in range(60):  # 2 ** 60 elements if written out or hashed
            shared = (shared, shared)
        changed[name] = rng.choice((shared, [shared]))
    elif kind == 5:
        changed["loop"] = changed
    else:
        return rng.choice(([item], Payload(target), None, "x", {}, {1: item}))
    return changed


def damage_pickle(rng: Rng, item: dict[str, Any], target: Path) -> bytes:
    """Return the pickle of a damaged dict, or a damaged pickle."""
    protocol = rng.randrange(pickle.HIGHEST_PROTOCOL + 1)
    if rng.random() < 0.5:
        return pickle.dumps(damage_item(rng, item, target), protocol=protocol)
    data = pickle.dumps(item, protocol=protocol)
    if rng.random() < 0.2:  # an opcode that asks for much
        opcodes = (
            b"r\xff\xff\xff\x7f",
            b"\x96" + b"\xff" * 7 + b"\x7f",
            b"\x8b\xff\xff\xff\x7f",
            b"\x82\x01",
            b"2" * 500,
        )
        return data[:2] + rng.choice(opcodes) + data[2:]
    return damage_bytes(rng, data)


def damage_msgpack(rng: Rng, arrays: dict[str, Any], target: Path) -> bytes:
    """Return msgpack-numpy's form of damaged arrays, or damaged bytes of it."""
    kind = rng.randrange(4)
    if kind == 0:
        changed = {name: np.asarray(array) for name, array in damage_arrays(rng, arrays, target).items()}
        plain = {name: array for name, array in changed.items() if not array.dtype.hasobject}
        return msgpack.packb(plain, default=msgpack_numpy.encode)
    if kind == 1:
        name = rng.choice(sorted(arrays))
        forms: tuple[dict[bytes, Any], ...] = (
            {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps(Payload(target))},
            {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2**40, 2**40], b"data": b"1234"},
            {b"nd": True, b"type": [["a", "<f4"]], b"kind": b"V", b"shape": [1], b"data": b"1234"},
            {b"nd": True, b"type": "<f4", b"shape": [-1], b"data": "text"},
            {b"nd": False, b"type": "<f4", b"data": b"1234"},
            {b"nd": True},
        )
        return msgpack.packb(arrays | {name: rng.choice(forms)}, default=msgpack_numpy.encode)
    data = msgpack.packb(arrays, default=msgpack_numpy.encode)
    return (
        rng.choice((b"\xdf\xff\xff\xff\xff", b"\x91" * 5000, b"\x98")) + data if kind == 2 else damage_bytes(rng, data)
    )


Damage = Callable[[Rng, bytes], bytes]
