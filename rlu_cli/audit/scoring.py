"""Scores of counts against the truth (Eqs. 91, 92), and the score of a uniform guess."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.numerics.rounding import round_to_total


@dataclass(frozen=True)
class Score:
    """Accuracy of counts.

    cacc   share of all classes whose presence is correct (Eq. 91)
    iacc   Σ_c min(N̂_c, N_c) / K (Eq. 92)
    exact  share of classes whose count is correct
    """

    cacc: float
    iacc: float
    exact: float


def score(counts: Tensor, truth: Tensor, present: Tensor | None = None) -> Score:
    """Score `counts` (N,) against `truth` (N,), both integers that sum to K.

    present  (N,) bool, classes that a method reports as present; None for those with a count
    """
    presence = (counts > 0 if present is None else present) == (truth > 0)
    shared = torch.minimum(counts, truth).sum().double() / truth.sum()
    return Score(
        cacc=float(presence.double().mean()),
        iacc=float(shared),
        exact=float((counts == truth).double().mean()),
    )


def uniform_floor(truth: Tensor) -> Score:
    """Score of a uniform guess: K labels spread evenly over all classes."""
    uniform = torch.full((len(truth),), 1.0 / len(truth), dtype=torch.float64)
    return score(round_to_total(uniform, int(truth.sum())), truth)
