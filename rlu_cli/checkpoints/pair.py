"""Whether two checkpoints are a client's state before and after one round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlu_cli.checkpoints.head import read_head
from rlu_cli.checkpoints.source import listed
from rlu_cli.errors import InputError, printable
from rlu_cli.types import Checkpoint


def check_pair(before: Checkpoint, after: Checkpoint, layer: str) -> None:
    """Both have the same tensors, and the output layer moved; else E212 or E213."""
    _check_same_tensors(before, after)
    changed = [n for n in before.state if not _equal(before.state[n], after.state[n])]
    if not changed:
        same = "the files are" if before.sha256 == after.sha256 else "all tensors in them are"
        raise InputError(
            "E213",
            f"nothing changed from {printable(before.path)} to {printable(after.path)}: "
            f"{same} identical",
            hint="give the global model that the client started from and the client's own result",
        )
    _check_head_moved(before, after, layer, changed)


def _check_same_tensors(before: Checkpoint, after: Checkpoint) -> None:
    differences = list(_differences(before, after))
    if differences:
        raise InputError(
            "E212",
            f"{printable(before.path)} and {printable(after.path)} are not of the same model",
            facts=[("differ", listed(differences))],
            hint="give two checkpoints of the same architecture, saved the same way",
        )


def _differences(before: Checkpoint, after: Checkpoint) -> Iterator[str]:
    for name, tensor in before.state.items():
        other = after.state.get(name)
        if other is None:
            yield f"{printable(name, 80)} is missing from the second"
        elif other.shape != tensor.shape:
            yield f"{printable(name, 80)} is {tuple(tensor.shape)} and {tuple(other.shape)}"
    for name in after.state:
        if name not in before.state:
            yield f"{printable(name, 80)} is only in the second"


def _check_head_moved(
    before: Checkpoint, after: Checkpoint, layer: str, changed: Sequence[str]
) -> None:
    first, second = read_head(before.state, layer), read_head(after.state, layer)
    if not _equal(first.weight, second.weight):
        return
    if first.bias is not None and second.bias is not None and not _equal(first.bias, second.bias):
        return
    raise InputError(
        "E213",
        f"output layer {printable(layer)} did not change from {printable(before.path)} to "
        f"{printable(after.path)}: it was frozen, or is another layer",
        facts=[("moved", listed(changed))],
        hint="name the layer that was trained with --layer NAME; a frozen one gives nothing away",
    )


def _equal(first: Tensor, second: Tensor) -> bool:
    common = torch.promote_types(first.dtype, second.dtype)  # averaged counters become floats
    return torch.equal(first.to(common), second.to(common))
