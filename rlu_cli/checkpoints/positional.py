"""Names for tensors that came without: a list, or one flat vector, in the order of a layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.types import Checkpoint

Layout = Mapping[str, tuple[int, ...]]  # shapes of a model's state dict, by name, in its order

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def layout_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, in order."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def named_by(checkpoint: Checkpoint, layout: Layout) -> Checkpoint | None:
    """The checkpoint with the layout's names; None if its shapes or its size are others.

    layout  of the model's whole state dict; a file that has the parameters alone, without BatchNorm
            buffers, is named too
    """
    tensors = list(checkpoint.state.values())
    for names in (list(layout), [name for name in layout if not name.endswith(_BUFFERS)]):
        shapes = [layout[name] for name in names]
        if [tuple(tensor.shape) for tensor in tensors] == shapes:
            state = dict(zip(names, tensors, strict=True))
            return replace(checkpoint, state=state, named=True)
        if len(tensors) == 1 and tensors[0].dim() == 1:
            sizes = [math.prod(shape) for shape in shapes]
            if sum(sizes) == tensors[0].numel():
                pieces = torch.split(tensors[0], sizes)
                cut = (piece.reshape(s) for piece, s in zip(pieces, shapes, strict=True))
                return replace(checkpoint, state=dict(zip(names, cut, strict=True)), named=True)
    return None
