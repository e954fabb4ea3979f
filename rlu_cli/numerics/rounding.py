"""Integer counts from shares."""

from __future__ import annotations

import torch
from torch import Tensor


def round_to_total(shares: Tensor, total: int) -> Tensor:
    """Integer counts ≥ 0 nearest to shares · total that sum to `total`, by largest remainder.

    shares   (N,) ≥ 0, summing to 1
    returns  (N,) int64

    Paper note: Algorithm 1 rounds down, so that its counts can sum to less than K.
    """
    exact = shares.double() * total
    counts = exact.floor()
    missing = total - int(counts.sum())
    order = torch.argsort(exact - counts, descending=True, stable=True)
    counts[order[:missing]] += 1
    return counts.long()
