"""Label shares from several measurements y = F z + noise: generalised least squares on the simplex.

A measurement is a vector y, each row the mean of some statistic over the client's images, together
with the same statistic of every auxiliary image. z are the label shares, F the class means over the
auxiliary images. The noise covariance is derived, not tuned. It has three sources: the client drew
finitely many images of each class, the class means come from finitely many auxiliary images, and
every measurement has its own weights for the steps of the round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.numerics.output_means import class_means
from rlu_cli.numerics.simplex import cone, mixture
from rlu_cli.types import Status

_SHRINK = 1e-3  # of the covariance towards its diagonal
_FLOOR = 1e-9  # relative variance added to every row: some rows do not vary
_WIDEST = 1.0  # standard deviation of an unidentifiable share: it lies within 0…1


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
class Fused:
    """Estimate from all measurements together.

    shares                    (N,) z ≥ 0, summing to 1
    unconstrained             (N,) z without z ≥ 0, on the plane Σz = 1: unlike `shares` it can be
                              averaged over rounds without bias
    covariance                (N, N) of the error of `unconstrained`, on the plane Σz = 1
    shared_covariance         (N, N) its part from the error of the auxiliary class means: the same
                              error in every round evaluated on the same images
    reduced_chi_square        of each measurement: squared whitened residual per row, without
                              variance inflation; about 1 if the noise model holds
    factor                    by which the y of unknown scale must be multiplied, and its standard
                              deviation; None without such a measurement
    minus_two_log_likelihood  of all rows, without variance inflation, up to a constant: the
                              smaller, the better the assumptions behind the per-image values
    status                    of the least squares
    """

    shares: Tensor
    unconstrained: Tensor
    covariance: Tensor
    shared_covariance: Tensor
    reduced_chi_square: tuple[float, ...]
    factor: tuple[float, float] | None
    minus_two_log_likelihood: float
    status: Status


def fuse(
    measurements: Sequence[Measurement],
    labels: Tensor,
    shares: Tensor,
    sampling: Sampling,
    importance: Tensor | None = None,
) -> Fused:
    """Generalised least squares min (y - F z)ᵀ C⁻¹ (y - F z), z ≥ 0, Σz = 1: one iteration.

    labels      (A,) of the auxiliary images
    shares      (N,) current estimate of z, which determines the noise covariance C
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
    uninflated = _noise(measurements, deviations, means, of_means, amounts, shares, sampling)
    inflation = torch.outer(scales, scales)
    noise, of_means = uninflated * inflation, of_means * inflation
    fixed = torch.cat([m.observed * (not m.unknown_scale) for m in measurements])
    unknown_scale = torch.cat([m.observed * m.unknown_scale for m in measurements])
    root = _root(noise)

    def minus_two_log_likelihood(residual: Tensor) -> float:
        factor = root if bool((scales == 1).all()) else _root(uninflated)
        rows = torch.linalg.solve_triangular(factor, residual[:, None], upper=False)
        return float((rows**2).sum() + 2 * factor.diagonal().log().sum())

    def white(rows: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(root, rows, upper=False)
        return solved

    if all(measurement.unknown_scale for measurement in measurements):
        return _up_to_scale(
            measurements,
            noise,
            of_means,
            means,
            unknown_scale,
            white,
            minus_two_log_likelihood,
        )
    columns, scale_column = white(means.T), white(-unknown_scale[:, None])
    has_unknown_scale = bool(unknown_scale.any())
    solution = mixture(
        columns, white(fixed[:, None])[:, 0], scale_column[:, 0] if has_unknown_scale else None
    )
    scale = solution.scale or 0.0
    covariance, gain = estimate(
        torch.cat([columns, scale_column], 1) if has_unknown_scale else columns, classes
    )
    error = float(covariance[-1, -1].clamp_min(0).sqrt())
    residual = fixed + scale * unknown_scale - means.T @ solution.shares
    uniform = torch.full((classes,), 1 / classes, dtype=torch.float64)
    shift = gain[:classes] @ white((fixed - means.T @ uniform)[:, None])[:, 0]
    return Fused(
        shares=solution.shares,
        unconstrained=uniform + shift,
        covariance=covariance[:classes, :classes],
        shared_covariance=_shared_covariance(gain[:classes], of_means, white),
        reduced_chi_square=_reduced_chi_square(measurements, noise, residual),
        factor=(scale, error) if has_unknown_scale else None,
        minus_two_log_likelihood=minus_two_log_likelihood(residual)
        - (2 * len(unknown_scale.nonzero()) * math.log(scale) if scale else 0.0),
        status=solution.status,
    )


def _up_to_scale(
    measurements: Sequence[Measurement],
    noise: Tensor,
    of_class_means: Tensor,
    means: Tensor,
    observed: Tensor,
    white: Callable[[Tensor], Tensor],
    minus_two_log_likelihood: Callable[[Tensor], float],
) -> Fused:
    """Shares when all rows share one unknown factor: y = F w, w ≥ 0, z = w / Σw.

    Needs more rows than classes: the rows e_y - p alone vanish for some mixture z, so that adding
    any multiple of it to w changes nothing.
    """
    columns = white(means.T)
    amounts = cone(columns, white(observed[:, None])[:, 0])
    classes = len(means)
    if amounts is None:
        uniform = torch.full((classes,), 1 / classes, dtype=torch.float64)
        reduced_chi_square = (math.inf,) * len(measurements)
        no_information = torch.eye(classes).double()
        zeros = torch.zeros_like(no_information)
        return Fused(
            uniform,
            uniform,
            no_information,
            zeros,
            reduced_chi_square,
            None,
            math.inf,
            Status.UNSOLVED,
        )
    total = float(amounts.sum())
    shares = amounts / total
    bound = torch.eye(classes, dtype=torch.float64) / (_WIDEST * total) ** 2
    error: Tensor = torch.linalg.pinv(columns.T @ columns + bound, hermitian=True)  # of w
    centring = torch.eye(classes, dtype=torch.float64) - shares[:, None]  # dz = (I - z 1ᵀ) dw / Σw
    shift = error @ columns.T @ white(observed[:, None])[:, 0] - amounts
    return Fused(
        shares=shares,
        unconstrained=shares + centring @ shift / total,
        covariance=centring @ error @ centring.T / total**2,
        shared_covariance=_shared_covariance(
            centring @ error @ columns.T / total, of_class_means, white
        ),
        reduced_chi_square=_reduced_chi_square(measurements, noise, observed - means.T @ amounts),
        factor=(1 / total, float(error.sum().clamp_min(0).sqrt()) / total**2),
        minus_two_log_likelihood=minus_two_log_likelihood(observed - means.T @ amounts),
        status=Status.SOLVED,
    )


def _shared_covariance(
    gain: Tensor, of_class_means: Tensor, white: Callable[[Tensor], Tensor]
) -> Tensor:
    """Covariance (N, N) of z due to the error of the class means.

    gain            (N, D) from whitened rows to z
    of_class_means  (D, D) covariance of that error
    """
    return gain @ white(white(of_class_means).T) @ gain.T


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
    expand = _blocks([torch.ones(1, width) for width in widths])  # (W, D)
    uneven = expand.T @ _unevenness(measurements, sampling.batch) @ expand  # (D, D)
    # The client's images within their classes.
    of_images = (deviations * amounts[:, None]).T @ deviations
    # The labels: with uneven step weights a measurement averages different shares than z.
    of_labels = means.T @ (torch.diag(shares) - torch.outer(shares, shares)) @ means
    noise = of_images * (1 / sampling.distinct + uneven) + of_means + of_labels * uneven
    variances = noise.diagonal().clone()
    noise = noise * (1 - _SHRINK) + torch.diag(variances * _SHRINK)
    nuisance = _blocks([m.nuisance_directions @ m.nuisance_directions.T for m in measurements])
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


def _blocks(parts: Sequence[Tensor]) -> Tensor:
    """Block-diagonal matrix, float64."""
    rows, columns = (sum(part.shape[axis] for part in parts) for axis in (0, 1))
    whole = torch.zeros(rows, columns, dtype=torch.float64)
    row = column = 0
    for part in parts:
        whole[row : row + part.shape[0], column : column + part.shape[1]] = part
        row, column = row + part.shape[0], column + part.shape[1]
    return whole


def _unevenness(measurements: Sequence[Measurement], batch: float) -> Tensor:
    """Σ_τ (w_τ - 1/m)(w'_τ - 1/m) / |B| of every pair of measurements, (W, W)."""
    rows = [measurement.weights - 1 / len(measurement.weights) for measurement in measurements]
    table = [[float(a @ b) if len(a) == len(b) else 0.0 for b in rows] for a in rows]
    return torch.tensor(table, dtype=torch.float64) / batch


def estimate(columns: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Covariance of the least-squares z on the plane Σz = 1, and its gain: δz = gain @ whitened δy.

    columns  (D, N) whitened A; (D, N + 1) with a column of unknown scale, whose scale is then the
             last entry of both results

    Directions of z that no row depends on get a standard deviation of 1 instead of infinity.
    """
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    plane: Tensor = torch.linalg.qr(centred[:, 1:])[0]  # (N, N - 1), spans Σ = 0
    basis = _blocks([plane, torch.eye(columns.shape[1] - classes)])
    inside = columns @ basis
    information = inside.T @ inside
    information.diagonal()[: classes - 1] += _WIDEST**-2
    inverse: Tensor = torch.linalg.pinv(information, hermitian=True)
    whole = basis @ inverse @ basis.T
    return whole, whole @ columns.T


def _reduced_chi_square(
    measurements: Sequence[Measurement], noise: Tensor, residual: Tensor
) -> tuple[float, ...]:
    """Squared whitened residual per row of each measurement, on its own and without inflation."""
    values, start = [], 0
    for measurement in measurements:
        end = start + measurement.per_image_values.shape[1]
        own, rows = noise[start:end, start:end] / measurement.scale, residual[start:end]
        values.append(float(rows @ torch.linalg.solve(own, rows)) / len(rows))
        start = end
    return tuple(values)
