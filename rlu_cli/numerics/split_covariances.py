"""Covariances whose eigenvalues come from other images than their eigenvectors.

Along the directions in which a sample covariance is smallest it is much too small: they are those
in which this sample happens to vary little. Least squares puts most weight on just these. Variances
of the other half of the images along the eigenvectors of the first are free of that bias (Abadir,
Distaso and Žikeš 2014; Lam 2016; NERCOME of Joachimi 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.numerics.class_covariances import ClassCovariances, class_covariances

_SPLITS = 4
_LEAST_IMAGES = 16  # of the smallest class: halves of fewer images say too little


@dataclass(frozen=True)
class SplitCovariances:
    """Covariances within the classes, from random halves of the images.

    halves  of every split, the covariances of either half
    """

    halves: tuple[tuple[ClassCovariances, ClassCovariances], ...]

    def mixed(self, amounts: Tensor) -> Tensor:
        """Σ_n a_n W_n, (D, D): the mean over the splits of Σ_k v_k (v_kᵀ M' v_k) v_kᵀ.

        v_k are the eigenvectors of the one half's mixture, M' is the other half's.

        amounts  (N,)
        """
        found = [
            _with_variances_of(one.mixed(amounts), other.mixed(amounts))
            for one, other in self.halves
        ]
        return torch.stack(found).mean(0)


def split_covariances(
    values: Tensor, labels: Tensor, importance: Tensor, seed: int
) -> SplitCovariances | None:
    """Split the images of every class at random; None if some class has fewer than four images.

    values      (A, D)
    labels      (A,)
    importance  (A,) weight of each image within its class, summing to 1 per class
    seed        of the splits
    """
    if int(torch.bincount(labels).min()) < _LEAST_IMAGES:
        return None
    generator = torch.Generator().manual_seed(seed)
    halves: list[tuple[ClassCovariances, ClassCovariances]] = []
    for _ in range(_SPLITS // 2):
        first = _half(labels, generator)
        one, other = (_of(values, labels, importance, mask) for mask in (first, ~first))
        halves += [(one, other), (other, one)]
    return SplitCovariances(tuple(halves))


def _half(labels: Tensor, generator: torch.Generator) -> Tensor:
    """(A,) bool: a random half of the images of every class."""
    order = torch.rand(len(labels), generator=generator, dtype=torch.float64).argsort()
    order = order[labels[order].argsort(stable=True)]
    place = torch.zeros(len(labels), dtype=torch.int64)
    counts = torch.bincount(labels)
    starts = counts.cumsum(0) - counts
    place[order] = torch.arange(len(labels)) - starts[labels[order]]
    return place < counts[labels] // 2


def _of(values: Tensor, labels: Tensor, importance: Tensor, mask: Tensor) -> ClassCovariances:
    own, weights = labels[mask], importance[mask]
    sums = torch.zeros(int(labels.max()) + 1, dtype=torch.float64).index_add_(0, own, weights)
    return class_covariances(values[mask], own, weights / sums[own])


def _with_variances_of(first: Tensor, second: Tensor) -> Tensor:
    """The first matrix's eigenvectors with the variances of the second along them."""
    vectors = torch.linalg.eigh(first).eigenvectors
    variances = ((vectors.T @ second) * vectors.T).sum(1)
    mixed: Tensor = (vectors * variances) @ vectors.T
    return mixed
