"""Names for tensors that came without: a list, or one flat vector, in the order of a model's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.checkpoints.names import is_beside, is_buffer
from rlu_cli.checkpoints.step_counters import COUNTER
from rlu_cli.types import Checkpoint

Layout = Mapping[str, Tensor]  # a model's state dict in its order; may be on the meta device


def named_by(checkpoint: Checkpoint, layout: Layout) -> Checkpoint | None:
    """The checkpoint with the layout's names; None if its shapes or its size are others.

    layout  a model's whole state dict; a file that has the parameters alone, as gradients are sent,
            or lacks what a trainer keeps beside the model, is named too
    """
    tensors = list(checkpoint.state.values())
    for names in _orders(layout):
        shapes = [tuple(layout[name].shape) for name in names]
        if [tuple(tensor.shape) for tensor in tensors] == shapes:
            return _named(checkpoint, names)
        if len(tensors) == 1 and tensors[0].dim() == 1:
            sizes = [math.prod(shape) for shape in shapes]
            if sum(sizes) == tensors[0].numel():
                pieces = torch.split(tensors[0], sizes)
                cut = (piece.reshape(s) for piece, s in zip(pieces, shapes, strict=True))
                return replace(checkpoint, state=dict(zip(names, cut, strict=True)), named=True)
    return None


def _orders(layout: Layout) -> Iterator[list[str]]:
    """Names in the orders in which a model's tensors are listed: of all, then of parameters."""
    needed = [n for n, t in layout.items() if n.endswith(COUNTER) or not is_beside(n, t)]
    for names in (list(layout), needed):
        yield names
        yield [name for name in names if not is_buffer(name, layout[name])]


def _named(checkpoint: Checkpoint, names: list[str]) -> Checkpoint:
    new = dict(zip(checkpoint.state, names, strict=True))
    state = {new[name]: tensor for name, tensor in checkpoint.state.items()}
    momentum = {new[name]: buffer for name, buffer in checkpoint.momentum.items()}
    return replace(checkpoint, state=state, momentum=momentum, named=True)
