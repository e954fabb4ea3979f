"""How the logits move during a round: the simulated client behind Algorithm 2 (Eqs. 12-14)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlu_cli.numerics.monte_carlo import LogitDraws
from rlu_cli.types import Head


def implied_embedding(update: Head) -> Tensor:
    """Mean embedding the update implies, ē = Σ_j Δb_j ΔW_j / Σ_j Δb_j², (L,) (Eq. 14).

    update  ΔW (N, L) and Δb (N,), the scheme's drift removed

    Paper note: Eq. 14 leaves the row j free and divides by Δb_j, which may be near 0; least squares
    over all rows does neither.
    """
    assert update.bias is not None, "observe() derives the bias of a layer that has none"
    return (update.bias @ update.weight) / (update.bias @ update.bias)


def logit_gain(embedding: Tensor, *, biased: bool) -> float:
    """Change of a logit per change of its bias, 1 + Σ_l ē_l² (Eq. 13).

    embedding  (L,) mean input of the output layer
    biased     whether the layer has a bias of its own

    Paper note: Eq. 13 leaves out the bias's own share, the 1.
    """
    return float(embedding.double() @ embedding.double()) + float(biased)


def drift_shifts(drift: Sequence[Head] | None, embedding: Tensor, *, biased: bool) -> Tensor | None:
    """What a scheme's drift adds to every logit in each state of the round, (m + 1, N)."""
    if drift is None:
        return None
    shifts = [head.weight @ embedding for head in drift]
    if biased:
        shifts = [s + _bias(head) for s, head in zip(shifts, drift, strict=True)]
    return torch.stack(shifts).double().cpu()


def _bias(head: Head) -> Tensor:
    assert head.bias is not None
    return head.bias


def simulated_shift(
    draws: LogitDraws,
    mix: Tensor,
    weights: Tensor,
    rate: float,
    drift: Tensor | None = None,
) -> Tensor:
    """Change of the logits over a round in which every batch has label shares `mix` (Eqs. 12, 13).

    draws    logits of the global model
    mix      (N,) labels per step and class as shares of the batch
    weights  (m + 1, m) in-round weights of the scheme; the last row is ρ
    rate     learning rate × logit gain
    drift    (m + 1, N) logit shift of the scheme's drift, subtracted; None for none
    returns  (N,) float64, added to every class's mean: Δμ_{n,j} does not depend on n
    """
    mix = mix.double().cpu()
    slopes = torch.zeros(weights.shape[1], len(mix), dtype=torch.float64)
    steps = weights.double().cpu()
    for state in range(len(slopes)):
        shift = _shift(steps[state], slopes, rate, drift, state)
        slopes[state] = draws.batch_probability(mix, shift) - mix
    return _shift(steps[-1], slopes, rate, drift, len(slopes))


def _shift(row: Tensor, slopes: Tensor, rate: float, drift: Tensor | None, state: int) -> Tensor:
    """-rate Σ_i w_i ∇_i - drift, (N,)."""
    shift = -rate * (row @ slopes)
    return shift if drift is None else shift - drift[state]
