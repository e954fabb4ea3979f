"""Label shares from a linear emulator fitted to virtual clients with known shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.numerics.fusion import estimate
from rlu_cli.numerics.simplex import mixture
from rlu_cli.types import Status

_SHRINK = 0.3  # of the covariance towards its diagonal
_ROUNDING = 1e-6  # least standard deviation of a row, relative to its largest entry
_RIDGE = 1e-3  # on the slope: the shares of some classes hardly vary between virtual clients
_LEAST = 1e-9  # least mean variance of the shares, in case all virtual clients have the same


@dataclass(frozen=True)
class EmulatorFit:
    """Solution of `emulate`.

    shares              (N,) z ≥ 0, summing to 1
    unconstrained       (N,) z without z ≥ 0, summing to 1
    covariance          (N, N) of the error of z on the plane Σz = 1, times the reduced chi-square
                        if that is above 1
    reduced_chi_square  squared whitened residual per row: about 1 for a client that resembles the
                        virtual ones
    status              of the least squares
    """

    shares: Tensor
    unconstrained: Tensor
    covariance: Tensor
    reduced_chi_square: float
    status: Status


def emulate(shares: Tensor, rows: Tensor, observed: Tensor, closeness: Tensor) -> EmulatorFit:
    """Label shares z of y = a + B z + noise, with a, B and the noise fitted to virtual clients.

    shares     (R, N) label shares of the virtual clients
    rows       (R, D) statistics of their updates, each column in any unit
    observed   (D,)   y, the same statistics of the client under study
    closeness  (R,)   regression weight of each virtual client, up to a factor

    a and B are weighted ridge regression. The noise is the weighted covariance of the residuals,
    shrunk towards its diagonal because there are fewer virtual clients than rows.
    """
    weights = closeness / closeness.sum()
    mean_z, mean_y = weights @ shares, weights @ rows
    dz, dy = shares - mean_z, rows - mean_y
    share_covariance = (dz * weights[:, None]).T @ dz
    ridge = _RIDGE * share_covariance.diagonal().mean().clamp_min(_LEAST)
    regularised = share_covariance + ridge * torch.eye(len(mean_z), dtype=torch.float64)
    slope = torch.linalg.solve(regularised, (dz * weights[:, None]).T @ dy)  # (N, D)
    residuals = dy - dz @ slope
    # Effective degrees of freedom after the slope, as a share of the sample.
    freedom = 1 - float((weights**2).sum()) * len(mean_z)
    noise = (residuals * weights[:, None]).T @ residuals / max(freedom, 0.1)
    sizes = rows.abs().amax(0).maximum(observed.abs())
    floor = (_ROUNDING * sizes.where(sizes > 0, torch.ones_like(sizes))) ** 2
    noise = noise * (1 - _SHRINK) + torch.diag(_SHRINK * noise.diagonal() + floor)
    root = torch.linalg.cholesky(noise)
    columns = torch.linalg.solve_triangular(root, (mean_y - mean_z @ slope + slope).T, upper=False)
    target = torch.linalg.solve_triangular(root, observed[:, None], upper=False)[:, 0]
    solution = mixture(columns, target)
    covariance, gain = estimate(columns, len(mean_z))
    uniform = torch.full_like(mean_z, 1 / len(mean_z))
    unconstrained = uniform + gain @ (target - columns @ uniform)
    reduced_chi_square = float(((target - columns @ solution.shares) ** 2).mean())
    return EmulatorFit(
        solution.shares,
        unconstrained,
        covariance * max(1.0, reduced_chi_square),
        reduced_chi_square,
        solution.status,
    )
