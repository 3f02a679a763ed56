"""MXNet's container of tensors (``.params``): a list of arrays and their names, little-endian. Read with bounds: no number of
a file is believed before the bytes that it speaks of are there.

Layout (src/ndarray/ndarray.cc): uint64 magic 0x112, uint64 reserved, uint64 count; each array: a shape (see ``_shape``),
int32 device, int32 device id, int32 type, its values; then uint64 count and names, each a uint64 length and its text."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from meliuscli.errors import BadInputError
from meliuscli.exchange.tensors import Array

LIST_MAGIC = 0x112
OLD, DENSE, NUMPY = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
"""Magic numbers of arrays in MXNet 0.11, 1.0 and 1.5; arrays of before have none, and begin with their dimensions."""
TYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
MAX_ARRAYS, MAX_NAME, MAX_DIMENSIONS = 100_000, 4096, 16


class _Cursor:
    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def numbers(self, code: str, count: int = 1) -> tuple[int, ...]:
        whole = f"<{count}{code}"
        values: tuple[int, ...] = struct.unpack(whole, self.bytes(struct.calcsize(whole)))
        return values

    def number(self, code: str) -> int:
        return self.numbers(code)[0]

    def bytes(self, count: int) -> bytes:
        if count > len(self.content) - self.at:
            raise ValueError(f"it ends at byte {len(self.content):,}, inside of an array or a name")
        self.at += count
        return self.content[self.at - count : self.at]


def read_params(path: Path) -> dict[str, Array]:
    """Name, with ``arg:`` or ``aux:`` in front where the file has it, -> array.

    Raises ``BadInputError`` for anything but a whole file."""
    cursor = _Cursor(path.read_bytes())
    try:
        if cursor.number("Q") != LIST_MAGIC:
            raise ValueError("it does not begin as one")
        cursor.number("Q")
        arrays = [_array(cursor) for _ in range(_bounded(cursor.number("Q"), MAX_ARRAYS, "arrays"))]
        names = [_name(cursor) for _ in range(_bounded(cursor.number("Q"), MAX_ARRAYS, "names"))]
        if len(names) != len(arrays) or len(set(names)) != len(names):
            raise ValueError(f"it has {len(arrays)} arrays and {len(set(names))} names")
        if cursor.at != len(cursor.content):
            raise ValueError(f"{len(cursor.content) - cursor.at:,} bytes are left behind its end")
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: corrupt, or no file of MXNet's (.params): {error}") from None
    return dict(zip(names, arrays, strict=True))


def _bounded(value: int, at_most: int, what: str) -> int:
    if value > at_most:
        raise ValueError(f"it claims {value:,} {what}")
    return value


def _array(cursor: _Cursor) -> Array:
    shape = _shape(cursor)
    if not shape:
        return np.zeros(0, np.float32)
    cursor.numbers("i", 2)  # the device
    kind = cursor.number("i")
    if kind not in TYPES:
        raise ValueError(f"it has an array of an unknown type ({kind})")
    dtype = np.dtype(TYPES[kind])
    return np.frombuffer(cursor.bytes(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


def _shape(cursor: _Cursor) -> tuple[int, ...]:
    """uint32 magic, [int32 storage,] uint32 dimensions, int64 each; without magic uint32 dimensions, uint32 each."""
    first = cursor.number("I")
    if first in (DENSE, NUMPY) and (storage := cursor.number("i")) not in (0, -1):
        raise ValueError(f"it has a sparse array (storage {storage})")
    has_magic = first in (OLD, DENSE, NUMPY)
    dimensions = _bounded(cursor.number("I") if has_magic else first, MAX_DIMENSIONS, "dimensions of an array")
    shape = cursor.numbers("q" if has_magic else "I", dimensions)
    if any(size < 0 for size in shape):
        raise ValueError(f"it has an array of shape {shape}")
    return shape


def _name(cursor: _Cursor) -> str:
    return cursor.bytes(_bounded(cursor.number("Q"), MAX_NAME, "bytes of a name")).decode()
