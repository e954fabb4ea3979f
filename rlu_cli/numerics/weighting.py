"""Error due to unequal step weights: even exact shares from Δb differ from the label counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def expected_loss(
    weights: Tensor, batch_sizes: Sequence[int], shares: Tensor, passes: int = 1
) -> float:
    """Expected loss of iAcc due to unequal step weights, ½ Σ_c E|difference|, with S exact.

    weights      (m,) ρ, the last row of the in-round weights
    batch_sizes  (m,) |B_τ|
    shares       (N,) label shares z
    passes       full passes over the same samples; 1 for batches drawn independently

    A label of step τ weighs ρ^τ/(|B_τ| Σρ) in Δb and 1/K in the counts. The two shares of a class
    differ by a random amount of mean 0 and variance z(1 - z) Σ_τ |B_τ| a_τ² with
    a_τ = ρ^τ/(|B_τ| Σρ) - 1/K. Repeated passes over the same samples reduce it by the variance of
    the pass totals. E|x| = σ √(2/π) for a normal.
    """
    sizes = torch.tensor(batch_sizes, dtype=torch.float64)
    rho = weights.double() / float(weights.sum())
    excess = rho / sizes - 1 / float(sizes.sum())
    spread = float((sizes * excess.square()).sum())
    if passes > 1:
        per_pass = (sizes * excess).view(passes, -1).sum(1)
        spread -= float(per_pass.square().sum() / (sizes.sum() / passes))
    deviations = (shares.double() * (1 - shares.double()) * max(spread, 0.0)).sqrt()
    return float(deviations.sum()) * math.sqrt(2 / math.pi) / 2
