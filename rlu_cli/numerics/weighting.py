"""What unequal weights cost: a perfect reading of Δb is still not the plain label counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def expected_loss(
    weights: Tensor, batch_sizes: Sequence[int], shares: Tensor, passes: int = 1
) -> float:
    """iAcc that is lost on average because steps count unequally, even with S known exactly.

    A label of step τ counts ρ^τ/|B_τ| in Δb and 1/K in the counts. The shares that Δb shows differ
    from the plain ones by a mean of zero and, per class, by a variance of
    z(1 - z) Σ_τ |B_τ| a_τ² with a_τ = ρ^τ/(|B_τ| Σρ) - 1/K, less what is fixed because every pass
    holds the same samples. Half of Σ_c E|difference| is the loss, E|x| = σ √(2/π).

    weights      (m,) ρ, the last row of the in-round weights
    batch_sizes  (m,) |B_τ|
    shares       (N,) label shares z
    passes       full passes over the same samples; 1 for batches drawn afresh
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
