"""Earlier rounds of client and server, as stateful schemes need them, read from the run's files.

A model is read when a scheme uses it and released afterwards, so that rounds of a large model do
not accumulate in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlu_cli.errors import UsageError, printable
from rlu_cli.schemes import Bundle, Round
from rlu_cli.simulator.files import read_state
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.run_folder import RunFolder


@dataclass(frozen=True)
class Stored:
    """A `Bundle` that is read from disk whenever it is used.

    names  of the tensors in the file, in the order of the bundle
    """

    file: Path
    names: Sequence[str]
    device: torch.device
    dtype: torch.dtype

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        state = read_state(self.file)
        if state is None or not set(self.names) <= set(state):
            raise incomplete(self.file)
        return tuple(state[name].to(self.device, self.dtype) for name in self.names)

    def __add__(self, other: Bundle) -> Bundle:
        return Bundle(self.tensors) + other

    def __sub__(self, other: Bundle) -> Bundle:
        return Bundle(self.tensors) - other

    def __mul__(self, factor: float) -> Bundle:
        return Bundle(self.tensors) * factor

    __rmul__ = __mul__


@dataclass(frozen=True)
class Memory:
    """Reads the earlier rounds that a scheme needs, as Bundles over `names` on one device."""

    run: RunFolder
    plan: Plan
    names: Sequence[str]
    device: torch.device
    dtype: torch.dtype

    def past(self, client: int, number: int) -> list[Round]:
        """The rounds before `number` with the client; empty if the scheme does not use them."""
        if not self.plan.scheme.remembers:
            return []
        rate = self.plan.recursion.rate
        return [
            Round(
                start=self._stored(self.run.global_file(earlier)),
                end=self._stored(self.run.client_file(earlier, client)),
                after=self._stored(self.run.global_file(earlier + 1)),
                rate=rate,
                server=self.server(earlier),
            )
            for earlier in range(number)
            if client in self.plan.drawn(earlier)
        ]

    def server(self, number: int) -> Stored | None:
        """The server's value at the start of round `number`; None if there is none."""
        if number == 0 or not self.plan.scheme.server_keeps_value:
            return None
        return self._stored(self.run.server_file(number))

    def _stored(self, file: Path) -> Stored:
        return Stored(file, self.names, self.device, self.dtype)


def incomplete(file: Path) -> UsageError:
    """Error for a file of an earlier round that a later round needs whole."""
    return UsageError(
        "E106",
        f"{printable(file)} no longer holds the whole model",
        why="after --keep heads only the output layers of past rounds are left",
        hint="start again in another folder, with --keep all or with all --rounds in one run",
    )
