"""Measurements of label shares and their noise: y = F z + noise, with a derived covariance.

A measurement is a vector y, each row the mean of some statistic over the client's images, together
with the same statistic of every auxiliary image. z are the label shares, F the class means over the
auxiliary images. The noise has three sources: the client drew finitely many images of each class,
the class means come from finitely many auxiliary images, and every measurement has its own weights
for the steps of the round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rlu_cli.numerics.output_means import class_means

_SHRINK = 1e-3  # of the covariance towards its diagonal
_FLOOR = 1e-9  # relative variance added to every row: some rows do not vary


@dataclass(frozen=True)
class Measurement:
    """Rows of y from one source, such as the bias update or one BatchNorm layer.

    observed             (D,)    y
    per_image_values     (A, D)  the same statistics of each auxiliary image
    weights              (m',)   weight of each forward pass of the round, summing to 1
    spread               (D,)    variance of y from rounding of the files
    nuisance_directions  (D, k)  V: systematic errors of y, which add V Vᵀ to the covariance
    scale                variance inflation of this measurement, at least 1 (squared Birge ratio)
    unknown_scale        whether y is known only up to a positive factor, which is then estimated
                         too, such as an unknown learning rate
    """

    observed: Tensor
    per_image_values: Tensor
    weights: Tensor
    spread: Tensor
    nuisance_directions: Tensor
    scale: float = 1.0
    unknown_scale: bool = False


@dataclass(frozen=True)
class Sampling:
    """How the client's images were drawn.

    batch     |B|, mean batch size
    distinct  number of distinct images used in the round
    """

    batch: float
    distinct: float


@dataclass(frozen=True)
class Rows:
    """The rows of all measurements together, and their noise.

    measurements  in order
    means         F (N, D), class means of the per-image values
    fixed         (D,) y of the measurements of known scale, 0 elsewhere
    unknown       (D,) y of those of unknown scale, 0 elsewhere
    uninflated    (D, D) covariance of y - F z, without variance inflation
    inflation     (D, D) factor on it; 1 everywhere without inflation
    of_means      (D, D) its part from the auxiliary class means, inflated
    """

    measurements: tuple[Measurement, ...]
    means: Tensor
    fixed: Tensor
    unknown: Tensor
    uninflated: Tensor
    inflation: Tensor
    of_means: Tensor

    @cached_property
    def noise(self) -> Tensor:
        """Covariance (D, D) of y - F z, with variance inflation."""
        return self.uninflated * self.inflation

    @cached_property
    def _root(self) -> Tensor:
        return _root(self.noise)

    def white(self, values: Tensor) -> Tensor:
        """Columns (D, k) whitened by the noise."""
        solved: Tensor = torch.linalg.solve_triangular(self._root, values, upper=False)
        return solved

    def minus_two_log_likelihood(self, residual: Tensor) -> float:
        """Of a residual (D,), without variance inflation, up to a constant."""
        inflated = not bool((self.inflation == 1).all())
        factor = _root(self.uninflated) if inflated else self._root
        rows = torch.linalg.solve_triangular(factor, residual[:, None], upper=False)
        return float((rows**2).sum() + 2 * factor.diagonal().log().sum())


def join_rows(
    measurements: Sequence[Measurement],
    labels: Tensor,
    shares: Tensor,
    sampling: Sampling,
    importance: Tensor | None = None,
) -> Rows:
    """The rows of all measurements, with the noise that belongs to `shares`.

    labels      (A,) of the auxiliary images
    shares      (N,) current estimate of z, which determines the noise covariance
    importance  (A,) weight of each image within its class, summing to 1 per class; None for uniform
    """
    classes = len(shares)
    per_image_values = torch.cat([measurement.per_image_values for measurement in measurements], 1)
    if importance is None:
        importance = 1 / torch.bincount(labels, minlength=classes).double()[labels]
    means = class_means(per_image_values, labels, classes, importance)  # (N, D)
    deviations = per_image_values - means[labels]
    scales = _scales(measurements)
    amounts = shares[labels] * importance
    of_means = _of_class_means(deviations, amounts)
    inflation = torch.outer(scales, scales)
    return Rows(
        measurements=tuple(measurements),
        means=means,
        fixed=torch.cat([m.observed * (not m.unknown_scale) for m in measurements]),
        unknown=torch.cat([m.observed * m.unknown_scale for m in measurements]),
        uninflated=_noise(measurements, deviations, means, of_means, amounts, shares, sampling),
        inflation=inflation,
        of_means=of_means * inflation,
    )


def _scales(measurements: Sequence[Measurement]) -> Tensor:
    """Square root of the variance inflation of each row, (D,)."""
    parts = [torch.full((m.per_image_values.shape[1],), m.scale**0.5) for m in measurements]
    return torch.cat(parts).double()


def _of_class_means(deviations: Tensor, amounts: Tensor) -> Tensor:
    """Covariance (D, D) of F z due to the finite number of auxiliary images behind F.

    amounts  (A,) share of the client's labels that each image stands for
    """
    return (deviations * (amounts**2)[:, None]).T @ deviations


def _noise(
    measurements: Sequence[Measurement],
    deviations: Tensor,
    means: Tensor,
    of_means: Tensor,
    amounts: Tensor,
    shares: Tensor,
    sampling: Sampling,
) -> Tensor:
    """Covariance (D, D) of y - F z over the rows of all measurements, without variance inflation.

    of_means  (D, D) from `_of_class_means`
    amounts   (A,)   share of the client's labels that each image stands for
    """
    widths = [measurement.per_image_values.shape[1] for measurement in measurements]
    expand = blocks([torch.ones(1, width) for width in widths])  # (W, D)
    uneven = expand.T @ _unevenness(measurements, sampling.batch) @ expand  # (D, D)
    # The client's images within their classes.
    of_images = (deviations * amounts[:, None]).T @ deviations
    # The labels: with uneven step weights a measurement averages different shares than z.
    of_labels = means.T @ (torch.diag(shares) - torch.outer(shares, shares)) @ means
    noise = of_images * (1 / sampling.distinct + uneven) + of_means + of_labels * uneven
    variances = noise.diagonal().clone()
    noise = noise * (1 - _SHRINK) + torch.diag(variances * _SHRINK)
    nuisance = blocks([m.nuisance_directions @ m.nuisance_directions.T for m in measurements])
    # Dividing by the scale exempts the rounding of the files from variance inflation.
    spread = torch.cat([m.spread / m.scale for m in measurements])
    floor = _FLOOR * (variances.mean() + variances)
    return noise + nuisance + torch.diag(spread + floor)


def _root(noise: Tensor) -> Tensor:
    """Cholesky factor; jitter is added as needed if rows are linearly dependent up to rounding."""
    factor: Tensor = noise
    for floor in (0.0, 1e-9, 1e-6, 1e-3):
        extra = torch.diag(floor * noise.diagonal().clamp_min(noise.diagonal().mean() * floor))
        factor, failed = torch.linalg.cholesky_ex(noise + extra)
        if not int(failed):
            break
    return factor


def _unevenness(measurements: Sequence[Measurement], batch: float) -> Tensor:
    """Σ_τ (w_τ - 1/m)(w'_τ - 1/m) / |B| of every pair of measurements, (W, W)."""
    rows = [measurement.weights - 1 / len(measurement.weights) for measurement in measurements]
    table = [[float(a @ b) if len(a) == len(b) else 0.0 for b in rows] for a in rows]
    return torch.tensor(table, dtype=torch.float64) / batch


def blocks(parts: Sequence[Tensor]) -> Tensor:
    """Block-diagonal matrix, float64."""
    rows, columns = (sum(part.shape[axis] for part in parts) for axis in (0, 1))
    whole = torch.zeros(rows, columns, dtype=torch.float64)
    row = column = 0
    for part in parts:
        whole[row : row + part.shape[0], column : column + part.shape[1]] = part
        row, column = row + part.shape[0], column + part.shape[1]
    return whole
