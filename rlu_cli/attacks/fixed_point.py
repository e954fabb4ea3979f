"""Fixed point of the shares, their noise covariance and the weights of the interpolation points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlu_cli.attacks.measurements import of_mean, of_update, sampling_of, with_path_position_std
from rlu_cli.attacks.path import along, confidence_along, progress
from rlu_cli.numerics.fusion import Fused, fuse
from rlu_cli.numerics.output_means import tilted
from rlu_cli.numerics.progress import even_weights
from rlu_cli.types import Evidence, Interpolation

BIAS, WEIGHTS = "bias", "weights"  # names of measurements; others are named after their layer
_MAX_ITERATIONS = 8
_MAX_ITERATIONS_NEAR = 2  # from the fixed point under other assumptions
_MAX_INFLATION = 1e6  # largest variance inflation, against overflow


@dataclass(frozen=True)
class Assumptions:
    """Assumptions about the client besides its labels.

    tilt               β: its images, which the model was trained on, resemble auxiliary images
                       weighted by p_y^β
    path_position_std  standard deviation of the path position, as a fraction of the line from the
                       global to the client's model
    """

    tilt: float = 0.0
    path_position_std: float = 0.0


@dataclass(frozen=True)
class FixedPoint:
    """Solution under given assumptions.

    assumed  the assumptions
    fused    shares with their errors
    points   (S,) weights of the interpolation points, summing to 1
    names    of the measurements
    """

    assumed: Assumptions
    fused: Fused
    points: Tensor
    names: tuple[str, ...]

    @property
    def reduced_chi_square(self) -> dict[str, float]:
        """Reduced chi-square of every measurement by its name."""
        return dict(zip(self.names, self.fused.reduced_chi_square, strict=True))


def solve_fixed_point(
    evidence: Evidence,
    interpolation: Interpolation,
    directions: Tensor,
    assumed: Assumptions,
    near: FixedPoint | None = None,
) -> FixedPoint:
    """Iterate shares z, their noise covariance and the weights of the interpolation points.

    directions  V (L, r) of the embedding along which the weight update is used; r may be 0
    assumed     tilt and standard deviation of the path position
    near        solution under other assumptions to start from, which takes fewer iterations; None
                for a cold start
    """
    labels = interpolation.outputs[0].labels.cpu()
    importance = tilted(interpolation.outputs[0], assumed.tilt)
    confidence = confidence_along(interpolation, importance)
    shares, points = (near.fused.shares, near.points) if near else start(evidence, interpolation)
    names = [BIAS] * evidence.linear + [WEIGHTS] * bool(directions.shape[1])
    names += [mean.layer for mean in interpolation.means]
    scales = (
        _variance_inflation(names, near.fused.reduced_chi_square) if near else [1.0] * len(names)
    )
    fused: Fused | None = None
    for _ in range(_MAX_ITERATIONS_NEAR if near else _MAX_ITERATIONS):
        measurements = (
            of_update(evidence, interpolation, points, directions) if evidence.linear else []
        )
        if assumed.path_position_std:
            measurements[0] = with_path_position_std(
                measurements[0], interpolation, assumed.path_position_std * shares, importance
            )
        measurements += [
            of_mean(mean, points, labels, shares, importance) for mean in interpolation.means
        ]
        scaled = [
            replace(one, scale=scale) for one, scale in zip(measurements, scales, strict=True)
        ]
        fused = fuse(scaled, labels, shares, sampling_of(evidence), importance)
        shares = fused.shares
        scales = _variance_inflation(names, fused.reduced_chi_square)
        if evidence.linear:
            points = progress(evidence, interpolation, shares, confidence)
    assert fused is not None
    return FixedPoint(assumed, fused, points, tuple(names))


def _variance_inflation(names: Sequence[str], reduced_chi_square: Sequence[float]) -> list[float]:
    """Variance inflation of each measurement from its last reduced chi-square, at least 1.

    The bias is never inflated: its N rows for N unknowns leave no residual to test it by.
    """
    return [
        1.0 if name == BIAS else min(max(1.0, value), _MAX_INFLATION)
        for name, value in zip(names, reduced_chi_square, strict=True)
    ]


def start(evidence: Evidence, interpolation: Interpolation) -> tuple[Tensor, Tensor]:
    """Initial shares (N,) and point weights (S,): from the bias update if usable, else uniform."""
    if evidence.linear and evidence.lr_known:
        found = along(evidence, interpolation)
        return found.solution.shares, found.points
    uniform = torch.full((evidence.classes,), 1 / evidence.classes, dtype=torch.float64)
    return uniform, even_weights(interpolation.points, evidence.steps)
