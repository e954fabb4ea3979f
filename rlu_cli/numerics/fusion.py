"""Label shares from several witnesses at once: generalised least squares on the simplex.

A witness is a vector y of rows, each the mean of some figure over the images the client used, and
the same figures of every auxiliary image. With z the label shares and F the class means, y = F z up
to noise that is counted, not guessed: the client drew finitely many images of each class, the class
means come from finitely many auxiliary images, and every witness weights the steps of the round in
its own way.
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
_FLOOR = 1e-9  # of a row's variance, against rows that do not vary
_WIDEST = 1.0  # deviation of a share of which the rows say nothing: it lies within 0…1


@dataclass(frozen=True)
class Measurement:
    """Rows of y that belong together.

    observed  (D,)    y
    figures   (A, D)  the same of each auxiliary image
    weights   (m',)   how much each pass of the round counts, summing to 1
    spread    (D,)    variance of y that has nothing to do with images: rounding of the files
    drift     (D, k)  directions in which y may be off by about their own length, or none
    scale     factor on the covariance of a witness that does not fit
    free      y is known only up to a positive factor, which is found too: a learning rate
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

    batch     |B|, mean size of a batch
    distinct  images that went into the round, each counted once
    """

    batch: float
    distinct: float


@dataclass(frozen=True)
class Fused:
    """What the witnesses together say.

    shares      (N,) z
    unbounded   (N,) the same without z ≥ 0, on the plane Σz = 1: over many rounds its mean is right
    covariance  (N, N) of z, without the bounds of the simplex but on the plane Σz = 1
    common      (N, N) the part of it that comes from the auxiliary class means: another round of
                the client, seen with the same images, has the same error
    misfit      of each witness: squared whitened residual of its rows per row; about 1 where the
                noise is what it was counted to be
    factor      what the free witness's y must be multiplied by, and its standard deviation; None
                without one
    surprise    -2 log-likelihood of all rows under the noise as it was counted, no witness widened,
                up to a constant: the smaller, the better the model that made the figures
    status      of the least squares
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
    """One step of the iteration: z under the noise that belongs to the last `shares`.

    labels      (A,) of the auxiliary images
    shares      (N,) the last guess, which sets how noisy each row is
    importance  (A,) weight of each image in its class, summing to 1 there; None for even weights
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
    counted = _noise(measurements, deviations, means, of_means, amounts, shares, sampling)
    noise, known = counted * torch.outer(scales, scales), of_means * torch.outer(scales, scales)
    fixed = torch.cat([w.observed * (not w.unknown_scale) for w in measurements])
    unknown_scale = torch.cat([w.observed * w.unknown_scale for w in measurements])
    root = _root(noise)

    def minus_two_log_likelihood(residual: Tensor) -> float:
        plain = root if bool((scales == 1).all()) else _root(counted)
        rows = torch.linalg.solve_triangular(plain, residual[:, None], upper=False)
        return float((rows**2).sum() + 2 * plain.diagonal().log().sum())

    def white(rows: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(root, rows, upper=False)
        return solved

    if all(measurement.unknown_scale for measurement in measurements):
        return _up_to_scale(
            measurements, noise, known, means, unknown_scale, white, minus_two_log_likelihood
        )
    columns, unknown = white(means.T), white(-unknown_scale[:, None])
    given = bool(unknown_scale.any())
    found = mixture(columns, white(fixed[:, None])[:, 0], unknown[:, 0] if given else None)
    scale = found.scale or 0.0
    covariance, gain = estimate(torch.cat([columns, unknown], 1) if given else columns, classes)
    error = float(covariance[-1, -1].clamp_min(0).sqrt())
    residual = fixed + scale * unknown_scale - means.T @ found.shares
    even = torch.full((classes,), 1 / classes, dtype=torch.float64)
    moved = gain[:classes] @ white((fixed - means.T @ even)[:, None])[:, 0]
    return Fused(
        shares=found.shares,
        unconstrained=even + moved,
        covariance=covariance[:classes, :classes],
        shared_covariance=_shared_covariance(gain[:classes], known, white),
        reduced_chi_square=_misfit(measurements, noise, residual),
        factor=(scale, error) if given else None,
        minus_two_log_likelihood=minus_two_log_likelihood(residual)
        - (2 * len(unknown_scale.nonzero()) * math.log(scale) if scale else 0.0),
        status=found.status,
    )


def _up_to_scale(
    measurements: Sequence[Measurement],
    noise: Tensor,
    known: Tensor,
    means: Tensor,
    observed: Tensor,
    white: Callable[[Tensor], Tensor],
    minus_two_log_likelihood: Callable[[Tensor], float],
) -> Fused:
    """Shares where every row is known up to the one factor: y = F w, z = w / Σw.

    It takes more rows than classes: e_y - p alone vanishes for some mixture, whatever its size.
    """
    columns = white(means.T)
    amounts = cone(columns, white(observed[:, None])[:, 0])
    classes = len(means)
    if amounts is None:
        even = torch.full((classes,), 1 / classes, dtype=torch.float64)
        reduced_chi_square = (math.inf,) * len(measurements)
        unknown = torch.eye(classes).double()
        nothing = torch.zeros_like(unknown)
        return Fused(
            even, even, unknown, nothing, reduced_chi_square, None, math.inf, Status.UNSOLVED
        )
    total = float(amounts.sum())
    shares = amounts / total
    bound = torch.eye(classes, dtype=torch.float64) / (_WIDEST * total) ** 2
    error: Tensor = torch.linalg.pinv(columns.T @ columns + bound, hermitian=True)  # of w
    centring = torch.eye(classes, dtype=torch.float64) - shares[:, None]  # dz = (I - z 1ᵀ) dw / Σw
    moved = error @ columns.T @ white(observed[:, None])[:, 0] - amounts
    return Fused(
        shares=shares,
        unconstrained=shares + centring @ moved / total,
        covariance=centring @ error @ centring.T / total**2,
        shared_covariance=_shared_covariance(centring @ error @ columns.T / total, known, white),
        reduced_chi_square=_misfit(measurements, noise, observed - means.T @ amounts),
        factor=(1 / total, float(error.sum().clamp_min(0).sqrt()) / total**2),
        minus_two_log_likelihood=minus_two_log_likelihood(observed - means.T @ amounts),
        status=Status.SOLVED,
    )


def _shared_covariance(gain: Tensor, known: Tensor, white: Callable[[Tensor], Tensor]) -> Tensor:
    """What the class means' error makes of z: gain (N, D) of whitened rows, known (D, D)."""
    return gain @ white(white(known).T) @ gain.T


def _scales(measurements: Sequence[Measurement]) -> Tensor:
    """Square root of each row's factor on the covariance, (D,)."""
    parts = [torch.full((w.per_image_values.shape[1],), w.scale**0.5) for w in measurements]
    return torch.cat(parts).double()


def _of_class_means(deviations: Tensor, amounts: Tensor) -> Tensor:
    """Covariance (D, D) of F z that comes from the finitely many auxiliary images behind F.

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
    """Covariance (D, D) of y - F z, for the rows of all witnesses together, none widened.

    of_means  (D, D) as `_of_class_means` has it
    amounts   (A,)   share of the client's labels that each image stands for
    """
    widths = [measurement.per_image_values.shape[1] for measurement in measurements]
    expand = _blocks([torch.ones(1, width) for width in widths])  # (W, D)
    uneven = expand.T @ _unevenness(measurements, sampling.batch) @ expand  # (D, D)
    # The client's images within their classes, and the auxiliary images behind the class means.
    drawn = (deviations * amounts[:, None]).T @ deviations
    # The labels: a witness that counts the steps unevenly sees other shares than the plain ones.
    mixed = means.T @ (torch.diag(shares) - torch.outer(shares, shares)) @ means
    noise = drawn * (1 / sampling.distinct + uneven) + of_means + mixed * uneven
    variances = noise.diagonal().clone()
    noise = noise * (1 - _SHRINK) + torch.diag(variances * _SHRINK)
    extra = _blocks([w.nuisance_directions @ w.nuisance_directions.T for w in measurements])
    # A factor on the covariance is not meant for the rounding of the files.
    spread = torch.cat([w.spread / w.scale for w in measurements])
    floor = _FLOOR * (variances.mean() + variances)
    return noise + extra + torch.diag(spread + floor)


def _root(noise: Tensor) -> Tensor:
    """Cholesky factor; rows that are one another's sums but for rounding get a little noise."""
    factor: Tensor = noise
    for floor in (0.0, 1e-9, 1e-6, 1e-3):
        extra = torch.diag(floor * noise.diagonal().clamp_min(noise.diagonal().mean() * floor))
        factor, failed = torch.linalg.cholesky_ex(noise + extra)
        if not int(failed):
            break
    return factor


def _blocks(parts: Sequence[Tensor]) -> Tensor:
    """Matrices along the diagonal of one, float64."""
    rows, columns = (sum(part.shape[axis] for part in parts) for axis in (0, 1))
    whole = torch.zeros(rows, columns, dtype=torch.float64)
    row = column = 0
    for part in parts:
        whole[row : row + part.shape[0], column : column + part.shape[1]] = part
        row, column = row + part.shape[0], column + part.shape[1]
    return whole


def _unevenness(measurements: Sequence[Measurement], batch: float) -> Tensor:
    """Σ_τ (w_τ - 1/m)(w'_τ - 1/m) / |B| of every pair of witnesses, (W, W)."""
    rows = [measurement.weights - 1 / len(measurement.weights) for measurement in measurements]
    table = [[float(a @ b) if len(a) == len(b) else 0.0 for b in rows] for a in rows]
    return torch.tensor(table, dtype=torch.float64) / batch


def estimate(columns: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Covariance of z on the plane Σz = 1, and of a free scale; and the gain: z = gain @ white y.

    columns  (D, N) whitened, or (D, N + 1) with the free column

    Directions of z that no row sees have a deviation of `_WIDEST`, not of 0.
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


def _misfit(
    measurements: Sequence[Measurement], noise: Tensor, residual: Tensor
) -> tuple[float, ...]:
    """Squared whitened residual per row of each witness, by itself and without its scale."""
    found, start = [], 0
    for measurement in measurements:
        end = start + measurement.per_image_values.shape[1]
        own, rows = noise[start:end, start:end] / measurement.scale, residual[start:end]
        found.append(float(rows @ torch.linalg.solve(own, rows)) / len(rows))
        start = end
    return tuple(found)
