"""Results of a method → a `Recovery` whose counts sum to K."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlu_cli.attacks.observations import DUMMIES
from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.types import Evidence, Outputs, Recovery, Status

_GRID = 100  # labels per step if |B| is unknown: hundredths of a batch
_SPREAD = (
    "it gives a set of classes; K labels are distributed over them in proportion to their bias "
    "gradients"
)


def labels_to_give(evidence: Evidence) -> int:
    """K; if |B| is unknown, a number large enough to resolve the shares."""
    return evidence.total or _GRID * evidence.steps


def ends(evidence: Evidence) -> tuple[Outputs, ...]:
    """Outputs on the auxiliary images before the round and, if it has several steps, after it."""
    return (evidence.before,) if evidence.steps == 1 else (evidence.before, evidence.after)


def dummy_ends(evidence: Evidence) -> tuple[Outputs, ...]:
    """`ends` for dummy images."""
    return evidence[DUMMIES][: 1 if evidence.steps == 1 else 2]


def mean_of(tensors: list[Tensor]) -> Tensor:
    """Mean of tensors of the same shape."""
    return torch.stack(tensors).mean(0)


def counted(
    evidence: Evidence,
    counts: Tensor,
    status: Status = Status.COMPUTED,
    *,
    shares: Tensor | None = None,
    notes: tuple[str, ...] = (),
    **diagnostics: Any,
) -> Recovery:
    """Recovery of a method that gives integer counts.

    counts       (N,) int64 summing to `labels_to_give`
    shares       (N,) if the method has them before rounding; else they follow from the counts
    diagnostics  values by name
    """
    return Recovery(
        shares=counts.double() / int(counts.sum()) if shares is None else shares,
        counts=None if evidence.total is None else whole_passes(counts, evidence),
        status=status,
        diagnostics=diagnostics,
        notes=notes,
    )


def shared(
    evidence: Evidence,
    found: Tensor,
    status: Status = Status.COMPUTED,
    *,
    notes: tuple[str, ...] = (),
    **diagnostics: Any,
) -> Recovery:
    """Recovery of a method that gives real numbers: negatives to 0, rounded by largest remainder.

    found  (N,) counts or shares, up to a factor; if none is positive, the shares are uniform and
           the status is UNDETERMINED
    """
    positive = torch.nan_to_num(found.double().cpu(), nan=0.0, posinf=0.0).clamp_min(0)
    determined = float(positive.sum()) > 0
    uniform = torch.full_like(positive, 1 / len(positive))
    shares = positive / positive.sum() if determined else uniform
    counts = round_to_total(shares, labels_to_give(evidence))
    final = status if determined else Status.UNDETERMINED
    return counted(evidence, counts, final, shares=shares, notes=notes, **diagnostics)


def present_only(
    evidence: Evidence, present: Tensor, *, notes: tuple[str, ...] = (), **diagnostics: Any
) -> Recovery:
    """Recovery of a method that finds which classes are present.

    present  (N,) bool. If K suffices, every present class gets one label; the rest is distributed
             in proportion to max(0, -G_b)
    """
    found = torch.nonzero(present)[:, 0]
    total = labels_to_give(evidence)
    if not len(found):
        uniform = round_to_total(torch.full((len(present),), 1 / len(present)), total)
        answer = counted(evidence, uniform, Status.UNDETERMINED, **diagnostics)
    else:
        weights = (-_bias(evidence)).clamp_min(0)[found]
        weights = (
            weights / weights.sum()
            if float(weights.sum()) > 0
            else torch.full_like(weights, 1 / len(found))
        )
        each = int(len(found) <= total)
        counts = torch.zeros(len(present), dtype=torch.int64)
        counts[found] = each + round_to_total(weights, total - each * len(found))
        answer = counted(evidence, counts, **diagnostics)
    return Recovery(
        shares=answer.shares,
        counts=answer.counts,
        status=answer.status,
        diagnostics=answer.diagnostics,
        present=present,
        notes=(_SPREAD, *notes),
    )


def _bias(evidence: Evidence) -> Tensor:
    bias = evidence.gradient.bias
    assert bias is not None
    return bias


def whole_passes(counts: Tensor, evidence: Evidence) -> Tensor:
    """Counts (N,) rounded so that every full pass over the samples has the same labels."""
    if evidence.passes == 1:
        return counts
    total = int(counts.sum())
    return round_to_total(counts / total, total // evidence.passes) * evidence.passes
