"""Shares, their noise and the progress along the line that agree with one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlu_cli.attacks.path import along, confidence_along, progress
from rlu_cli.attacks.witnesses import of_mean, of_update, sampling_of, with_slack
from rlu_cli.numerics.fusion import Fused, fuse
from rlu_cli.numerics.output_means import tilted
from rlu_cli.numerics.progress import even_weights
from rlu_cli.types import Evidence, Line

BIAS, WEIGHTS = "bias", "weights"  # names of witnesses; a BatchNorm layer has its own
_ROUNDS = 8  # of shares, noise and progress in turn
_ROUNDS_MORE = 2  # from a settled answer to that under another assumption
_WIDEST = 1e6  # factor on a covariance, so that numbers stay numbers


@dataclass(frozen=True)
class Assumed:
    """What is assumed of the client beyond its labels.

    tilt   β: its images are like auxiliary ones weighted by p_y^β, for they were trained on
    slack  standard deviation of the path's place on the line, as a part of the whole line
    """

    tilt: float = 0.0
    slack: float = 0.0


@dataclass(frozen=True)
class Settled:
    """Shares, noise and progress that agree under what was assumed.

    points  (S,) how much each point of the line counts
    names   of the witnesses
    """

    assumed: Assumed
    fused: Fused
    points: Tensor
    names: tuple[str, ...]

    @property
    def misfit(self) -> dict[str, float]:
        """Of every witness by its name."""
        return dict(zip(self.names, self.fused.misfit, strict=True))


def settle(
    evidence: Evidence,
    line: Line,
    directions: Tensor,
    assumed: Assumed,
    near: Settled | None = None,
) -> Settled:
    """Shares, their noise and the progress along the line, each from the last of the others.

    near  a settled answer to start from, which takes fewer rounds
    """
    labels = line.outputs[0].labels.cpu()
    importance = tilted(line.outputs[0], assumed.tilt)
    confidence = confidence_along(line, importance)
    shares, points = (near.fused.shares, near.points) if near else _start(evidence, line)
    names = [BIAS] * evidence.linear + [WEIGHTS] * bool(directions.shape[1])
    names += [mean.layer for mean in line.means]
    scales = _widened(names, near.fused.misfit) if near else [1.0] * len(names)
    fused: Fused | None = None
    for _ in range(_ROUNDS_MORE if near else _ROUNDS):
        witnesses = of_update(evidence, line, points, directions) if evidence.linear else []
        if assumed.slack:
            witnesses[0] = with_slack(witnesses[0], line, assumed.slack * shares, importance)
        witnesses += [of_mean(mean, points, labels, shares, importance) for mean in line.means]
        scaled = [replace(w, scale=scale) for w, scale in zip(witnesses, scales, strict=True)]
        fused = fuse(scaled, labels, shares, sampling_of(evidence), importance)
        shares = fused.shares
        scales = _widened(names, fused.misfit)
        if evidence.linear:
            points = progress(evidence, line, shares, confidence)
    assert fused is not None
    return Settled(assumed, fused, points, tuple(names))


def _widened(names: Sequence[str], misfit: Sequence[float]) -> list[float]:
    """The factor on the covariance of each witness, by its last misfit.

    The bias is the anchor: its N rows for N unknowns leave no misfit to judge it by.
    """
    return [
        1.0 if name == BIAS else min(max(1.0, found), _WIDEST)
        for name, found in zip(names, misfit, strict=True)
    ]


def _start(evidence: Evidence, line: Line) -> tuple[Tensor, Tensor]:
    """First shares and weights of the points: from the bias update, where it can be read."""
    if evidence.linear and evidence.rated:
        found = along(evidence, line)
        return found.solution.shares, found.points
    even = torch.full((evidence.classes,), 1 / evidence.classes, dtype=torch.float64)
    return even, even_weights(line.points, evidence.steps)
