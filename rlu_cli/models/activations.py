"""The activations an architecture may be built with; a state does not tell which."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

# Never in place: the attack reads the values that go into and come out of each layer.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
}
