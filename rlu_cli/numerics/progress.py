"""How far along the line between both models each step of the round was."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
_STRETCHES, _CLOSE = 20, 1e-4
_LEAST = 1e-3  # of the strongest pull: a client that is where it tends to hardly moves any more


def point_weights(
    shares: Tensor, predicted: Tensor, points: tuple[float, ...], update: Tensor, weights: Tensor
) -> Tensor:
    """How much each point of the line counts in Σ_τ ρ^τ P^τ / Σ_τ ρ^τ, (S,) summing to 1.

    With shares z, step τ moves the bias by -(P - z) at the place where the client then is. The
    place is the part of the whole update that the steps so far make, seen along the update itself,
    with every scheme's in-round weights. Between two points the client's pull along the update
    falls off exponentially, and P goes over from the one to the other as the pull does.

    shares     (N,)      z
    predicted  (S, N)    P at every point: the mean softmax under the shares
    points     S places, 0 to 1
    update     (N,)      u: what all steps together make per step, mean of z - P
    weights    (m+1, m)  row τ: how much of each gradient the state τ holds; the last is ρ
    """
    if len(points) == 1:
        return torch.ones(1, dtype=torch.float64)
    nodes, inner = np.asarray(points), weights.double().cpu().numpy()
    total = update.double().cpu()
    pulls = ((shares.double().cpu() - predicted.double().cpu()) @ total).numpy()  # (S,)
    rho = inner[-1] / inner[-1].sum()
    if not pulls.max() > 0:  # a prediction that goes nowhere
        return torch.from_numpy(_mix(nodes, np.zeros(len(nodes)), _even(len(rho))) @ rho)
    logs = np.log(np.maximum(pulls / pulls.max(), _LEAST))
    places = _places(nodes, logs, inner, inner[-1].sum() * float(total @ total) / pulls.max())
    return torch.from_numpy(_mix(nodes, logs, places) @ rho)


def even_weights(points: tuple[float, ...], steps: int) -> Tensor:
    """How much each point counts for a client that moves by equal steps, (S,) summing to 1."""
    if len(points) == 1:
        return torch.ones(1, dtype=torch.float64)
    nodes = np.asarray(points)
    return torch.from_numpy(_mix(nodes, np.zeros(len(nodes)), _even(steps)).mean(1))


def _even(steps: int) -> Array:
    return np.linspace(0, 1, steps, endpoint=False)


def _places(nodes: Array, logs: Array, inner: Array, reach: float) -> Array:
    """Where on the line each step starts, (m,), from 0 to 1.

    logs   (S,) logarithm of how far a step taken at each node moves along the update
    reach  how far all steps together should go; a walk that ends elsewhere is stretched to it
    """
    places, end = _walk(nodes, logs, inner, reach)
    for _ in range(_STRETCHES):
        if not end > 0 or abs(end - reach) <= _CLOSE * reach:
            break
        reach = end
        places, end = _walk(nodes, logs, inner, reach)
    return np.clip(places * (reach / end), 0, 1) if end > 0 else _even(len(places))


def _walk(nodes: Array, logs: Array, inner: Array, reach: float) -> tuple[Array, float]:
    """Every step's place as a part of `reach`, and how far the steps go in all."""
    gradients, places = np.zeros(inner.shape[1]), np.zeros(inner.shape[1])
    for step in range(len(places)):
        places[step] = inner[step] @ gradients / reach
        gradients[step] = np.exp(np.interp(places[step], nodes, logs))
    return places, float(inner[-1] @ gradients)


def _mix(nodes: Array, logs: Array, places: Array) -> Array:
    """How much of each node is in each place between them, (S, m), columns summing to 1."""
    right = np.clip(np.searchsorted(nodes, places, side="right"), 1, len(nodes) - 1)
    along = (places - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
    fall = logs[right] - logs[right - 1]
    steep = np.abs(fall) > 1e-9
    part = np.where(steep, np.expm1(along * fall) / np.expm1(np.where(steep, fall, 1)), along)
    mixed, steps = np.zeros((len(nodes), len(places))), np.arange(len(places))
    mixed[right - 1, steps], mixed[right, steps] = 1 - part, part
    return mixed
