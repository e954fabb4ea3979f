"""Number of channels and size of a model's input images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from math import isqrt

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlu_cli.errors import InputError
from rlu_cli.models.sides import COMMON_SIDES
from rlu_cli.models.table import ARCHITECTURES


def input_shape(model: str | nn.Module, state: Mapping[str, Tensor]) -> tuple[int, int | None]:
    """Channels C and side H = W of the input images of `model`.

    model  a reference as in `build_model`, or the model itself
    state  its weights

    The side is None if global pooling allows any size, and for a reference to the user's own
    convolutional model: pass the model itself to find its size. Raises InputError E215 if the
    weights do not determine the channels.
    """
    if isinstance(model, str) and model in ARCHITECTURES:
        arguments = ARCHITECTURES[model].read(state)
        if arguments is not None:
            return arguments["in_channels"], arguments.get("size")
    channels, side = _first_layer(state)
    if side is None and isinstance(model, nn.Module):
        side = _only_side(model, channels)
    return channels, side


def _first_layer(state: Mapping[str, Tensor]) -> tuple[int, int | None]:
    """Channels of the first convolution; without one, those of flattened grey or RGB images."""
    for tensor in state.values():
        if tensor.ndim == 4:
            return tensor.shape[1], None
    inputs = next((t.shape[1] for t in state.values() if t.ndim == 2), 0)
    for channels in (1, 3):
        side = isqrt(inputs // channels)
        if inputs and channels * side**2 == inputs:
            return channels, side
    raise InputError(
        "E215",
        "the weights do not determine the model's input images",
        why="there is no convolution, and the first layer does not fit square grey or RGB images",
        hint="only models that take images can be examined",
    )


def _only_side(model: nn.Module, channels: int) -> int | None:
    """The only common image size that the model accepts; None if it accepts several or none."""
    fitting = list(islice((side for side in COMMON_SIDES if _accepts(model, channels, side)), 2))
    return fitting[0] if len(fitting) == 1 else None


def _accepts(model: nn.Module, channels: int, side: int) -> bool:
    # On meta tensors: values, buffers and modes of the model stay unchanged.
    images = torch.empty(2, channels, side, side, device="meta")
    try:
        tensors = [*model.named_parameters(), *model.named_buffers()]
        shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
        with torch.no_grad():
            functional_call(model, shapes, (images,))
    except Exception:
        return False
    return True
