"""Momentum buffers in the optimiser state of a trainer's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlu_cli.checkpoints.facts import OPTIMISERS
from rlu_cli.checkpoints.head import layer_parts, read_head
from rlu_cli.checkpoints.pickle_values import LEAVES, Leaf, Unplain
from rlu_cli.types import Checkpoint, Head

BUFFER = "momentum_buffer"


def momentum_buffers(
    outer: Sequence[Mapping[str, Any]], state: Mapping[str, Leaf]
) -> dict[str, Leaf]:
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


def _numbered(optimiser: Any) -> dict[int, Leaf]:
    if isinstance(optimiser, list):
        optimiser = optimiser[0] if optimiser else None
    states = optimiser.get("state") if isinstance(optimiser, dict) else None
    if not isinstance(states, dict):
        return {}
    return {
        number: value[BUFFER]
        for number, value in dict.items(states)
        if isinstance(number, int)
        and isinstance(value, dict)
        and isinstance(value.get(BUFFER), LEAVES)
    }


def _named(numbered: Mapping[int, Leaf], state: Mapping[str, Leaf]) -> dict[str, Leaf]:
    names = [name for name in state if not _is_buffer(name)]
    fits = set(numbered) <= set(range(len(names))) and all(
        _shape(state[names[number]]) == _shape(buffer) for number, buffer in numbered.items()
    )
    return {names[number]: buffer for number, buffer in numbered.items()} if fits else {}


def _shape(leaf: Leaf) -> tuple[int, ...] | None:
    return None if isinstance(leaf, Unplain) else tuple(leaf.shape)


def _is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))
