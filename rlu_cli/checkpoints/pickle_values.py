"""What the pickle machine makes in place of objects: inert values that nothing can be done with.

Tensors and arrays are descriptions. Their bytes are read when they are wanted, and no sooner.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PIECE = 1 << 20
Fetch = Callable[["Stored"], Tensor]  # the bytes of a storage, (nbytes,) uint8


@dataclass(frozen=True, slots=True)
class Global:
    """A function or class, by its name."""

    name: str


@dataclass(eq=False, slots=True)
class Opaque:
    """An object that is never built: the name of what would have made it, and what it was given.

    state  its attributes, as the file has them
    items  its entries, for a subclass of dict
    text   the one text it was given, as a member of an enumeration is
    """

    name: str
    state: Any = None
    items: dict[Any, Any] | None = None
    text: str | None = None


@dataclass(eq=False, slots=True)
class Tuple:
    """A tuple; `weight` counts all nested items, each as often as it occurs."""

    items: tuple[Any, ...]
    weight: int


@dataclass(frozen=True, slots=True)
class Blob:
    """Text or bytes too long to be a name, where they stand in the file."""

    data: memoryview
    text: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """Bytes that protocol 2 writes as text, one character for each."""

    text: str | Blob


@dataclass(frozen=True, slots=True)
class Stored:
    """One storage that the pickle declares: its key, its size in bytes and its element type."""

    key: str
    nbytes: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Unplain:
    """A tensor that is not dense numbers within its storage: of which kind."""

    kind: str


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as a view of a storage: offset and strides in elements."""

    storage: Stored
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    fetch: Fetch

    @property
    def held(self) -> int:
        """Elements in its storage."""
        return self.storage.nbytes // self.dtype.itemsize

    def tensor(self) -> Tensor:
        """The tensor itself, which shares its storage's memory."""
        data = self.fetch(self.storage)[: self.held * self.dtype.itemsize].view(self.dtype)
        return data.as_strided(self.shape, self.strides, self.offset)


@dataclass(eq=False, slots=True)
class NumpyType:
    """A numpy element type; `order` is "<", ">" or "|"."""

    code: str
    order: str = "|"

    def dtype(self) -> np.dtype[Any]:
        order = self.order if self.order in "<>" else "="
        return np.dtype(self.code).newbyteorder(order)  # type: ignore[arg-type]


@dataclass(eq=False, slots=True)
class Array:
    """A numpy array: element type, shape, order of the axes and where its bytes are."""

    kind: NumpyType | None = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: Any = None

    def array(self) -> np.ndarray[Any, Any]:
        """The array itself. Raises ValueError if its bytes do not fit its type and shape."""
        if self.kind is None:
            raise ValueError("an array of objects, or one without contents")
        dtype = self.kind.dtype()
        count = int(np.prod(self.shape, dtype=object))
        data = raw_bytes(self.data, count * dtype.itemsize)
        flat = np.frombuffer(data, dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def raw_bytes(data: Any, count: int) -> bytearray:
    """`count` bytes that a pickle writes as bytes or as text; ValueError if it has another number.

    Decoded piece by piece: text takes four times its size in memory where one character asks it.
    """
    if isinstance(data, Encoded):
        return _encoded(data.text, count)
    if isinstance(data, Blob) and not data.text:
        data = data.data
    if not isinstance(data, bytes | bytearray | memoryview) or len(data) != count:
        raise ValueError("an array whose bytes do not fit its shape")
    return data if isinstance(data, bytearray) else bytearray(data)


def _encoded(text: str | Blob, count: int) -> bytearray:
    source = memoryview(text.encode()) if isinstance(text, str) else text.data
    if not count <= len(source) <= 2 * count:  # one byte is one or two in UTF-8
        raise ValueError("an array whose bytes do not fit its shape")
    made = bytearray()
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(source), _PIECE):
        made += decoder.decode(bytes(source[start : start + _PIECE])).encode("latin-1")
    if len(made) != count:
        raise ValueError("an array whose bytes do not fit its shape")
    return made


@dataclass(frozen=True, slots=True)
class Deferred:
    """A tensor of known shape and type that `tensor` reads, from several places maybe."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    tensor: Callable[[], Tensor]


Leaf = Tensor | View | Array | Deferred | Unplain
LEAVES = (Tensor, View, Array, Deferred, Unplain)


def entries(value: Any) -> dict[Any, Any] | None:
    """The entries of a dict, or of an object: its own, or else its attributes; None of others."""
    if isinstance(value, Opaque):
        value = value.items or value.state
    return value if isinstance(value, dict) else None


def sequence(value: Any) -> list[Any] | None:
    """The items of a list or tuple; None of others."""
    if isinstance(value, Tuple):
        return list(value.items)
    return list(value) if isinstance(value, list | tuple) else None
