"""Reduce past rounds to their output layers, all that a round history needs of them."""

from __future__ import annotations

from collections.abc import Iterable

from rlu_cli.checkpoints import find_output_layer
from rlu_cli.simulator.client import State
from rlu_cli.simulator.files import read_state, write_state
from rlu_cli.simulator.run_folder import RunFolder


def keep_heads(run: RunFolder, last: int, rounds: Iterable[int]) -> None:
    """Replace every state of `rounds` by its output layer alone.

    last  a round that stays whole, in which the output layer is found
    """
    names = _head(run.require_global(last), len(run.classes))
    for number in rounds:
        for file in sorted(run.round_folder(number).glob("*.pt")):
            state = read_state(file)
            if state is not None and not set(state) <= names:
                write_state(file, {name: v for name, v in state.items() if name in names})


def _head(state: State, classes: int) -> set[str]:
    layer = find_output_layer(state, classes=classes)
    return {f"{layer}.{part}" if layer else part for part in ("weight", "bias")} & set(state)
