"""From what a method finds to a `Recovery` whose counts sum to K."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlu_cli.attacks.observations import DUMMIES
from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.types import Evidence, Outputs, Recovery, Status

_GRID = 100  # labels a step where |B| is not known: hundredths of a batch
_SPREAD = "it gives a set of classes: the counts are K spread over them by their bias gradients"


def labels_to_give(evidence: Evidence) -> int:
    """K; without |B|, a grid fine enough to stand in for it."""
    return evidence.total or _GRID * evidence.steps


def ends(evidence: Evidence) -> tuple[Outputs, ...]:
    """The auxiliary images as the round saw them: at its start and, over several steps, its end."""
    return (evidence.before,) if evidence.steps == 1 else (evidence.before, evidence.after)


def dummy_ends(evidence: Evidence) -> tuple[Outputs, ...]:
    """`ends` for dummy images."""
    return evidence[DUMMIES][: 1 if evidence.steps == 1 else 2]


def mean_of(tensors: list[Tensor]) -> Tensor:
    """The mean of tensors of one shape."""
    return torch.stack(tensors).mean(0)


def counted(
    evidence: Evidence,
    counts: Tensor,
    status: Status = Status.COMPUTED,
    *,
    shares: Tensor | None = None,
    notes: tuple[str, ...] = (),
    **figures: Any,
) -> Recovery:
    """The answer of a method that ends with whole counts.

    counts  (N,) int64 summing to `labels_to_give`
    shares  (N,) where the method knows them better than its counts do
    """
    return Recovery(
        shares=counts.double() / int(counts.sum()) if shares is None else shares,
        counts=None if evidence.total is None else whole_passes(counts, evidence),
        status=status,
        diagnostics=figures,
        notes=notes,
    )


def shared(
    evidence: Evidence,
    found: Tensor,
    status: Status = Status.COMPUTED,
    *,
    notes: tuple[str, ...] = (),
    **figures: Any,
) -> Recovery:
    """The answer of a method that ends with real numbers: negatives to 0, largest remainder to K.

    found  (N,) counts or shares, up to a factor
    """
    positive = torch.nan_to_num(found.double().cpu(), nan=0.0, posinf=0.0).clamp_min(0)
    told = float(positive.sum()) > 0
    even = torch.full_like(positive, 1 / len(positive))
    shares = positive / positive.sum() if told else even
    counts = round_to_total(shares, labels_to_give(evidence))
    ended = status if told else Status.UNDETERMINED
    return counted(evidence, counts, ended, shares=shares, notes=notes, **figures)


def present_only(
    evidence: Evidence, present: Tensor, *, notes: tuple[str, ...] = (), **figures: Any
) -> Recovery:
    """The answer of a method that finds which classes are there.

    present  (N,) bool. K labels are spread over them in proportion to max(0, -G_b), each of them
             taking one first where there are enough.
    """
    found = torch.nonzero(present)[:, 0]
    total = labels_to_give(evidence)
    if not len(found):
        even = round_to_total(torch.full((len(present),), 1 / len(present)), total)
        answer = counted(evidence, even, Status.UNDETERMINED, **figures)
    else:
        pull = (-_bias(evidence)).clamp_min(0)[found]
        pull = pull / pull.sum() if float(pull.sum()) > 0 else torch.full_like(pull, 1 / len(found))
        each = int(len(found) <= total)
        counts = torch.zeros(len(present), dtype=torch.int64)
        counts[found] = each + round_to_total(pull, total - each * len(found))
        answer = counted(evidence, counts, **figures)
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
    """Counts (N,) that are the same in every full pass over the samples."""
    if evidence.passes == 1:
        return counts
    total = int(counts.sum())
    return round_to_total(counts / total, total // evidence.passes) * evidence.passes
