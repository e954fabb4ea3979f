"""Covariances within the classes, from few images: shrunk towards the mean one and its diagonal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.numerics.output_means import class_means

_LEAST = 1e-12


@dataclass(frozen=True)
class ClassCovariances:
    """Means F and covariances W_n of a statistic within each class.

    W_n is (1 - ρ_n) S_n + ρ_n S, with S_n the class's own covariance, unbiased, and S the pooled
    one, itself shrunk towards its diagonal (Ledoit and Wolf 2004 give both amounts).

    means       F (N, D)
    deviations  (A, D) of every image from the mean of its class
    labels      (A,)
    importance  (A,) weight of each image within its class, summing to 1 per class
    effective   (N,) effective number of images per class, 1 / Σ importance²
    pooled      S (D, D)
    shrinkage   ρ (N,)
    """

    means: Tensor
    deviations: Tensor
    labels: Tensor
    importance: Tensor
    effective: Tensor
    pooled: Tensor
    shrinkage: Tensor

    def mixed(self, amounts: Tensor) -> Tensor:
        """Σ_n a_n W_n, (D, D).

        amounts  (N,)
        """
        own = (amounts * (1 - self.shrinkage) * _unbiased(self.effective))[self.labels]
        weighted = self.deviations * (own * self.importance)[:, None]
        pooled = float((amounts * self.shrinkage).sum()) * self.pooled
        return weighted.T @ self.deviations + pooled


def class_covariances(values: Tensor, labels: Tensor, importance: Tensor) -> ClassCovariances:
    """Estimate means and covariances of per-image values.

    values      (A, D)
    labels      (A,)
    importance  (A,) weight of each image within its class, summing to 1 per class
    """
    classes = int(labels.max()) + 1
    means = class_means(values, labels, classes, importance)
    deviations = values - means[labels]
    squares = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, importance**2)
    effective = 1 / squares
    scaled = (importance * effective[labels] * _unbiased(effective)[labels]).sqrt()
    standard = deviations * scaled[:, None]
    pooled = _shrunk_to_diagonal(standard)
    spread = pooled.diagonal().clamp_min(_LEAST).sqrt()
    target = pooled / torch.outer(spread, spread)
    shrinkage = torch.stack(
        [_shrinkage((standard / spread)[labels == n], target) for n in range(classes)]
    )
    return ClassCovariances(means, deviations, labels, importance, effective, pooled, shrinkage)


def _unbiased(effective: Tensor) -> Tensor:
    """n / (n - 1) of each class, at most 10."""
    return 1 / (1 - 1 / effective).clamp_min(0.1)


def _shrunk_to_diagonal(rows: Tensor) -> Tensor:
    """Second moment (D, D) of the rows (A, D), its correlations shrunk towards 0."""
    count = len(rows)
    spread = (rows.square().mean(0)).sqrt()
    spread = spread.where(spread > 0, torch.ones_like(spread))
    standard = rows / spread
    correlation = standard.T @ standard / count
    diagonal = torch.diag(correlation.diagonal())
    off = (correlation - diagonal).square().sum()
    noise = (standard.square().sum(1).square().sum() / count - correlation.square().sum()) / count
    amount = 1.0 if float(off) <= 0 else min(1.0, max(0.0, float(noise / off)))
    shrunk: Tensor = correlation * (1 - amount) + diagonal * amount
    return shrunk * torch.outer(spread, spread)


def _shrinkage(rows: Tensor, target: Tensor) -> Tensor:
    """Ledoit-Wolf amount towards `target` (D, D), 0…1, for the second moment of the rows (n, D).

    The rows are deviations from their own mean, whose products vary less than those of independent
    rows: the spread of the products over n - 2, not n, is the variance of their mean (exactly for
    normal rows). Two rows are opposite, so that their products do not vary at all.
    """
    count = len(rows)
    if count < 3:
        return torch.ones((), dtype=torch.float64)
    gram = rows @ rows.T
    own = gram.square().sum() / count**2
    cross = ((rows @ target) * rows).sum() / count
    noise = (gram.diagonal().square().sum() / count - own) / (count - 2)
    distance = own - 2 * cross + target.square().sum()
    return (noise / distance.clamp_min(_LEAST)).clamp(0, 1)
