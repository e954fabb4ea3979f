"""Activations that an architecture may be built with; a state dict does not record which."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

# Never in place: the attack reads the inputs and outputs of each layer.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
}
