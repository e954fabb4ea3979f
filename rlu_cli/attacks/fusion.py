"""Bias update and BatchNorm buffers together: two witnesses of the same labels.

Not in the paper. On a trained model the bias update vanishes and its small errors are blown up; the
running means of the BatchNorm layers tell the mean input of the client's own batches, which a
trained model separates by class all the better. They owe nothing to learning rate or optimiser, so
that they answer alone where the bias update cannot be read, and tell the rate where it is unknown.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.method import LINE, Method
from rlu_cli.attacks.path import along, line_of, path, progress
from rlu_cli.numerics.fusion import Fused, Sampling, Witness, fuse
from rlu_cli.numerics.output_means import class_confidence, class_means, probabilities
from rlu_cli.numerics.progress import even_weights
from rlu_cli.types import BatchMean, Evidence, Line, Recovery

_ROUNDS = 8  # of shares, noise and progress in turn
_USUAL_BATCH = 64  # where |B| is not known: it sets the noise, not the answer


def fusion(evidence: Evidence) -> Recovery:
    """Shares z that explain the bias update and the recovered BatchNorm means, each by its noise.

    Rows: e_y - p, whose mean over the client's images is u, and the mean inputs of the last
    BatchNorm layer; both averaged over the points of the line. `numerics.fusion` counts the noise.
    A layer whose rows fit worse than their noise allows is widened by the square of that.

    Without a learning rate u is known up to a factor 1/η, which is found as well; of a client that
    is not linear in its gradients the BatchNorm means are read alone.
    """
    line = line_of(evidence)
    if not line.means:
        return replace(path(evidence), notes=line.notes)
    fused, points = _settle(evidence, line)
    answer = shared(
        evidence,
        fused.shares,
        fused.status,
        point_weights=points.tolist(),
        batchnorm_layers=[mean.layer for mean in line.means],
        batchnorm_misfit=list(fused.misfit[-len(line.means) :]),
    )
    return replace(answer, covariance=fused.covariance, lr=_rate(fused))


def _rate(fused: Fused) -> tuple[float, float] | None:
    """η and its standard deviation, from 1/η and its own."""
    if fused.factor is None or fused.factor[0] <= 0:
        return None
    inverse, error = fused.factor
    return 1 / inverse, error / inverse**2


def _settle(evidence: Evidence, line: Line) -> tuple[Fused, Tensor]:
    """Shares, their noise and the progress along the line, each from the last of the others."""
    labels = line.outputs[0].labels.cpu()
    confidence = torch.stack([class_confidence(seen) for seen in line.outputs])
    shares, points = _start(evidence, line)
    scales = [1.0] * len(line.means)
    fused: Fused | None = None
    for _ in range(_ROUNDS):
        witnesses = [_bias(evidence, line, points)] if evidence.linear else []
        pairs = zip(line.means, scales, strict=True)
        witnesses += [_batch_mean(m, points, labels, shares, scale) for m, scale in pairs]
        fused = fuse(witnesses, labels, shares, _sampling(evidence))
        shares = fused.shares
        scales = [max(1.0, misfit) for misfit in fused.misfit[-len(scales) :]]
        if evidence.linear:
            points = progress(evidence, line, shares, confidence)
    assert fused is not None
    return fused, points


def _start(evidence: Evidence, line: Line) -> tuple[Tensor, Tensor]:
    """First shares and weights of the points: from the bias update, where it can be read."""
    if evidence.linear and evidence.rated:
        found = along(evidence, line)
        return found.solution.shares, found.points
    even = torch.full((evidence.classes,), 1 / evidence.classes, dtype=torch.float64)
    return even, even_weights(line.points, evidence.steps)


def _bias(evidence: Evidence, line: Line, points: Tensor) -> Witness:
    """u, and e_y - p of every image; with label smoothing e_y is smoothed too."""
    labels = line.outputs[0].labels.cpu()
    classes = evidence.classes
    hot = torch.nn.functional.one_hot(labels, classes).double()
    hot = hot * (1 - evidence.smoothing) + evidence.smoothing / classes
    expected = sum(
        (w * probabilities(seen) for w, seen in zip(points, line.outputs, strict=True)),
        torch.zeros_like(hot),
    )
    rho = evidence.weights[-1].double().cpu()
    nothing = torch.zeros(classes, dtype=torch.float64)
    return Witness(
        observed=evidence.signal.double().cpu(),
        figures=hot - expected,
        weights=rho / rho.sum(),
        spread=nothing,
        drift=nothing[:, None],
        free=not evidence.rated,
    )


def _batch_mean(
    mean: BatchMean, points: Tensor, labels: Tensor, shares: Tensor, scale: float
) -> Witness:
    """The recovered mean input of one layer; it may be off by its own drift over the round."""
    figures = sum(
        (w * seen.double().cpu() for w, seen in zip(points, mean.inputs, strict=True)),
        torch.zeros(mean.inputs[0].shape, dtype=torch.float64),
    )
    change = (mean.inputs[-1] - mean.inputs[0]).double().cpu()
    drift = shares @ class_means(change, labels, len(shares))
    return Witness(mean.mean, figures, mean.weights, mean.rounding**2, drift[:, None], scale)


def _sampling(evidence: Evidence) -> Sampling:
    sizes = evidence.batch_sizes or (_USUAL_BATCH,) * evidence.steps
    return Sampling(sum(sizes) / len(sizes), sum(sizes) / evidence.passes)


METHOD = Method(
    title="fusion",
    paper="rlu, docs/method.md",
    build=lambda options: fusion,
    auxiliary=True,
    needs=frozenset({LINE}),
    any_optimiser=True,
    any_rate=True,
)
