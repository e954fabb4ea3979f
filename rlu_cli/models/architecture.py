"""A row of the table of architectures: how to build one, and how to recognise its state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlu_cli.models.fit import Mismatch, mismatch

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """One row of `ARCHITECTURES`.

    name     value of `--model`
    summary  one line for `rlu models`
    build    the network from keyword arguments; its defaults are the authors' form
    options  values of `--model-arg`, the default first; text and booleans must be listed, numbers
             may have any other value of their type
    infer    arguments from the shapes of a state dict of this architecture; for any other state the
             result is wrong or a lookup fails
    fixed    whether its names are those of a published package, whose activation is the default
    """

    name: str
    summary: str
    build: Callable[..., nn.Module]
    options: Mapping[str, tuple[Any, ...]]
    infer: Callable[[Shapes], dict[str, Any]]
    fixed: bool = False

    def read(self, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """Arguments under which this architecture has exactly these keys and shapes, else None."""
        nearest = self._nearest(state)
        if nearest is None:
            return None
        arguments, meta_model = nearest
        return None if mismatch(meta_model, state) else arguments

    def mismatch(self, state: Mapping[str, Tensor]) -> Mismatch:
        """Differences between `state` and the nearest form of this architecture, or its default."""
        nearest = self._nearest(state)
        return mismatch(self._on_meta({}) if nearest is None else nearest[1], state)

    def layout(self, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Its state dict under these arguments, on the meta device; empty where it has no form."""
        try:
            return self._on_meta(arguments).state_dict()
        except (LookupError, ValueError, ArithmeticError, RuntimeError, TypeError):
            return {}

    def nearest_layout(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The state dict of the form that is nearest to `state`; None if there is none."""
        nearest = self._nearest(state)
        return None if nearest is None else nearest[1].state_dict()

    def usage(self) -> list[str]:
        """Each option as a user types it: `act=relu|tanh`, `width=1.0`."""
        return [f"{name}={'|'.join(map(str, values))}" for name, values in self.options.items()]

    def _nearest(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], nn.Module] | None:
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if any(0 in shape for shape in shapes.values()):
            return None
        try:
            arguments = self.infer(shapes)
            return arguments, self._on_meta(arguments)
        except (LookupError, ValueError, ArithmeticError, RuntimeError):
            return None

    def _on_meta(self, arguments: Mapping[str, Any]) -> nn.Module:
        # Shapes only: a hostile state dict must not determine how much memory is allocated.
        with torch.device("meta"):
            return self.build(**arguments)
