"""Mean and covariance of the logits per class (Eq. 7); the covariance is kept as a factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassMoments:
    """Mean and covariance of the logits for each true class n.

    mean     (N, N)  row n: μ̂_n
    factors  N tensors (k_n, N), (Q - μ̂_n) / √(k_n - 1) over the k_n images of class n, so that
             factorᵀ · factor = Σ̂_n, which is never formed
    """

    mean: Tensor
    factors: Sequence[Tensor]

    @property
    def images(self) -> int:
        """Number of images in the largest class."""
        return max(len(factor) for factor in self.factors)


def class_moments(logits: Tensor, labels: Tensor, classes: int) -> ClassMoments:
    """Mean μ̂_n of the logits and a factor of their covariance Σ̂_n for every class (Eq. 7).

    logits  (A, N)
    labels  (A,) true class of each image; every class has at least two
    """
    groups = [logits[labels == n] for n in range(classes)]
    mean = torch.stack([group.mean(0) for group in groups])
    factors = [
        (group - centre) / (len(group) - 1) ** 0.5
        for group, centre in zip(groups, mean, strict=True)
    ]
    return ClassMoments(mean, factors)
