"""Accept only dense, real, finite tensors within their storage; convert half precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from rlu_cli.checkpoints.pickle_values import Array, Deferred, Leaf, NumpyType, Unplain, View
from rlu_cli.checkpoints.source import Source, malformed, not_plain, too_large
from rlu_cli.errors import InputError, printable

MAX_TENSORS = 30_000
_SHARED = 4  # half precision widened, and each tensor under two names
_ALWAYS_ALLOWED = 64 * 2**20
_FIX = "save dense real tensors, such as float32, on the CPU"
_NUMBERS = ("weight", "bias")
_HALF = {torch.float16: "float16", torch.bfloat16: "bfloat16"}
_ACCEPTED = frozenset(
    {torch.float32, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
    | {torch.bool, *_HALF}
)


def plain_state(state: Mapping[str, Leaf], source: Source) -> tuple[dict[str, Tensor], str | None]:
    """The same tensors without gradients or attributes, half precision converted to float32.

    state  tensors, or what describes them: these are read here, once their sizes have been added up

    Returns them and the name of the half-precision type, None if there is none. Raises InputError
    E202 if the bytes are missing, E204 if they are more tensors or more views of the same bytes
    than any model has, E205, E206 or E207.
    """
    if len(state) > MAX_TENSORS:
        raise malformed(source, f"it holds {len(state):,} tensors, more than any model")
    _check_sizes(state, source)
    read = {name: _read(name, leaf, source) for name, leaf in state.items()}
    for name, tensor in read.items():
        _check_kind(name, tensor, source)
        _check_extent(name, tensor, source)
        _check_finite(name, tensor, source)
    narrow = next((_HALF[t.dtype] for t in read.values() if t.dtype in _HALF), None)
    return {name: _at_least_float32(tensor) for name, tensor in read.items()}, narrow


def _check_sizes(state: Mapping[str, Leaf], source: Source) -> None:
    """Raises InputError E205 over the size limit, E204 where views show far more than the file."""
    total = sum(_computed_bytes(*_extent(name, leaf, source)) for name, leaf in state.items())
    if total > source.max_bytes:
        raise too_large(source, f"its tensors take {total:,} bytes in memory")
    described = any(not isinstance(leaf, Tensor) for leaf in state.values())
    if described and total > _SHARED * source.size + _ALWAYS_ALLOWED:
        raise malformed(
            source,
            f"its tensors are views of the same bytes: {total:,} bytes in memory, "
            f"{source.size:,} in the file",
        )


def _extent(name: str, leaf: Leaf, source: Source) -> tuple[int, torch.dtype]:
    """Number of elements and their type, without reading any.

    Computed with Python integers, so that no product overflows.
    """
    if isinstance(leaf, Unplain):
        raise not_plain(source, f"{printable(name)} is {leaf.kind}", _FIX)
    if isinstance(leaf, Array):
        if leaf.kind is None:
            raise not_plain(source, f"{printable(name)} is an array of objects", _FIX)
        return math.prod(leaf.shape), _as_torch(leaf.kind, name, source)
    count = math.prod(leaf.shape)
    if isinstance(leaf, View):
        _check_within(name, leaf.shape, leaf.strides, leaf.offset, leaf.held, source)
    return count, leaf.dtype


def _as_torch(kind: NumpyType, name: str, source: Source) -> torch.dtype:
    try:
        return torch.from_numpy(np.empty(0, kind.dtype().newbyteorder("="))).dtype
    except TypeError:
        raise not_plain(source, f"{printable(name)} has type {kind.code}", _FIX) from None


def _read(name: str, leaf: Leaf, source: Source) -> Tensor:
    if isinstance(leaf, View | Deferred):
        return leaf.tensor()
    if isinstance(leaf, Array):
        try:
            array = leaf.array()
        except ValueError as error:
            raise malformed(source, f"{printable(name)} is {printable(error)}") from error
        native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
        return torch.from_numpy(native)
    assert isinstance(leaf, Tensor)
    # Not tensor.detach(): an attribute of a parameter could shadow the method.
    return Tensor.detach(leaf)


def _check_kind(name: str, tensor: Tensor, source: Source) -> None:
    """Raises InputError E206 if a tensor is not dense, real and of an accepted type."""
    kinds = {
        "a tensor without data (meta)": tensor.is_meta,
        "quantised": tensor.is_quantized,
        "nested": tensor.is_nested,
        "sparse": not tensor.is_nested and tensor.layout != torch.strided,
        "complex": tensor.is_complex(),
        f"of type {str(tensor.dtype).removeprefix('torch.')}": tensor.dtype not in _ACCEPTED,
    }
    if name.rpartition(".")[2] in _NUMBERS:  # a mask or a counter may be, a layer's numbers not
        kinds |= {f"{str(tensor.dtype).removeprefix('torch.')}, which no layer computes with":
                  not tensor.is_floating_point()}  # fmt: skip
    kind = next((kind for kind, holds in kinds.items() if holds), None)
    if kind is not None:
        raise not_plain(source, f"{printable(name)} is {kind}", _FIX)


def _check_extent(name: str, tensor: Tensor, source: Source) -> None:
    size = tensor.element_size()
    held = tensor.untyped_storage().nbytes() // size
    _check_within(name, tensor.shape, tensor.stride(), int(tensor.storage_offset()), held, source)


def _check_within(
    name: str,
    shape: Sequence[int],
    strides: Sequence[int],
    offset: int,
    held: int,
    source: Source,
) -> None:
    """Raises InputError E206 if a view has more elements than its storage.

    Computed with Python integers, so that no product of strides overflows.
    """
    count = math.prod(shape)
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    repeats = any(n > 1 and s == 0 for n, s in zip(shape, strides, strict=True))
    if count and (repeats or count > held or last >= held):
        raise not_plain(
            source,
            f"{printable(name)} repeats its elements: {count:,} in a storage of {held:,}",
            "save a copy of it: tensor.clone()",
        )


def _computed_bytes(count: int, dtype: torch.dtype) -> int:
    return count * max(dtype.itemsize, 4 if dtype.is_floating_point else 1)


def _check_finite(name: str, tensor: Tensor, source: Source) -> None:
    if not tensor.is_floating_point():
        return
    wrong = tensor.numel() - int(torch.isfinite(tensor).sum())
    if wrong:
        raise InputError(
            "E207",
            f"refused to load {source.name}: {printable(name)} has {wrong:,} of "
            f"{tensor.numel():,} values that are not finite (NaN or infinity)",
            hint="the training diverged, or the file was damaged; give another round",
        )


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _HALF else tensor
