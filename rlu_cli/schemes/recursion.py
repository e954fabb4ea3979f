"""The linear client: one local step of SGD and its variants, and the resulting step weights.

Positions and gradients can be anything with +, - and scaling: a float, a Tensor, a `Head`, a
`Bundle`. The simulator's clients and the attacks' step weights use the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Recursion:
    """Settings of a client whose states are linear in its gradients.

    lr        learning rate η of each of the m steps
    momentum  γ of SGD with momentum, dampening 0
    nesterov  Nesterov momentum, as in PyTorch
    decay     w of L2 weight decay: w θ is added to each gradient
    pull      λ of a proximal term: λ (θ - θ_global) is added to each gradient
    """

    lr: tuple[float, ...]
    momentum: float = 0.0
    nesterov: bool = False
    decay: float = 0.0
    pull: float = 0.0

    @property
    def steps(self) -> int:
        return len(self.lr)

    @property
    def rate(self) -> float:
        """Σ_τ η_τ, which is η m for a constant rate."""
        return sum(self.lr)


def step(
    client: Recursion,
    index: int,
    position: Any,
    gradient: Any,
    origin: Any,
    constant: Any = None,
    velocity: Any = None,
) -> tuple[Any, Any]:
    """θ^{τ+1} and the momentum buffer, from θ^τ and the gradient of the task loss there.

    index     τ
    position  θ^τ
    gradient  ∇^τ
    origin    θ_global, the start of the round
    constant  what a scheme with memory adds to every gradient of the round; None for none
    velocity  momentum buffer; None before the first step
    """
    if client.pull:
        gradient = gradient + (position - origin) * client.pull
    if client.decay:
        gradient = gradient + position * client.decay
    if constant is not None:
        gradient = gradient + constant
    if not client.momentum:
        return position - gradient * client.lr[index], None
    velocity = gradient if velocity is None else velocity * client.momentum + gradient
    direction = gradient + velocity * client.momentum if client.nesterov else velocity
    return position - direction * client.lr[index], velocity


def path(
    client: Recursion,
    origin: Any,
    gradients: Sequence[Any],
    constant: Any = None,
    velocity: Any = None,
) -> Iterator[Any]:
    """The m + 1 states θ^0 … θ^m of a client that starts at `origin`, for the given m gradients."""
    position = origin
    yield position
    for index, gradient in enumerate(gradients):
        position, velocity = step(client, index, position, gradient, origin, constant, velocity)
        yield position


def step_weights(client: Recursion) -> Tensor:
    """In-round weights: weight of gradient i in state τ, (m + 1, m) float64, from unit impulses.

    θ^τ - θ_global = -lr[0] Σ_i weights[τ, i] ∇^i - offset[τ]; the last row is ρ of Table 1. The m
    impulses are the components of one vector, so a single run of the recursion suffices.
    """
    impulses = torch.eye(client.steps, dtype=torch.float64)
    start = torch.zeros(client.steps, dtype=torch.float64)
    return torch.stack(list(path(client, start, list(impulses)))) / -client.lr[0]


def offset_weights(client: Recursion) -> Tensor:
    """Gradient-free offset: weights of θ_global, constant and old momentum buffer, (m + 1, 3).

    With zero gradients, θ_global - θ^τ = weights[τ] · (θ_global, constant, velocity); the last row
    gives h of Table 1. The three unit vectors go through the recursion in a single run.
    """
    origin, constant, velocity = torch.eye(3, dtype=torch.float64)
    zeros = [torch.zeros(3, dtype=torch.float64)] * client.steps
    states = path(client, origin, zeros, constant, velocity)
    return torch.stack([origin - position for position in states])
