"""From the shares that a class-weighted loss shows to those of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.types import Recovery


def without_weights(recovery: Recovery, weights: Sequence[float], total: int | None) -> Recovery:
    """The recovery of the labels, given that of the weighted labels z̃ ∝ w z.

    With loss Σ_i w_{y_i} ℓ_i / Σ_i w_{y_i}, the update is that of a client with the shares
    z̃_n = w_n z_n / Σ w z, so z_n = (z̃_n / w_n) / Σ (z̃ / w): exactly for one step, and for several
    up to the spread of Σ w over the batches. Covariances follow by the Jacobian.

    weights  (N,) w > 0
    total    K; None if |B| is unknown
    """
    inverse = 1 / torch.tensor(weights, dtype=torch.float64)
    shares = _rescaled(recovery.shares, inverse)
    jacobian = _jacobian(recovery.shares, inverse)

    def carried(covariance: Tensor | None) -> Tensor | None:
        return None if covariance is None else jacobian @ covariance @ jacobian.T

    free = recovery.unconstrained
    usable = free is not None and float(free @ inverse) > 0
    return replace(
        recovery,
        shares=shares,
        counts=None if recovery.counts is None or total is None else round_to_total(shares, total),
        unconstrained=_rescaled(free, inverse) if free is not None and usable else None,
        covariance=carried(recovery.covariance),
        shared_covariance=carried(recovery.shared_covariance),
        posterior=None,
    )


def _rescaled(shares: Tensor, inverse: Tensor) -> Tensor:
    scaled = shares * inverse
    return scaled / scaled.sum()


def _jacobian(shares: Tensor, inverse: Tensor) -> Tensor:
    """∂z_n / ∂z̃_k = (δ_nk / w_n - z_n / w_k) / Σ (z̃ / w), (N, N)."""
    total = float((shares * inverse).sum())
    return (torch.diag(inverse) - torch.outer(_rescaled(shares, inverse), inverse)) / total
