"""Scores of counts against the truth (Eqs. 91, 92), and the floor any score must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.numerics.rounding import round_to_total


@dataclass(frozen=True)
class Score:
    """How near counts are to the truth.

    cacc   share of all classes whose presence is right (Eq. 91)
    iacc   Σ_c min(N̂_c, N_c) / K (Eq. 92)
    exact  share of classes whose count is exactly right
    """

    cacc: float
    iacc: float
    exact: float


def score(counts: Tensor, truth: Tensor, present: Tensor | None = None) -> Score:
    """Score `counts` (N,) against `truth` (N,); both whole numbers summing to K.

    present  (N,) bool, the classes found, where a method gives a set beside its counts
    """
    presence = (counts > 0 if present is None else present) == (truth > 0)
    shared = torch.minimum(counts, truth).sum().double() / truth.sum()
    return Score(
        cacc=float(presence.double().mean()),
        iacc=float(shared),
        exact=float((counts == truth).double().mean()),
    )


def uniform_floor(truth: Tensor) -> Score:
    """Score of a guess that knows nothing: K spread evenly over all classes."""
    even = torch.full((len(truth),), 1.0 / len(truth), dtype=torch.float64)
    return score(round_to_total(even, int(truth.sum())), truth)
