"""Tensors that can be computed with: dense, real, inside their storage, finite, 32 bits or more."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rlu_cli.checkpoints.source import Source, not_plain, too_large
from rlu_cli.errors import InputError, printable

_WIDENED = {torch.float16: "float16", torch.bfloat16: "bfloat16"}
_ACCEPTED = frozenset(
    {torch.float32, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
    | {torch.bool, *_WIDENED}
)


def plain_state(
    state: Mapping[str, Tensor], source: Source
) -> tuple[dict[str, Tensor], str | None]:
    """The same tensors without gradients or attributes, half precision widened to float32.

    Returns them and the narrower type that was widened, if any. Raises E205, E206, E207.
    """
    # As a function of torch: an attribute that the file set on a parameter could hide the method.
    state = {name: Tensor.detach(tensor) for name, tensor in state.items()}
    for name, tensor in state.items():
        _check_kind(name, tensor, source)
        _check_extent(name, tensor, source)
    total = sum(_computed_bytes(tensor) for tensor in state.values())
    if total > source.max_bytes:
        raise too_large(source, f"its tensors take {total:,} bytes in memory")
    for name, tensor in state.items():
        _check_finite(name, tensor, source)
    narrow = next((_WIDENED[t.dtype] for t in state.values() if t.dtype in _WIDENED), None)
    return {name: _widen(tensor) for name, tensor in state.items()}, narrow


def _check_kind(name: str, tensor: Tensor, source: Source) -> None:
    """E206 on what is not stored element by element in a type that can be computed with."""
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
    """E206 on views that show more elements than their storage holds.

    Reckoned with whole numbers of any size, so that no product of strides can overflow.
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


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _WIDENED else tensor
