"""Inert stand-ins for the functions that numpy uses to pickle an array of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_AXES = 4


class NotPlain(Exception):
    """The pickle does something that no pickle of plain data does."""


@dataclass(frozen=True)
class Global:
    """A function or class, by its name."""

    name: str


@dataclass(frozen=True)
class DType:
    """An element type, by its name."""

    name: Any


@dataclass
class Array:
    """An array of bytes, None until the pickle sets its content."""

    value: NDArray[np.uint8] | None = None


def _array(kind: Any, shape: Any, code: Any) -> Array:
    if kind != NDARRAY:
        raise NotPlain("an array is of a class other than numpy.ndarray")
    return Array()


def _dtype(name: Any, align: Any, copy: Any) -> DType:
    return DType(name)


def _encoded(text: Any, codec: Any) -> bytes:
    """Bytes as protocol 2 writes them from Python 3; another codec could run for long."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise NotPlain("it encodes text in an unusual way")
    return text.encode("latin-1")


NDARRAY = Global("numpy.ndarray")
CALLS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encoded,
}


def bytes_array(state: Any) -> NDArray[np.uint8]:
    """The uint8 array given by (version, shape, dtype, Fortran order, content), not copied."""
    match state:
        case (_, tuple(shape), DType("u1" | b"u1"), int(fortran), bytes(content)):
            order: Any = "F" if fortran else "C"
            if not _fits(shape, len(content)):
                raise NotPlain(f"an array of {len(content):,} bytes has another shape")
            return np.frombuffer(content, dtype=np.uint8).reshape(shape, order=order)
    raise NotPlain("an array is not of plain bytes (uint8)")


def _fits(shape: tuple[Any, ...], size: int) -> bool:
    whole = len(shape) <= MAX_AXES and all(type(n) is int and n >= 0 for n in shape)
    return whole and math.prod(shape) == size
