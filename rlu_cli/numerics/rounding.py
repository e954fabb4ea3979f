"""Whole counts from shares."""

from __future__ import annotations

import torch
from torch import Tensor


def round_to_total(shares: Tensor, total: int) -> Tensor:
    """Counts nearest to shares · total that are whole, ≥ 0 and sum to `total`: largest remainder.

    shares  (N,) ≥ 0, summing to 1
    returns (N,) int64

    Paper note: Algorithm 1 rounds down, which loses labels; counts must sum to K.
    """
    exact = shares.double() * total
    counts = exact.floor()
    missing = total - int(counts.sum())
    order = torch.argsort(exact - counts, descending=True, stable=True)
    counts[order[:missing]] += 1
    return counts.long()
