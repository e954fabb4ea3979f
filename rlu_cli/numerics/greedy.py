"""Labels handed out one at a time to the class that needs one most, as LLG and its kin do."""

from __future__ import annotations

import torch
from torch import Tensor


def hand_out(values: Tensor, rises: Tensor, total: int) -> Tensor:
    """`total` times: the class of the lowest value takes a label, and its value rises.

    values  (N,) how little of a class has been accounted for; the lowest is served first
    rises   (N,) what one label adds to a class's value
    returns (N,) int64 summing to `total`; ties go to the lower index

    Done by level rather than label by label: class c is served at c's values v, v + r, v + 2r, …,
    and the `total` lowest of all these win. A class that does not rise keeps what it once gets.
    """
    values, rises = values.double(), rises.double()
    counts = torch.zeros(len(values), dtype=torch.int64)
    stuck = rises <= 0
    limit = float(values[stuck].min()) if stuck.any() else float("inf")
    rising = torch.nonzero(~stuck)[:, 0]
    left = total
    if len(rising):
        taken = _lowest(values[rising], rises[rising], total, limit)
        counts[rising] = taken
        left -= int(taken.sum())
    if left:
        keeper = int(torch.where(stuck, values, torch.inf).argmin())
        level = torch.nonzero(~stuck[:keeper] & (values + counts * rises <= limit)[:keeper])[:, 0]
        counts[level[:left]] += 1  # a lower index at the keeper's own value goes before it
        counts[keeper] += max(0, left - len(level))
    return counts


def _lowest(values: Tensor, rises: Tensor, total: int, limit: float) -> Tensor:
    """How many of the `total` lowest terms below `limit` each progression v + k r has, (n,)."""
    if limit < torch.inf and int(_below(values, rises, limit, total).sum()) <= total:
        return _below(values, rises, limit, total)
    low = float(values.min())
    high = min(limit, float((values + rises * total).max()) + 1.0)
    for _ in range(200):  # until no double lies between
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if int(_below(values, rises, middle, total).sum()) < total:
            low = middle
        else:
            high = middle
    # A term at the level may be rounded to either side of it: each class's last is handed out anew.
    counts = (_below(values, rises, low, total) - 1).clamp_min(0)
    for _ in range(total - int(counts.sum())):
        counts[(values + counts * rises).argmin()] += 1
    return counts


def _below(values: Tensor, rises: Tensor, level: float, most: int) -> Tensor:
    """How many terms of each progression v + k r, k = 0, 1, …, lie below a level, (n,) int64.

    most  where counting ends: the rise of a class the model is sure of is so small that the terms
          are more than an int64 holds
    """
    return ((level - values) / rises).ceil().clamp(0, most).long()


def two_stages(values: Tensor, present: Tensor, rises: Tensor, total: int) -> Tensor:
    """LLG's two stages: a label to every present class, the rest to whoever is lowest.

    values   (N,) negative where a class has labels
    present  (N,) bool: classes that take one label first, the lowest first while labels last
    rises    (N,) what one label adds to a class's value
    returns  (N,) int64 summing to `total`
    """
    order = torch.argsort(values, stable=True)
    first = order[present[order]][:total]
    counts = torch.zeros(len(values), dtype=torch.int64)
    counts[first] = 1
    return counts + hand_out(values + counts * rises, rises, total - len(first))
