"""The linear client: one local step of SGD and its relatives, and what it makes of any gradients.

Positions and gradients may be anything that can be added, subtracted and scaled: a float, a Tensor,
a `Head`, a `Bundle`. The simulator's client and the server's weights come from the same lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Recursion:
    """Settings of a client whose positions are linear in its gradients.

    lr        learning rate η of each of the m steps
    momentum  γ of SGD with momentum, dampening 0
    nesterov  Nesterov's form of it, as PyTorch has it
    decay     w of L2 weight decay: w θ joins each gradient
    pull      λ of a proximal term: λ (θ - θ_global) joins each gradient
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

    origin    θ_global, where the round began
    constant  what a scheme with memory adds to every gradient of the round; None for nothing
    velocity  momentum buffer so far; None before the first step
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
    """The m + 1 positions a client goes through from `origin` with the given m gradients."""
    position = origin
    yield position
    for index, gradient in enumerate(gradients):
        position, velocity = step(client, index, position, gradient, origin, constant, velocity)
        yield position


def step_weights(client: Recursion) -> Tensor:
    """How much gradient i counts in position τ: (m + 1, m) float64, from unit impulses.

    θ^τ - θ_global = -lr[0] Σ_i weights[τ, i] ∇^i - drift[τ]; the last row is ρ of Table 1. All m
    impulses go through the recursion at once, one in each component of a vector.
    """
    impulses = torch.eye(client.steps, dtype=torch.float64)
    start = torch.zeros(client.steps, dtype=torch.float64)
    return torch.stack(list(path(client, start, list(impulses)))) / -client.lr[0]


def offset_weights(client: Recursion) -> Tensor:
    """How far θ_global, a constant and an old momentum buffer move each position: (m + 1, 3).

    With gradients of zero, θ_global - θ^τ = weights[τ] · (θ_global, constant, velocity); the last
    row gives h of Table 1. The three unit vectors go through the recursion at once.
    """
    origin, constant, velocity = torch.eye(3, dtype=torch.float64)
    still = [torch.zeros(3, dtype=torch.float64)] * client.steps
    positions = path(client, origin, still, constant, velocity)
    return torch.stack([origin - position for position in positions])
