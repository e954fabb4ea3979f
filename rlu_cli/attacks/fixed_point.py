"""Shares, their noise and the progress along the line that agree with one another."""

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

BIAS, WEIGHTS = "bias", "weights"  # names of witnesses; a BatchNorm layer has its own
_MAX_ITERATIONS = 8  # of shares, noise and progress in turn
_MAX_ITERATIONS_NEAR = 2  # from a settled answer to that under another assumption
_WIDEST = 1e6  # factor on a covariance, so that numbers stay numbers


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of the client beyond its labels.

    tilt   β: its images are like auxiliary ones weighted by p_y^β, for they were trained on
    slack  standard deviation of the path's place on the line, as a part of the whole line
    """

    tilt: float = 0.0
    path_position_std: float = 0.0


@dataclass(frozen=True)
class FixedPoint:
    """Shares, noise and progress that agree under what was assumed.

    points  (S,) how much each point of the line counts
    names   of the witnesses
    """

    assumed: Assumptions
    fused: Fused
    points: Tensor
    names: tuple[str, ...]

    @property
    def reduced_chi_square(self) -> dict[str, float]:
        """Of every witness by its name."""
        return dict(zip(self.names, self.fused.reduced_chi_square, strict=True))


def solve_fixed_point(
    evidence: Evidence,
    interpolation: Interpolation,
    directions: Tensor,
    assumed: Assumptions,
    near: FixedPoint | None = None,
) -> FixedPoint:
    """Shares, their noise and the progress along the line, each from the last of the others.

    near  a settled answer to start from, which takes fewer rounds
    """
    labels = interpolation.outputs[0].labels.cpu()
    importance = tilted(interpolation.outputs[0], assumed.tilt)
    confidence = confidence_along(interpolation, importance)
    shares, points = (near.fused.shares, near.points) if near else _start(evidence, interpolation)
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
        scaled = [replace(w, scale=scale) for w, scale in zip(measurements, scales, strict=True)]
        fused = fuse(scaled, labels, shares, sampling_of(evidence), importance)
        shares = fused.shares
        scales = _variance_inflation(names, fused.reduced_chi_square)
        if evidence.linear:
            points = progress(evidence, interpolation, shares, confidence)
    assert fused is not None
    return FixedPoint(assumed, fused, points, tuple(names))


def _variance_inflation(names: Sequence[str], reduced_chi_square: Sequence[float]) -> list[float]:
    """The factor on the covariance of each witness, by its last misfit.

    The bias is the anchor: its N rows for N unknowns leave no misfit to judge it by.
    """
    return [
        1.0 if name == BIAS else min(max(1.0, found), _WIDEST)
        for name, found in zip(names, reduced_chi_square, strict=True)
    ]


def _start(evidence: Evidence, interpolation: Interpolation) -> tuple[Tensor, Tensor]:
    """First shares and weights of the points: from the bias update, where it can be read."""
    if evidence.linear and evidence.lr_known:
        found = along(evidence, interpolation)
        return found.solution.shares, found.points
    even = torch.full((evidence.classes,), 1 / evidence.classes, dtype=torch.float64)
    return even, even_weights(interpolation.points, evidence.steps)
