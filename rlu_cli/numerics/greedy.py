"""Greedy assignment of labels, one at a time to the class of lowest value, as in LLG."""

from __future__ import annotations

import torch
from torch import Tensor


def hand_out(values: Tensor, rises: Tensor, total: int) -> Tensor:
    """Repeat `total` times: the class c = argmin v gets a label, and v_c += r_c.

    values   (N,) v at the start, lowest where most labels are missing
    rises    (N,) r, increase of a class's value per label
    returns  (N,) int64 summing to `total`; ties go to the lower index

    Solved by bisection instead of a loop over labels: class c gets its labels at the values v,
    v + r, v + 2r, …, and the `total` lowest of all these terms win. A class with r ≤ 0 gets all
    remaining labels once it is the lowest.
    """
    values, rises = values.double(), rises.double()
    counts = torch.zeros(len(values), dtype=torch.int64)
    constant = rises <= 0
    limit = float(values[constant].min()) if constant.any() else float("inf")
    rising = torch.nonzero(~constant)[:, 0]
    remaining = total
    if len(rising):
        granted = _lowest(values[rising], rises[rising], total, limit)
        counts[rising] = granted
        remaining -= int(granted.sum())
    if remaining:
        absorbing = int(torch.where(constant, values, torch.inf).argmin())
        tied = torch.nonzero(
            ~constant[:absorbing] & (values + counts * rises <= limit)[:absorbing]
        )[:, 0]
        counts[tied[:remaining]] += 1  # ties with the absorbing class: lower index first
        counts[absorbing] += max(0, remaining - len(tied))
    return counts


def _lowest(values: Tensor, rises: Tensor, total: int, limit: float) -> Tensor:
    """Number of each progression's terms v + k r among the `total` lowest below `limit`, (n,)."""
    if limit < torch.inf and int(_below(values, rises, limit, total).sum()) <= total:
        return _below(values, rises, limit, total)
    low = float(values.min())
    high = min(limit, float((values + rises * total).max()) + 1.0)
    for _ in range(200):  # bisection down to adjacent doubles
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if int(_below(values, rises, middle, total).sum()) < total:
            low = middle
        else:
            high = middle
    # A term at the level may round to either side: reassign the last label of every class.
    counts = (_below(values, rises, low, total) - 1).clamp_min(0)
    for _ in range(total - int(counts.sum())):
        counts[(values + counts * rises).argmin()] += 1
    return counts


def _below(values: Tensor, rises: Tensor, level: float, most: int) -> Tensor:
    """Number of terms of each progression v + k r, k = 0, 1, …, below a level, (n,) int64.

    most  upper bound of the counts: r is tiny for a confidently classified class, and the count
          would overflow int64
    """
    return ((level - values) / rises).ceil().clamp(0, most).long()


def two_stages(values: Tensor, present: Tensor, rises: Tensor, total: int) -> Tensor:
    """LLG's two stages: one label per present class, then each label to the class of lowest value.

    values   (N,) negative where a class has labels
    present  (N,) bool: classes that get one label first, lowest value first while labels last
    rises    (N,) increase of a class's value per label
    returns  (N,) int64 summing to `total`
    """
    order = torch.argsort(values, stable=True)
    first = order[present[order]][:total]
    counts = torch.zeros(len(values), dtype=torch.int64)
    counts[first] = 1
    return counts + hand_out(values + counts * rises, rises, total - len(first))
