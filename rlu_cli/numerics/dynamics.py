"""Change of the logits over a round: the simulated client of Algorithm 2 (Eqs. 12-14)."""

from __future__ import annotations

import torch
from torch import Tensor

from rlu_cli.numerics.monte_carlo import LogitDraws
from rlu_cli.types import GradientFreeOffset, Head


def implied_embedding(update: Head) -> Tensor:
    """Mean embedding implied by the update, ē = Σ_j Δb_j ΔW_j / Σ_j Δb_j², (L,) (Eq. 14).

    update  ΔW (N, L) and Δb (N,), gradient-free offset removed

    Paper note: Eq. 14 does not fix the row j and divides by Δb_j, which may be near 0. Least
    squares over all rows avoids both.
    """
    assert update.bias is not None, "observe() derives the bias of a layer that has none"
    return (update.bias @ update.weight) / (update.bias @ update.bias)


def logit_gain(embedding: Tensor, *, biased: bool) -> float:
    """Change of a logit per unit change of its bias, 1 + Σ_l ē_l² (Eq. 13).

    embedding  (L,) mean input of the output layer
    biased     whether the layer has a bias; without one the 1 is dropped

    Paper note: Eq. 13 omits the bias's own contribution, the 1.
    """
    return float(embedding.double() @ embedding.double()) + float(biased)


def offset_shifts(
    offset: GradientFreeOffset | None, embedding: Tensor, *, biased: bool
) -> Tensor | None:
    """Decrease of every logit due to the gradient-free offset in each state of the round.

    offset     directions and their (m + 1, k) coefficients; None for none
    embedding  (L,) mean input of the output layer
    biased     whether the layer has a bias
    returns    (m + 1, N) float64; None without an offset
    """
    if offset is None:
        return None
    shifts = [_logits(head, embedding, biased=biased) for head in offset.directions]
    return offset.coefficients.double() @ torch.stack(shifts)


def _logits(head: Head, embedding: Tensor, *, biased: bool) -> Tensor:
    """Logits of a head at the mean embedding, (N,) float64 on the CPU."""
    logits = (head.weight.double() @ embedding.to(head.weight).double()).cpu()
    return logits + head.bias.double().cpu() if biased and head.bias is not None else logits


def smoothed(mix: Tensor, smoothing: float) -> Tensor:
    """Label shares under label smoothing ε: (1 - ε) z + ε/N, (N,)."""
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

    draws      Monte-Carlo logits of the global model
    mix        (N,) label shares of every batch
    weights    (m + 1, m) in-round weights of the scheme; the last row is ρ
    rate       learning rate × logit gain
    offset     (m + 1, N) logit shift of the gradient-free offset, subtracted; None for none
    smoothing  ε of label smoothing in the client's loss
    returns    (N,) float64, added to the mean logits of every class: Δμ_{n,j} is the same for all n
    """
    mix = mix.double().cpu()
    slopes = torch.zeros(weights.shape[1], len(mix), dtype=torch.float64)
    steps = weights.double().cpu()
    for state in range(len(slopes)):
        shift = _shift(steps[state], slopes, rate, offset, state)
        slopes[state] = draws.batch_probability(mix, shift) - smoothed(mix, smoothing)
    return _shift(steps[-1], slopes, rate, offset, len(slopes))


def _shift(row: Tensor, slopes: Tensor, rate: float, offset: Tensor | None, state: int) -> Tensor:
    """-rate Σ_i w_i ∇_i - offset, (N,)."""
    shift = -rate * (row @ slopes)
    return shift if offset is None else shift - offset[state]
