"""Inert stand-ins for the functions that numpy names when it pickles an array of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_AXES = 4


class NotPlain(Exception):
    """The pickle goes on in a way that no plain one does."""


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
    """An array of bytes, None until the pickle has told its content."""

    value: NDArray[np.uint8] | None = None


def _array(kind: Any, shape: Any, code: Any) -> Array:
    if kind != NDARRAY:
        raise NotPlain("an array is of a class of its own")
    return Array()


def _dtype(name: Any, align: Any, copy: Any) -> DType:
    return DType(name)


def _encoded(text: Any, codec: Any) -> bytes:
    """How protocol 2 writes bytes from Python 3; another codec could run for long."""
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
    """(version, shape, dtype, Fortran order, content) to uint8 of that shape, not copied."""
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
