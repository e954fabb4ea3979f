"""Numpy's `.npy`: a header with type and shape, then the numbers; arrays of objects are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from rlu_cli.checkpoints.pickle_values import Array, NumpyType
from rlu_cli.checkpoints.source import Content, Format, Source, cause, corrupt, holds_code

MAGIC = b"\x93NUMPY"
_HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MAX_HEADER = 10_000
_PIECE = 1 << 20


def read(source: Source) -> Content:
    """The array of a `.npy` file, as a description of it."""
    source.file.seek(0)
    return Content(read_array(source.file, source.size, "the array", source))


def read_array(stream: BinaryIO, size: int, name: str, source: Source) -> Array:
    """One array of `size` bytes, header included, from the start of `stream`.

    Raises InputError E202 if it is truncated or its header is wrong, E203 for an array of objects.
    """
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran, dtype = _HEADERS[version](stream, max_header_size=_MAX_HEADER)
    except KeyError:
        raise corrupt(source, f"{name} is of an unknown version of .npy") from None
    except Exception as error:
        raise corrupt(source, f"{name} has no header: {cause(error)}") from error
    if dtype.hasobject:
        raise holds_code(source, f"{name} is an array of Python objects")
    count = math.prod(shape) * dtype.itemsize
    if count > size:
        raise corrupt(source, f"{name} claims {count:,} bytes of {size:,}")
    data = _exactly(stream, count)
    if len(data) != count:
        raise corrupt(source, f"{name} has {len(data):,} bytes, its header says {count:,}")
    kind = NumpyType(dtype.str.lstrip("<>|="), dtype.byteorder.replace("=", "<"))
    return Array(kind, tuple(shape), fortran, data)


def _exactly(stream: BinaryIO, count: int) -> bytearray:
    """Up to `count` bytes, read in pieces: what a header claims is not reserved."""
    data = bytearray()
    while len(data) < count and (piece := stream.read(min(_PIECE, count - len(data)))):
        data += piece
    return data


FORMAT = Format(matches=lambda opening: opening.startswith(MAGIC), read=read)
