"""Numeric arrays from a MATLAB 5 file (`-v6`, `-v7`), every size checked before it is used.

scipy's reader is not used, because a malicious file can crash the process.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from rlu_cli.errors import InputError, printable

STARTS = (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")
MAX_BYTES = 2**31  # of one array
MAX_RATIO = 200  # unpacked to packed, over a megabyte
MAX_AXES = 8
Numbers = NDArray[np.generic]

_HEADER = 128  # bytes; the last two give the byte order
_MATRIX, _COMPRESSED = 14, 15
_INTRO = 512  # bytes that hold a variable's flags, shape and name
_CLASSES = {
    6: "f8",
    7: "f4",
    8: "i1",
    9: "u1",
    10: "i2",
    11: "u2",
    12: "i4",
    13: "u4",
    14: "i8",
    15: "u8",
}
_STORED = {  # numbers may be stored in a smaller type than their own
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_COMPLEX_OR_LOGICAL = 0x0A00


class _Broken(ValueError):
    """A part of the file is inconsistent."""


def is_matlab(path: Path) -> bool:
    if not os.path.isfile(path):  # unlike Path.is_file, never raises
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(len(STARTS[0])) in STARTS
    except OSError:
        return False


def read_arrays(path: Path, names: Collection[str]) -> dict[str, Numbers]:
    """The real numeric arrays called one of `names`; all other variables are skipped.

    Raises InputError E202 when the file is corrupt, E204 when an array would unpack to far more
    than its stored size, E205 when it is too large, E220 for a MATLAB 7.3 file, which is HDF5.
    """
    try:
        return _arrays(path, names)
    except (ValueError, OSError, zlib.error, struct.error) as problem:
        raise InputError(
            "E202",
            f"{printable(path)} is truncated or corrupt",
            why=printable(problem),
            hint="download the file again from its source",
        ) from problem


def _arrays(path: Path, names: Collection[str]) -> dict[str, Numbers]:
    found: dict[str, Numbers] = {}
    with path.open("rb") as stream:
        _refuse_hdf5(path, stream)
        stream.seek(_HEADER - 2)
        order = "<" if stream.read(2) == b"IM" else ">"
        for kind, packed in _elements(path, stream, order):
            name = _name(_intro(packed, kind), order)
            if name in found:
                raise _Broken(f"it has two arrays {name}")
            if name in names:
                found[name] = _array(_unpacked(path, packed, kind, order), order)
    return found


def _refuse_hdf5(path: Path, stream: BinaryIO) -> None:
    if stream.read(len(STARTS[1])) == STARTS[1]:
        raise InputError(
            "E220",
            f"cannot use {printable(path)}: it is a MATLAB 7.3 file (HDF5)",
            hint="save it again in MATLAB with `save(file, 'X', 'y', '-v7')`",
        )


def _elements(path: Path, stream: BinaryIO, order: str) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each variable, compressed or not."""
    left = os.fstat(stream.fileno()).st_size - _HEADER
    while tag := stream.read(8):
        kind, size = struct.unpack(f"{order}II", tag)
        left -= 8 + size
        if left < 0:
            raise _Broken(f"a variable of {size:,} bytes goes beyond the end of the file")
        _refuse_large(path, size)
        yield kind, (tag if kind == _MATRIX else b"") + stream.read(size)


def _refuse_large(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise InputError(
            "E205",
            f"refused {printable(path)}: a variable of over {MAX_BYTES:,} bytes",
            hint="give fewer images, as an .npz",
        )


def _intro(packed: bytes, kind: int) -> bytes:
    if kind == _COMPRESSED:
        return zlib.decompressobj().decompress(packed, _INTRO)
    return packed[:_INTRO] if kind == _MATRIX else b""


def _unpacked(path: Path, packed: bytes, kind: int, order: str) -> bytes:
    """The variable from its tag on, decompressed only up to the size in the tag."""
    if kind != _COMPRESSED:
        return packed
    size = 8 + struct.unpack_from(f"{order}I", _intro(packed, kind), 4)[0]
    if size > max(2**20, MAX_RATIO * len(packed)):
        raise InputError(
            "E204",
            f"refused {printable(path)}: {len(packed):,} bytes would unpack to {size:,}",
            why="a file that unpacks to far more than its own size can exhaust the memory",
            hint="download the file again from its source",
        )
    _refuse_large(path, size)
    return zlib.decompressobj().decompress(packed, size)


def _part(data: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """Kind and content of the part at a position, and the position of the next."""
    (kind,) = struct.unpack_from(f"{order}I", data, at)
    if kind >> 16:  # up to four bytes lie in the tag itself
        kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
    else:
        (size,) = struct.unpack_from(f"{order}I", data, at + 4)
        start, end = at + 8, at + 8 + (size + 7) // 8 * 8
    content = data[start : start + size]
    if len(content) < size or start + size > end:
        raise _Broken(f"a part of {size:,} bytes goes beyond its variable")
    return kind, content, end


def _name(intro: bytes, order: str) -> str:
    """Name of a variable; empty if it is not an array of real numbers."""
    if len(intro) < 8 or struct.unpack_from(f"{order}I", intro)[0] != _MATRIX:
        return ""
    data = memoryview(intro)
    _, flags, shape_at = _part(data, 8, order)
    (bits,) = struct.unpack_from(f"{order}I", flags)
    if bits & 0xFF not in _CLASSES or bits & _COMPLEX_OR_LOGICAL:
        return ""
    *_, name_at = _part(data, shape_at, order)
    return bytes(_part(data, name_at, order)[1]).decode("latin-1")


def _array(variable: bytes, order: str) -> Numbers:
    """The array in its own shape and type, first axis fastest; copied only to change the type."""
    data = memoryview(variable)
    _, flags, shape_at = _part(data, 8, order)
    _, sizes, name_at = _part(data, shape_at, order)
    *_, content_at = _part(data, name_at, order)
    stored, content, _ = _part(data, content_at, order)
    if len(sizes) > 4 * MAX_AXES or stored not in _STORED:
        raise _Broken("an array has too many axes or an unknown type")
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    dtype = np.dtype(order + _STORED[stored])
    if min(shape, default=-1) < 0 or math.prod(shape) * dtype.itemsize != len(content):
        raise _Broken(f"an array of {len(content):,} bytes has another shape")
    own = np.dtype(_CLASSES[struct.unpack_from(f"{order}I", flags)[0] & 0xFF])
    if not np.can_cast(dtype, own):
        raise _Broken(f"an array of {own} is stored as {dtype}")
    return np.frombuffer(content, dtype=dtype).astype(own, copy=False).reshape(shape, order="F")
