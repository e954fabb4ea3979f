"""Label shares by comparison with virtual clients whose shares are known: a linear emulator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.numerics.fusion import estimate
from rlu_cli.numerics.simplex import mixture
from rlu_cli.types import Status

_SHRINK = 0.3  # of the covariance towards its diagonal
_ROUNDING = 1e-6  # of a row's largest entry, against rows that do not vary
_RIDGE = 1e-3  # of the slope, for classes that the virtual clients' shares hardly vary in
_LEAST = 1e-9  # of it, where all virtual clients have the same shares


@dataclass(frozen=True)
class EmulatorFit:
    """Shares whose virtual client would hand in what the client handed in.

    shares      (N,) z
    unbounded   (N,) the same without z ≥ 0
    covariance  (N, N) of z on the plane Σz = 1
    misfit      squared whitened residual per row: about 1 for a client that is like a virtual one
    """

    shares: Tensor
    unconstrained: Tensor
    covariance: Tensor
    reduced_chi_square: float
    status: Status


def emulate(shares: Tensor, rows: Tensor, observed: Tensor, closeness: Tensor) -> EmulatorFit:
    """z of observed = a + B z + noise, with a, B and the noise from virtual clients.

    shares     (R, N) of the virtual clients
    rows       (R, D) what each handed in
    observed   (D,)   what the client under study handed in
    closeness  (R,)   weight of each virtual client, up to a factor: B is the slope where they are

    The noise is the weighted covariance of the residuals, shrunk towards its diagonal: there are
    fewer virtual clients than rows. Rows in any units.
    """
    weights = closeness / closeness.sum()
    centre, middle = weights @ shares, weights @ rows
    around, moved = shares - centre, rows - middle
    spread = (around * weights[:, None]).T @ around
    ridge = _RIDGE * spread.diagonal().mean().clamp_min(_LEAST)
    held = spread + ridge * torch.eye(len(centre), dtype=torch.float64)
    slope = torch.linalg.solve(held, (around * weights[:, None]).T @ moved)  # (N, D)
    residuals = moved - around @ slope
    left = 1 - float((weights**2).sum()) * len(centre)  # share of freedom that the slope leaves
    noise = (residuals * weights[:, None]).T @ residuals / max(left, 0.1)
    sizes = rows.abs().amax(0).maximum(observed.abs())
    floor = (_ROUNDING * sizes.where(sizes > 0, torch.ones_like(sizes))) ** 2
    noise = noise * (1 - _SHRINK) + torch.diag(_SHRINK * noise.diagonal() + floor)
    root = torch.linalg.cholesky(noise)
    columns = torch.linalg.solve_triangular(root, (middle - centre @ slope + slope).T, upper=False)
    seen = torch.linalg.solve_triangular(root, observed[:, None], upper=False)[:, 0]
    found = mixture(columns, seen)
    covariance, gain = estimate(columns, len(centre))
    even = torch.full_like(centre, 1 / len(centre))
    unconstrained = even + gain @ (seen - columns @ even)
    reduced_chi_square = float(((seen - columns @ found.shares) ** 2).mean())
    return EmulatorFit(
        found.shares,
        unconstrained,
        covariance * max(1.0, reduced_chi_square),
        reduced_chi_square,
        found.status,
    )
