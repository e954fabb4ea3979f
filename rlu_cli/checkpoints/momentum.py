"""Momentum buffers in the optimiser state of a trainer's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rlu_cli.checkpoints.facts import OPTIMISERS
from rlu_cli.checkpoints.head import layer_parts, read_head
from rlu_cli.checkpoints.unwrap import plain_items
from rlu_cli.types import Checkpoint, Head

BUFFER = "momentum_buffer"


def momentum_buffers(
    outer: Sequence[Mapping[str, Any]], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Momentum buffers by parameter name; empty if there are none or they cannot be assigned.

    PyTorch numbers parameters in the order of registration, which is the order of the state dict
    without its buffers; all shapes have to match.
    """
    for items in outer:
        for key in OPTIMISERS:
            numbered = _numbered(items.get(key))
            if numbered:
                return _named(numbered, state)
    return {}


def momentum_head(checkpoint: Checkpoint, layer: str) -> Head | None:
    """The momentum buffer of the output layer; None if the file has none for it."""
    for part in layer_parts(layer):
        prefix = f"{part}." if part else ""
        needed = [f"{prefix}{name}" for name in ("weight", "bias")]
        if any(n not in checkpoint.momentum for n in needed if n in checkpoint.state):
            return None
    return read_head(checkpoint.momentum, layer)


def _numbered(optimiser: Any) -> dict[int, Tensor]:
    if isinstance(optimiser, list):
        optimiser = optimiser[0] if optimiser else None
    entries = plain_items(optimiser).get("state") if isinstance(optimiser, dict) else None
    if not isinstance(entries, dict):
        return {}
    return {
        number: value[BUFFER]
        for number, value in dict.items(entries)
        if isinstance(number, int)
        and isinstance(value, dict)
        and isinstance(value.get(BUFFER), Tensor)
    }


def _named(numbered: Mapping[int, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = [name for name in state if not _is_buffer(name)]
    fits = set(numbered) <= set(range(len(names))) and all(
        state[names[number]].shape == buffer.shape for number, buffer in numbered.items()
    )
    return {names[number]: buffer for number, buffer in numbered.items()} if fits else {}


def _is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))
