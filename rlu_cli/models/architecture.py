"""What the table knows of an architecture: how it is built, and how its state gives it away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlu_cli.models.fit import Misfit, misfit

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """One row of `ARCHITECTURES`.

    name     what `--model` says
    summary  one line for `rlu models`
    build    the network from keyword arguments; its defaults are the authors' form
    options  what `--model-arg` can say, the default first; text is one of the values listed, a
             number may be any other of its kind
    tell     arguments from the shapes of a state that is one of these; where it is not, the answer
             is wrong or a lookup fails
    """

    name: str
    summary: str
    build: Callable[..., nn.Module]
    options: Mapping[str, tuple[Any, ...]]
    tell: Callable[[Shapes], dict[str, Any]]

    def read(self, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """Arguments under which this architecture has exactly these keys and shapes, else None."""
        nearest = self._nearest(state)
        if nearest is None:
            return None
        told, hollow = nearest
        return None if misfit(hollow, state) else told

    def misfit(self, state: Mapping[str, Tensor]) -> Misfit:
        """Where `state` departs from the nearest form of this architecture, or its default."""
        nearest = self._nearest(state)
        return misfit(self._hollow({}) if nearest is None else nearest[1], state)

    def usage(self) -> list[str]:
        """Each option as a user types it: `act=relu|tanh`, `width=1.0`."""
        return [f"{name}={'|'.join(map(str, values))}" for name, values in self.options.items()]

    def _nearest(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], nn.Module] | None:
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if any(0 in shape for shape in shapes.values()):
            return None
        try:
            told = self.tell(shapes)
            return told, self._hollow(told)
        except (LookupError, ValueError, ArithmeticError, RuntimeError):
            return None

    def _hollow(self, arguments: Mapping[str, Any]) -> nn.Module:
        # Shapes only: a hostile state must not decide how much memory is taken.
        with torch.device("meta"):
            return self.build(**arguments)
