"""Mean and standard error over clients, and the comparison with the paper."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rlu_cli.experiments.measure import Row, is_floor

OWN = "rlu"
_ERRORS = 2  # standard errors within which a value counts as reached
_PRINTED = 5e-4  # half of the last digit the paper prints


@dataclass(frozen=True)
class Mean:
    """Mean and standard error over clients; the error is NaN for one client."""

    value: float
    error: float
    clients: int

    def __str__(self) -> str:
        error = "" if math.isnan(self.error) else f" ± {self.error:.3f}"
        return f"{self.value:.3f}{error} ({self.clients})"


def mean_of(values: Sequence[float]) -> Mean | None:
    """Mean and standard error; None for no values."""
    if not values:
        return None
    several = len(values) > 1
    error = statistics.stdev(values) / math.sqrt(len(values)) if several else math.nan
    return Mean(statistics.mean(values), error, len(values))


def cell_text(row: Row, method: str, metric: str) -> str:
    """`ours ± standard error (clients) / paper`, with – for ours if there is none."""
    ours = mean_of(row.values(method, metric))
    paper = row.cell.paper.get(method, {}).get(metric)
    printed = "" if paper is None else f" / {paper:.3f}"
    return f"{ours if ours is not None else '–'}{printed}"


def best_other(row: Row) -> str | None:
    """The method with the highest mean iAcc, without RLU and floors."""
    means = {
        method: statistics.mean(values)
        for method in row.methods
        if method != OWN and not is_floor(method) and (values := row.values(method, "iacc"))
    }
    return max(means, key=lambda method: means[method]) if means else None


def verdict(row: Row) -> str:
    """Whether RLU's iAcc reaches the paper's and every other method's, or which it does not.

    Reached means at least equal, or within two standard errors: of RLU's mean against the paper's
    value, of the mean difference over the same clients against another method's.
    """
    ours = mean_of(row.values(OWN, "iacc"))
    if ours is None:
        return "–"
    missed = [*_below_paper(row, ours), *_below_others(row)]
    return "reached" if not missed else "below " + ", ".join(missed)


def _below_paper(row: Row, ours: Mean) -> list[str]:
    paper = row.cell.paper.get(OWN, {}).get("iacc")
    reached = paper is None or _reaches(ours.value - paper + _PRINTED, ours.error)
    return [] if reached or paper is None else [f"the paper ({ours.value - paper:+.3f})"]


def _below_others(row: Row) -> list[str]:
    """The methods that are better, each with the difference."""
    missed = []
    own = row.values(OWN, "iacc")
    for method in row.methods:
        other = row.values(method, "iacc")
        if method == OWN or len(other) != len(own):
            continue
        gap = mean_of([ours - theirs for ours, theirs in zip(own, other, strict=True)])
        if gap is not None and not _reaches(gap.value, gap.error):
            missed.append(f"{method} ({gap.value:+.3f})")
    return missed


def _reaches(gap: float, error: float) -> bool:
    return gap >= 0 or (not math.isnan(error) and gap >= -_ERRORS * error)
