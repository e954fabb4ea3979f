"""The two checkpoints of one round: values derived from both, and the check that they match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rlu_cli.checkpoints.head import read_head
from rlu_cli.checkpoints.source import listed
from rlu_cli.checkpoints.step_counters import counted_steps
from rlu_cli.errors import InputError, printable
from rlu_cli.types import Checkpoint, Head


@dataclass(frozen=True)
class CheckpointPair:
    """A model before and after one client's round; each derived value is read once and kept.

    before  the global checkpoint
    after   the client's checkpoint
    layer   name of the output layer; None while it is not known
    notes   how the files were read as a pair, in sentences
    """

    before: Checkpoint
    after: Checkpoint
    layer: str | None = None
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter((self.before, self.after))

    @cached_property
    def steps(self) -> int | None:
        """Training steps between the two, by BatchNorm counters; None if these give no number."""
        return counted_steps(self.before, self.after)

    @cached_property
    def heads(self) -> tuple[Head, Head]:
        """The output layer before and after the round."""
        assert self.layer is not None, "find_output_layer() comes first"
        return read_head(self.before.state, self.layer), read_head(self.after.state, self.layer)

    @cached_property
    def update(self) -> Head:
        """θ_client - θ_global of the output layer; bias None if it has none or none changed."""
        before, after = self.heads
        update = after - before
        frozen = update.bias is not None and not bool(update.bias.any())
        return replace(update, bias=None) if frozen else update


def check_pair(pair: CheckpointPair) -> None:
    """Raises InputError E212 if the tensors differ in name or shape, E213 if the output layer did
    not change.
    """
    before, after = pair
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
    _check_head_moved(pair, changed)


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


def _check_head_moved(pair: CheckpointPair, changed: Sequence[str]) -> None:
    first, second = pair.heads
    if not _equal(first.weight, second.weight):
        return
    if first.bias is not None and second.bias is not None and not _equal(first.bias, second.bias):
        return
    raise InputError(
        "E213",
        f"output layer {printable(pair.layer)} did not change from {printable(pair.before.path)} "
        f"to {printable(pair.after.path)}: it was frozen, or is another layer",
        facts=[("moved", listed(changed))],
        hint="name the layer that was trained with --layer NAME; a frozen one reveals nothing",
    )


def _equal(first: Tensor, second: Tensor) -> bool:
    common = torch.promote_types(first.dtype, second.dtype)  # averaged counters become floats
    return torch.equal(first.to(common), second.to(common))
