"""Label shares from one averaged bias update: least squares on the simplex (Eq. 10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from rlu_cli.types import Status

_SUM_ROW = 1e3  # weight of the row Σz = 1, relative to the largest entry of A

_TINY = 1e-12  # relative jitter of a covariance


@dataclass(frozen=True)
class Shares:
    """Solution z of the constrained least squares.

    shares     (N,) float64, ≥ 0, summing to 1
    residual   ‖A z - u‖ / ‖u‖, infinite if u = 0
    condition  condition number of A on the plane Σδz = 0: bound on the amplification of a relative
               error of u
    status     SOLVED, or UNSOLVED with uniform shares
    scale      a ≥ 0 of the column of unknown scale; None without one
    """

    shares: Tensor
    residual: float
    condition: float
    status: Status
    scale: float | None = None


def coefficients(confidence: Tensor, smoothing: float = 0.0) -> Tensor:
    """A = I - Sᵀ, (N, N): u = A z exactly, by Eq. 9 with the diagonal kept.

    confidence  (N, N)  S[n, j]: mean softmax of class j on samples of true class n
    smoothing   ε of label smoothing: I becomes (1 - ε) I + ε/N, which is exact because Σz = 1

    Paper note: Eq. 10 and Algorithm 1 print the transpose, a_{n,j} = -S_{n,j}. Eq. 9 needs I - Sᵀ;
    the two agree only while S is symmetric, as on an untrained model.
    """
    classes = len(confidence)
    labels = torch.eye(classes, dtype=confidence.dtype) * (1 - smoothing) + smoothing / classes
    return labels - confidence.T


def label_shares(confidence: Tensor, signal: Tensor, smoothing: float = 0.0) -> Shares:
    """Label shares z of one averaged bias update u: min ‖A z - u‖, z ≥ 0, Σz = 1, A = I - Sᵀ.

    confidence  (N, N)  S[n, j]
    signal      (N,)    u: bias update per step, gradient-free offset and Σρ removed
    smoothing   ε of label smoothing in the client's loss

    The columns of A sum to 0, so A has rank N - 1 at most. Σz = 1 is an additional row of large
    weight. If the solver fails or A = 0, the status is UNSOLVED and the shares are uniform.
    """
    return mixture(coefficients(confidence.double().cpu(), smoothing), signal)


def mixture(columns: Tensor, signal: Tensor, free: Tensor | None = None) -> Shares:
    """Shares z of the columns in a mixture u: min ‖A z + a f - u‖, z ≥ 0, Σz = 1.

    columns  (M, N)  A
    signal   (M,)    u
    free     (M,)    f, a column of unknown scale a ≥ 0, which is estimated too; None for none
    """
    matrix, target = columns.double().cpu().numpy(), signal.double().cpu().numpy()
    classes = matrix.shape[1]
    if free is not None:
        matrix = np.column_stack([matrix, free.double().cpu().numpy()])
    solution = _on_simplex(matrix, target, classes)
    status = Status.UNSOLVED if solution is None else Status.SOLVED
    if solution is None:
        solution = np.append(np.full(classes, 1 / classes), np.zeros(matrix.shape[1] - classes))
    size = float(np.linalg.norm(target))
    miss = float(np.linalg.norm(matrix @ solution - target))
    residual = miss / size if size else float("inf")
    scale = None if free is None else float(solution[classes])
    shares = torch.from_numpy(solution[:classes])
    return Shares(shares, residual, _condition(matrix[:, :classes]), status, scale)


def nearest_shares(centre: Tensor, covariance: Tensor) -> Tensor:
    """Shares z ≥ 0, Σz = 1, nearest to `centre` in units of its error, (N,).

    centre      (N,)    summing to 1
    covariance  (N, N)  of its error on the plane Σz = 1
    """
    classes = len(centre)
    centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
    plane = torch.linalg.qr(centring[:, 1:])[0]
    inside = plane.T @ covariance @ plane
    root = torch.linalg.cholesky(inside + torch.eye(classes - 1) * _TINY * inside.diagonal().mean())
    columns = torch.linalg.solve_triangular(root, plane.T, upper=False)
    return mixture(columns, columns @ centre).shares


def cone(columns: Tensor, signal: Tensor) -> Tensor | None:
    """Amounts w of min ‖A w - u‖, w ≥ 0, without a constraint on Σw; None if unsolved or 0.

    columns  (M, N)  A
    signal   (M,)    u
    """
    try:
        solution, _ = nnls(columns.double().cpu().numpy(), signal.double().cpu().numpy())
    except (RuntimeError, ValueError, np.linalg.LinAlgError):
        return None
    return torch.from_numpy(solution) if solution.sum() > 0 else None


def _on_simplex(
    matrix: NDArray[np.float64], target: NDArray[np.float64], classes: int
) -> NDArray[np.float64] | None:
    """z of min ‖A z - u‖, z ≥ 0, Σz = 1 over the first `classes` columns; None if unsolved."""
    weight = _SUM_ROW * np.abs(matrix).max()
    summed = np.where(np.arange(matrix.shape[1]) < classes, weight, 0.0)
    try:
        solution, _ = nnls(np.vstack([matrix, summed]), np.append(target, weight))
    except (RuntimeError, ValueError, np.linalg.LinAlgError):
        return None
    total = solution[:classes].sum()
    if not matrix.any() or not total > 0:
        return None
    solution[:classes] /= total
    return np.asarray(solution)


def _condition(matrix: NDArray[np.float64]) -> float:
    """Condition number of A on the plane Σz = 0."""
    size = matrix.shape[1]
    plane = np.eye(size) - 1.0 / size
    try:
        singular = np.linalg.svd(matrix @ plane, compute_uv=False)
    except np.linalg.LinAlgError:
        return float("inf")
    smallest = float(singular[size - 2]) if size > 1 else 0.0
    return float(singular[0]) / smallest if smallest > 0 else float("inf")
