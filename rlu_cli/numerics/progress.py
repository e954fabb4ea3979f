"""Position of each step of the round on the line from the global to the client's model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
_MAX_RESCALINGS, _TOLERANCE = 20, 1e-4
_LEAST = 1e-3  # least speed, relative to the fastest point: a saturated client hardly moves


def point_weights(
    shares: Tensor, predicted: Tensor, points: tuple[float, ...], update: Tensor, weights: Tensor
) -> Tensor:
    """Weights w_s of the points in Σ_τ ρ^τ P^τ / Σ_τ ρ^τ = Σ_s w_s P(s), (S,) summing to 1.

    shares     (N,)      z
    predicted  (S, N)    P(s), mean softmax under the shares at every point
    points     S positions on the line, 0 to 1, increasing
    update     (N,)      u, bias update per step: the weighted mean of z - P over the round
    weights    (m+1, m)  in-round weights: row τ, those of the gradients in state τ; the last is ρ

    Step τ moves the bias by z - P at the client's current position. The position is the sum of the
    steps so far, under the scheme's in-round weights, projected onto u and divided by the whole
    update. The speed is the projection of z - P onto u. Between two points it is interpolated
    exponentially, and P in proportion to it.
    """
    if len(points) == 1:
        return torch.ones(1, dtype=torch.float64)
    nodes, inner = np.asarray(points), weights.double().cpu().numpy()
    total = update.double().cpu()
    speeds = ((shares.double().cpu() - predicted.double().cpu()) @ total).numpy()  # (S,)
    rho = inner[-1] / inner[-1].sum()
    if not speeds.max() > 0:  # the predicted update points away from u at every point
        return torch.from_numpy(_blend(nodes, np.zeros(len(nodes)), _equal_steps(len(rho))) @ rho)
    logs = np.log(np.maximum(speeds / speeds.max(), _LEAST))
    positions = _positions(
        nodes, logs, inner, inner[-1].sum() * float(total @ total) / speeds.max()
    )
    return torch.from_numpy(_blend(nodes, logs, positions) @ rho)


def even_weights(points: tuple[float, ...], steps: int) -> Tensor:
    """Weights of the points for a client that moves by equal steps, (S,) summing to 1."""
    if len(points) == 1:
        return torch.ones(1, dtype=torch.float64)
    nodes = np.asarray(points)
    return torch.from_numpy(_blend(nodes, np.zeros(len(nodes)), _equal_steps(steps)).mean(1))


def _equal_steps(steps: int) -> Array:
    """Positions (m,) of equal steps."""
    return np.linspace(0, 1, steps, endpoint=False)


def _positions(nodes: Array, logs: Array, inner: Array, distance: float) -> Array:
    """Position on the line at which each step starts, (m,), from 0 to 1.

    nodes     (S,) interpolation points
    logs      (S,) log speed at each node
    inner     (m+1, m) in-round weights
    distance  length of the whole update in the same unit; walks are repeated with the length they
              end at until both agree
    """
    positions, end = _walk(nodes, logs, inner, distance)
    for _ in range(_MAX_RESCALINGS):
        if not end > 0 or abs(end - distance) <= _TOLERANCE * distance:
            break
        distance = end
        positions, end = _walk(nodes, logs, inner, distance)
    return np.clip(positions * (distance / end), 0, 1) if end > 0 else _equal_steps(len(positions))


def _walk(nodes: Array, logs: Array, inner: Array, distance: float) -> tuple[Array, float]:
    """Position of every step relative to `distance`, (m,), and the length of all steps together."""
    gradients, positions = np.zeros(inner.shape[1]), np.zeros(inner.shape[1])
    for step in range(len(positions)):
        positions[step] = inner[step] @ gradients / distance
        gradients[step] = np.exp(np.interp(positions[step], nodes, logs))
    return positions, float(inner[-1] @ gradients)


def _blend(nodes: Array, logs: Array, positions: Array) -> Array:
    """Interpolation weights of the nodes at each position, (S, m), columns summing to 1."""
    right = np.clip(np.searchsorted(nodes, positions, side="right"), 1, len(nodes) - 1)
    along = (positions - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
    fall = logs[right] - logs[right - 1]
    steep = np.abs(fall) > 1e-9
    fraction = np.where(steep, np.expm1(along * fall) / np.expm1(np.where(steep, fall, 1)), along)
    matrix, steps = np.zeros((len(nodes), len(positions))), np.arange(len(positions))
    matrix[right - 1, steps], matrix[right, steps] = 1 - fraction, fraction
    return matrix
