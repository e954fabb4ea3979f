"""How far along the line between both models each step of the round was."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def point_weights(
    shares: Tensor, predicted: Tensor, points: tuple[float, ...], update: Tensor, weights: Tensor
) -> Tensor:
    """How much each point of the line counts in Σ_τ ρ^τ P^τ / Σ_τ ρ^τ, (S,) summing to 1.

    With shares z, step τ moves the bias by -(P - z) at the place where the client then is. The
    place is the part of the whole update that the steps so far make, seen along the update itself,
    with every scheme's in-round weights; P between two points is interpolated.

    shares     (N,)      z
    predicted  (S, N)    P at every point: the mean softmax under the shares
    points     S places, 0 to 1
    update     (N,)      u: what all steps together make per step, mean of z - P
    weights    (m+1, m)  row τ: how much of each gradient the state τ holds; the last is ρ
    """
    steps = weights.shape[1]
    if len(points) == 1:
        return torch.ones(1, dtype=torch.float64)
    nodes, inner = np.asarray(points), weights.double().cpu().numpy()
    seen, z = predicted.double().cpu().numpy(), shares.double().cpu().numpy()
    direction = update.double().cpu().numpy()
    direction = direction / max(float(direction @ direction), 1e-300)
    gradients = np.zeros(steps)
    places = np.zeros(steps)
    for step in range(steps):
        places[step] = inner[step] @ gradients
        gradients[step] = (z - _between(nodes, seen, places[step])) @ direction
    end = float(inner[-1] @ gradients)
    # A prediction that ends elsewhere is stretched to the end that was observed.
    places = places / end if end > 0 else np.linspace(0, 1, steps, endpoint=False)
    return torch.from_numpy(_spread(nodes, np.clip(places, 0, 1), inner[-1] / inner[-1].sum()))


def even_weights(points: tuple[float, ...], steps: int) -> Tensor:
    """How much each point counts for a client that moves by equal steps, (S,) summing to 1."""
    if len(points) == 1:
        return torch.ones(1, dtype=torch.float64)
    places = np.linspace(0, 1, steps, endpoint=False)
    return torch.from_numpy(_spread(np.asarray(points), places, np.full(steps, 1 / steps)))


def _between(nodes: Array, values: Array, place: float) -> Array:
    """Values (S, N) at the nodes → their linear interpolation at one place, ends held."""
    share = _spread(nodes, np.clip([place], 0, 1), np.ones(1))
    return np.asarray(share @ values)


def _spread(nodes: Array, places: Array, amounts: Array) -> Array:
    """Amounts at places between nodes, shared between the two neighbours of each, (S,)."""
    right = np.clip(np.searchsorted(nodes, places, side="right"), 1, len(nodes) - 1)
    part = (places - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
    total = np.zeros(len(nodes))
    np.add.at(total, right - 1, amounts * (1 - part))
    np.add.at(total, right, amounts * part)
    return total
