"""Label shares from several measurements y = F z + noise: generalised least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.numerics.measurement import Measurement, Rows, Sampling, blocks, join_rows
from rlu_cli.numerics.simplex import cone, mixture
from rlu_cli.types import Status

_WIDEST = 1.0  # standard deviation of an unidentifiable share: it lies within 0…1


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
    rows = join_rows(measurements, labels, shares, sampling, importance)
    if all(measurement.unknown_scale for measurement in measurements):
        return _up_to_scale(rows)
    classes, has_unknown_scale = len(shares), bool(rows.unknown.any())
    columns, scale_column = rows.white(rows.means.T), rows.white(-rows.unknown[:, None])
    solution = mixture(
        columns,
        rows.white(rows.fixed[:, None])[:, 0],
        scale_column[:, 0] if has_unknown_scale else None,
    )
    scale = solution.scale or 0.0
    covariance, gain = estimate(
        torch.cat([columns, scale_column], 1) if has_unknown_scale else columns, classes
    )
    error = float(covariance[-1, -1].clamp_min(0).sqrt())  # of the scale, where there is one
    residual = rows.fixed + scale * rows.unknown - rows.means.T @ solution.shares
    jacobian = 2 * len(rows.unknown.nonzero()) * math.log(scale) if scale else 0.0
    uniform = torch.full((classes,), 1 / classes, dtype=torch.float64)
    shift = gain[:classes] @ rows.white((rows.fixed - rows.means.T @ uniform)[:, None])[:, 0]
    return Fused(
        shares=solution.shares,
        unconstrained=uniform + shift,
        covariance=covariance[:classes, :classes],
        shared_covariance=_shared_covariance(gain[:classes], rows),
        reduced_chi_square=_reduced_chi_square(rows, residual),
        factor=(scale, error) if has_unknown_scale else None,
        minus_two_log_likelihood=rows.minus_two_log_likelihood(residual) - jacobian,
        status=solution.status,
    )


def _up_to_scale(rows: Rows) -> Fused:
    """Shares when all rows share one unknown factor: y = F w, w ≥ 0, z = w / Σw.

    Needs more rows than classes: the rows e_y - p alone vanish for some mixture z, so that adding
    any multiple of it to w changes nothing.
    """
    columns, observed = rows.white(rows.means.T), rows.white(rows.unknown[:, None])[:, 0]
    amounts = cone(columns, observed)
    classes = len(rows.means)
    if amounts is None:
        return _unsolved(classes, len(rows.measurements))
    total = float(amounts.sum())
    shares = amounts / total
    bound = torch.eye(classes, dtype=torch.float64) / (_WIDEST * total) ** 2
    error: Tensor = torch.linalg.pinv(columns.T @ columns + bound, hermitian=True)  # of w
    centring = torch.eye(classes, dtype=torch.float64) - shares[:, None]  # dz = (I - z 1ᵀ) dw / Σw
    shift = error @ columns.T @ observed - amounts
    residual = rows.unknown - rows.means.T @ amounts
    return Fused(
        shares=shares,
        unconstrained=shares + centring @ shift / total,
        covariance=centring @ error @ centring.T / total**2,
        shared_covariance=_shared_covariance(centring @ error @ columns.T / total, rows),
        reduced_chi_square=_reduced_chi_square(rows, residual),
        factor=(1 / total, float(error.sum().clamp_min(0).sqrt()) / total**2),
        minus_two_log_likelihood=rows.minus_two_log_likelihood(residual),
        status=Status.SOLVED,
    )


def _unsolved(classes: int, measurements: int) -> Fused:
    """Uniform shares with an error as large as they can have."""
    uniform = torch.full((classes,), 1 / classes, dtype=torch.float64)
    no_information = torch.eye(classes).double()
    return Fused(
        shares=uniform,
        unconstrained=uniform,
        covariance=no_information,
        shared_covariance=torch.zeros_like(no_information),
        reduced_chi_square=(math.inf,) * measurements,
        factor=None,
        minus_two_log_likelihood=math.inf,
        status=Status.UNSOLVED,
    )


def _shared_covariance(gain: Tensor, rows: Rows) -> Tensor:
    """Covariance (N, N) of z due to the error of the class means.

    gain  (N, D) from whitened rows to z
    """
    return gain @ rows.white(rows.white(rows.of_means).T) @ gain.T


def estimate(columns: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Covariance of the least-squares z on the plane Σz = 1, and its gain: δz = gain @ whitened δy.

    columns  (D, N) whitened A; (D, N + 1) with a column of unknown scale, whose scale is then the
             last entry of both results

    Directions of z that no row depends on get a standard deviation of 1 instead of infinity.
    """
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    plane: Tensor = torch.linalg.qr(centred[:, 1:])[0]  # (N, N - 1), spans Σ = 0
    basis = blocks([plane, torch.eye(columns.shape[1] - classes)])
    inside = columns @ basis
    information = inside.T @ inside
    information.diagonal()[: classes - 1] += _WIDEST**-2
    inverse: Tensor = torch.linalg.pinv(information, hermitian=True)
    whole = basis @ inverse @ basis.T
    return whole, whole @ columns.T


def _reduced_chi_square(rows: Rows, residual: Tensor) -> tuple[float, ...]:
    """Squared whitened residual per row of each measurement, on its own and without inflation."""
    values, start = [], 0
    for measurement in rows.measurements:
        end = start + measurement.per_image_values.shape[1]
        own, part = rows.noise[start:end, start:end] / measurement.scale, residual[start:end]
        values.append(float(part @ torch.linalg.solve(own, part)) / len(part))
        start = end
    return tuple(values)
