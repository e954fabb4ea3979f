"""Expected softmax of normally distributed logits (Eq. 8), by Monte Carlo with common noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlu_cli.numerics.moments import ClassMoments

_KEPT_BYTES = 2**29  # exponentials cached between calls
_NOISE_BYTES = 2**28  # the base noise
_CHUNK_BYTES = 2**26  # one block of draws
_WORK_LIMIT = 4e8  # M · N² above 500 classes
_MANY_CLASSES = 500
_WIDE = 60.0  # exp(±60) and the sums over it stay inside float32


def affordable_draws(draws: int, classes: int, images: int) -> int:
    """Number of draws M within limits: M · N² ≤ 4e8 above 500 classes, base noise ≤ 256 MB.

    draws    M as requested
    classes  N
    images   k, auxiliary images in the largest class
    """
    limit = _NOISE_BYTES // (4 * images)
    if classes > _MANY_CLASSES:
        limit = min(limit, int(_WORK_LIMIT / classes**2))
    return max(1, min(draws, limit))


def base_noise(draws: int, images: int, seed: int) -> Tensor:
    """Standard normal ξ, (M, k) float32, drawn on the CPU so that every device uses the same."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(draws, images, generator=generator)


@dataclass(frozen=True)
class LogitDraws:
    """M draws of the logits per class, μ̂_n + ξᵀ(Q - μ̂_n)/√(k-1): exact samples of N(μ̂_n, Σ̂_n).

    All classes and both ends of a round share the same ξ (common random numbers), so that
    differences between two results are not sampling noise. A shift δ common to all classes, as from
    a change of the bias, needs no new exponentials: softmax(q + δ) = E w / (E · w), E = exp(q),
    w = exp(δ).

    moments  per class, on the device in use
    noise    (M, k) ξ on the same device
    """

    moments: ClassMoments
    noise: Tensor
    _kept: dict[int, list[Tensor]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def classes(self) -> int:
        return len(self.moments.mean)

    def confidence(self, shift: Tensor | None = None) -> Tensor:
        """S[n, j], (N, N) float64: mean softmax of class j for true class n (Eq. 8)."""
        return torch.stack([self.confidence_of(n, shift) for n in range(self.classes)])

    def batch_probability(self, mix: Tensor, shift: Tensor) -> Tensor:
        """Mean softmax (N,) float64 of a batch whose label shares are `mix` (N,): mixᵀ S."""
        present = [int(n) for n in torch.nonzero(mix).flatten()]
        rows = [self.confidence_of(n, shift) * float(mix[n]) for n in present]
        return torch.stack(rows).sum(0) if rows else torch.zeros(self.classes, dtype=torch.float64)

    def confidence_of(self, n: int, shift: Tensor | None = None) -> Tensor:
        """Row n of S, (N,) float64 on the CPU, with `shift` (N,) added to every logit."""
        mean = self.moments.mean
        delta = torch.zeros_like(mean[n]) if shift is None else shift.to(mean)
        if float(delta.max() - delta.min()) > _WIDE:
            sums = sum(torch.softmax(q + delta, 1).double().sum(0) for q in self._logits(n))
        else:
            factor = torch.exp(delta - delta.max())
            sums = sum(_weighted_softmax(block, factor) for block in self._exponentials(n))
        assert isinstance(sums, Tensor)
        return (sums / len(self.noise)).cpu()

    def _logits(self, n: int) -> Iterator[Tensor]:
        """Draws for class n in blocks (≤ chunk, N)."""
        factor, centre = self.moments.factors[n], self.moments.mean[n]
        rows = max(1, _CHUNK_BYTES // (4 * self.classes))
        for start in range(0, len(self.noise), rows):
            noise = self.noise[start : start + rows, : len(factor)]
            yield torch.addmm(centre, noise, factor)

    def _exponentials(self, n: int) -> Iterator[Tensor] | list[Tensor]:
        """exp(q - max q) for class n in blocks, cached for the next call while memory allows."""
        if n in self._kept:
            return self._kept[n]
        blocks = (torch.exp(q - q.amax(1, keepdim=True)) for q in self._logits(n))
        size = 4 * len(self.noise) * self.classes
        if (len(self._kept) + 1) * size > _KEPT_BYTES:
            return blocks
        self._kept[n] = list(blocks)
        return self._kept[n]


def _weighted_softmax(exponentials: Tensor, factor: Tensor) -> Tensor:
    """Σ_i E_ij w_j / (E_i · w) over draws i, (N,) float64."""
    norms = exponentials @ factor
    return (factor * (exponentials.T @ norms.reciprocal())).double()


def logit_draws(moments: ClassMoments, draws: int, seed: int) -> LogitDraws:
    """`LogitDraws` of `moments`, on its device, from the base noise of `seed`."""
    noise = base_noise(draws, moments.images, seed).to(moments.mean)
    return LogitDraws(moments, noise)
