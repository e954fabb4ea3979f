"""Accept only dense, real, finite tensors within their storage; convert half precision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rlu_cli.checkpoints.source import Source, not_plain, too_large
from rlu_cli.errors import InputError, printable

_HALF = {torch.float16: "float16", torch.bfloat16: "bfloat16"}
_ACCEPTED = frozenset(
    {torch.float32, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
    | {torch.bool, *_HALF}
)


def plain_state(
    state: Mapping[str, Tensor], source: Source
) -> tuple[dict[str, Tensor], str | None]:
    """The same tensors without gradients or attributes, half precision converted to float32.

    Returns them and the name of the half-precision type, None if there is none. Raises InputError
    E205, E206 or E207.
    """
    # Not tensor.detach(): an attribute that the file sets on a parameter could shadow the method.
    state = {name: Tensor.detach(tensor) for name, tensor in state.items()}
    for name, tensor in state.items():
        _check_kind(name, tensor, source)
        _check_extent(name, tensor, source)
    total = sum(_computed_bytes(tensor) for tensor in state.values())
    if total > source.max_bytes:
        raise too_large(source, f"its tensors take {total:,} bytes in memory")
    for name, tensor in state.items():
        _check_finite(name, tensor, source)
    narrow = next((_HALF[t.dtype] for t in state.values() if t.dtype in _HALF), None)
    return {name: _at_least_float32(tensor) for name, tensor in state.items()}, narrow


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
    kind = next((kind for kind, holds in kinds.items() if holds), None)
    if kind is not None:
        raise not_plain(
            source,
            f"{printable(name)} is {kind}",
            "save dense real tensors, such as float32, on the CPU",
        )


def _check_extent(name: str, tensor: Tensor, source: Source) -> None:
    """Raises InputError E206 if a view has more elements than its storage.

    Computed with Python integers, so that no product of strides overflows.
    """
    shape, stride, size = tensor.shape, tensor.stride(), tensor.element_size()
    held = tensor.untyped_storage().nbytes() // size
    last = tensor.storage_offset() + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    repeats = any(n > 1 and s == 0 for n, s in zip(shape, stride, strict=True))
    if tensor.numel() and (repeats or tensor.numel() > held or last >= held):
        raise not_plain(
            source,
            f"{printable(name)} repeats its elements: {tensor.numel():,} in a storage of {held:,}",
            "save a copy of it: tensor.clone()",
        )


def _computed_bytes(tensor: Tensor) -> int:
    return tensor.numel() * max(tensor.element_size(), 4 if tensor.is_floating_point() else 1)


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
