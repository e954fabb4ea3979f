"""RLG: Dang et al., "Revealing and protecting labels in distributed training", NeurIPS 2021."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from rlu_cli.attacks.answer import present_only
from rlu_cli.attacks.method import SET, Method
from rlu_cli.types import Evidence, Recovery

_MARGIN = 1e-6  # of r · v_c, with |r_i| ≤ 1: exceeds the solver's tolerance
_RANK = 1e-5  # of the largest singular value: exceeds the rounding of float32 checkpoints


def rlg(evidence: Evidence) -> Recovery:
    """Linearly separable classes c: some r has r · v_c < 0 and r · v_j ≥ 0 for all j ≠ c.

    G_Wᵀ = P Σ V with V (k, N) orthonormal, k the smaller of K and the numerical rank. One linear
    programme per class, bounded here by |r_i| ≤ 1.

    Informative only if the batch is smaller than N and the rank below N - 1: the columns of ΔW sum
    to zero, so a gradient of rank N - 1 makes every class separable.
    """
    directions, rank = _row_space(evidence.gradient.weight, evidence.total)
    classes = evidence.classes
    if rank >= classes - 1:
        everything = torch.ones(classes, dtype=torch.bool)
        return present_only(
            evidence,
            everything,
            rank=rank,
            notes=(
                f"the update has rank {rank} of at most {classes - 1}: every class is separable, "
                "so the method cannot show which classes are present",
            ),
        )
    present = [rank > 0 and _separable(directions, c) for c in range(classes)]
    return present_only(evidence, torch.tensor(present), rank=rank)


def _row_space(weight: Tensor, labels: int | None) -> tuple[NDArray[np.float64], int]:
    """V (k, N) of G_Wᵀ = P Σ V, and the numerical rank; if |B| is unknown, k is the rank."""
    left, singular, _ = torch.linalg.svd(weight, full_matrices=False)
    rank = int((singular > _RANK * singular[0]).sum())
    kept = rank if labels is None else min(labels, rank)
    return left[:, :kept].T.numpy(), rank


def _separable(directions: NDArray[np.float64], label: int) -> bool:
    """Whether some r has r · v_c < 0 and r · v_j ≥ 0 for every other class j."""
    columns = directions.T  # (N, k)
    others = np.delete(columns, label, axis=0)
    found = linprog(
        columns[label],
        A_ub=-others,
        b_ub=np.zeros(len(others)),
        bounds=(-1, 1),
        method="highs",
    )
    return found.fun is not None and found.fun < -_MARGIN


METHOD = Method(
    title="RLG",
    paper="Dang et al. 2021, NeurIPS 34",
    attack=rlg,
    gives=SET,
    repeated=False,
)
