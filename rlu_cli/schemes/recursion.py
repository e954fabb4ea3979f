"""The linear client: one local step of SGD and its relatives, and what it makes of any gradients.

Positions and gradients may be anything that can be added, subtracted and scaled: a float, a Tensor,
a `Head`. The simulator's client and the server's weights therefore come from the same lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Recursion:
    """Settings of a client whose final position is linear in its gradients.

    lr  learning rate of each of the m steps
    """

    lr: tuple[float, ...]

    @property
    def steps(self) -> int:
        return len(self.lr)


def step(client: Recursion, index: int, position: Any, gradient: Any) -> Any:
    """θ^{τ+1} from θ^τ and the gradient at θ^τ: plain SGD, θ - η ∇ (Eq. 5)."""
    return position - gradient * client.lr[index]


def path(client: Recursion, origin: Any, gradients: Sequence[Any]) -> list[Any]:
    """The m + 1 positions a client goes through from `origin` with the given m gradients."""
    positions = [origin]
    for index, gradient in enumerate(gradients):
        positions.append(step(client, index, positions[-1], gradient))
    return positions


def step_weights(client: Recursion) -> Tensor:
    """How much gradient i counts in position τ: (m + 1, m) float64, from unit impulses.

    θ^τ - θ_global = -lr[0] Σ_i weights[τ, i] ∇^i; the last row is ρ of Table 1. All m impulses go
    through the recursion at once, one in each component of a vector.
    """
    impulses = torch.eye(client.steps, dtype=torch.float64)
    positions = path(client, torch.zeros(client.steps, dtype=torch.float64), list(impulses))
    return torch.stack(positions) / -client.lr[0]
