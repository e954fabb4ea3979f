"""How the logits move during a round: the simulated client behind Algorithm 2 (Eqs. 12-14)."""

from __future__ import annotations

import torch
from torch import Tensor

from rlu_cli.numerics.monte_carlo import LogitDraws
from rlu_cli.types import GradientFreeOffset, Head


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


def offset_shifts(
    offset: GradientFreeOffset | None, embedding: Tensor, *, biased: bool
) -> Tensor | None:
    """What a scheme's drift takes from every logit in each state of the round, (m + 1, N)."""
    if offset is None:
        return None
    shifts = [_logits(head, embedding, biased=biased) for head in offset.directions]
    return offset.coefficients.double() @ torch.stack(shifts)


def _logits(head: Head, embedding: Tensor, *, biased: bool) -> Tensor:
    """(N,) float64 on the CPU: what a head gives for the mean embedding."""
    logits = (head.weight.double() @ embedding.to(head.weight).double()).cpu()
    return logits + head.bias.double().cpu() if biased and head.bias is not None else logits


def smoothed(mix: Tensor, smoothing: float) -> Tensor:
    """Label shares as a loss with label smoothing ε counts them: (1 - ε) z + ε/N."""
    return mix * (1 - smoothing) + smoothing / len(mix)


def simulated_shift(
    draws: LogitDraws,
    mix: Tensor,
    weights: Tensor,
    rate: float,
    offset: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Change of the logits over a round in which every batch has label shares `mix` (Eqs. 12, 13).

    draws      logits of the global model
    mix        (N,) labels per step and class as shares of the batch
    weights    (m + 1, m) in-round weights of the scheme; the last row is ρ
    rate       learning rate × logit gain
    drift      (m + 1, N) logit shift of the scheme's drift, subtracted; None for none
    smoothing  ε of the client's loss
    returns    (N,) float64, added to every class's mean: Δμ_{n,j} does not depend on n
    """
    mix = mix.double().cpu()
    slopes = torch.zeros(weights.shape[1], len(mix), dtype=torch.float64)
    steps = weights.double().cpu()
    for state in range(len(slopes)):
        shift = _shift(steps[state], slopes, rate, offset, state)
        slopes[state] = draws.batch_probability(mix, shift) - smoothed(mix, smoothing)
    return _shift(steps[-1], slopes, rate, offset, len(slopes))


def _shift(row: Tensor, slopes: Tensor, rate: float, offset: Tensor | None, state: int) -> Tensor:
    """-rate Σ_i w_i ∇_i - drift, (N,)."""
    shift = -rate * (row @ slopes)
    return shift if offset is None else shift - offset[state]
