"""Bias, weights and BatchNorm buffers together: three witnesses of the same labels.

Not in the paper. On a trained model the bias update vanishes and its small errors are blown up.
What else the files hold:

- the update of the weights, along the directions in which the classes' embeddings differ. It has
  more rows than there are classes, and so tells the *scale* of the errors too: a client's images
  were trained on, the server's were not, and their errors are larger by a common factor;
- the running means of the BatchNorm layers: the mean input of the client's own batches, which a
  trained model separates by class all the better. They owe nothing to learning rate or optimiser,
  so that they answer alone where the update cannot be read, and tell the rate where it is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from itertools import product

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.method import LINE, Method, learned_something
from rlu_cli.attacks.path import along, confidence_along, line_of, path
from rlu_cli.attacks.settle import BIAS, WEIGHTS, Assumed, Settled, settle
from rlu_cli.attacks.witnesses import directions_of
from rlu_cli.numerics.fusion import Fused
from rlu_cli.numerics.posterior import posterior_mean
from rlu_cli.numerics.progress import even_weights
from rlu_cli.numerics.simplex import coefficients, mixture
from rlu_cli.types import Evidence, Line, Recovery

_TILTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)
_SLACKS = (0.0, 0.1, 0.3)
_COARSE = 4  # where there are many rows, only every fourth tilt is tried
_MANY = 1_000
_PARTS = 4  # of the exponent that a training accuracy makes, where one is told
_LOST = 10.0  # misfit from which on a witness says nothing of how far another is off
_LOOKS_MORE = 2  # at images of another kind, each from the last answer
_ANOTHER_KIND = (
    "the auxiliary images look to be of another kind than the client's: every BatchNorm layer "
    "normalises them with their own statistics, weighted to the shares found; images like the "
    "client's would tell more"
)
_DROPPED = (
    "the weights' update does not fit what the images predict, as when the embedding moves fast: "
    "the answer is that of the bias along the path"
)


def fusion(evidence: Evidence) -> Recovery:
    """Shares z that explain the update's bias and weights and the BatchNorm means, by their noise.

    Rows: e_y - p, whose mean over the client's images is u; (e_y - p) eᵀV along directions V of
    the embedding; the mean inputs of the last BatchNorm layer; all averaged over the points of the
    line. `numerics.fusion` counts the noise. A witness whose rows fit worse than their noise
    allows is widened by the square of that.

    On a trained model the client's images, which were trained on, have smaller errors and lie
    further apart than the server's. With BatchNorm means that is a weighting p_y^β of the auxiliary
    images, and the answer the mean over β by likelihood; without them the update's rows are known
    up to a positive factor, which is found as well. A rate that nobody told is such a factor too.
    Of a client that is not linear in its gradients the BatchNorm means are read alone.

    Of a trained model the mean of all shares that the error allows is reported, of an untrained one
    with BatchNorm the middle of this answer and that of `path`.
    """
    line = _in_double(line_of(evidence))
    directions = directions_of(evidence, line)
    if not line.means and not evidence.linear:  # nothing is left to read
        return shared(evidence, torch.zeros(evidence.classes), notes=line.notes)
    if not line.means and not (directions.shape[1] and learned_something(evidence)):
        return replace(path(evidence), notes=line.notes)
    settled, line = _looked_again(evidence, line, _expected(evidence, line, directions))
    fused, misfit = settled.fused, settled.misfit
    if misfit.get(WEIGHTS, 0.0) > _LOST:
        return replace(path(evidence), notes=(*line.notes, _DROPPED))
    # Without BatchNorm means the bias shares the weights' errors, but has no rows to spare that
    # would show them; beside the means its own misfit shows how far the two disagree.
    judge = BIAS if line.means and learned_something(evidence) else WEIGHTS
    widening = max(1.0, misfit.get(judge, 1.0))
    covariance = fused.covariance * widening
    shares = _to_expect(evidence, fused, covariance)
    answer = shared(
        evidence,
        shares,
        fused.status,
        notes=line.notes,
        point_weights=settled.points.tolist(),
        misfit=misfit,
        tilt=settled.assumed.tilt,
        path_slack=settled.assumed.slack,
        error_ratio=_error_ratio(evidence, fused),
    )
    rate = None if evidence.rated else _rate(fused, widening)
    return replace(
        answer,
        unbounded=fused.unbounded,
        covariance=covariance,
        common=fused.common,
        lr=rate,
    )


def _looked_again(evidence: Evidence, line: Line, settled: Settled) -> tuple[Settled, Line]:
    """The answer under the statistics of the auxiliary images themselves where it is likelier.

    Tried where the BatchNorm means of a trained model do not fit at all, as when the images are of
    another kind than the client's: normalised with its statistics they look like no images that
    the model knows. What the last look changed is in its error.
    """
    untold = not line.means or evidence.again is None or not learned_something(evidence)
    if untold or _worst(line, settled) <= _LOST:
        return settled, line
    assert evidence.again is not None
    for look in range(_LOOKS_MORE):
        seen = evidence.again(settled.fused.shares)
        if seen is None:
            break
        seen = replace(_in_double(seen), notes=(_ANOTHER_KIND,))
        other = _expected(evidence, seen, directions_of(evidence, seen))
        if other.fused.surprise >= settled.fused.surprise:
            break
        # The first look was at other statistics: how far it was off tells nothing of this one.
        apart = (other.fused.shares - settled.fused.shares) * (look > 0)
        covariance = other.fused.covariance + torch.outer(apart, apart)
        settled, line = replace(other, fused=replace(other.fused, covariance=covariance)), seen
    return settled, line


def _worst(line: Line, settled: Settled) -> float:
    """The largest misfit of the BatchNorm means."""
    return max(settled.misfit[mean.layer] for mean in line.means)


def _in_double(line: Line) -> Line:
    """The line's logits and layer inputs as float64 on the CPU, once for all rounds."""
    means = (
        replace(mean, inputs=tuple(seen.double().cpu() for seen in mean.inputs))
        for mean in line.means
    )
    outputs = (replace(seen, logits=seen.logits.double().cpu()) for seen in line.outputs)
    return replace(line, outputs=tuple(outputs), means=tuple(means))


def _to_expect(evidence: Evidence, fused: Fused, covariance: Tensor) -> Tensor:
    """The shares to report: of a trained model the mean of all that the error allows.

    Of an untrained one the error is a distance, and no distribution of shares.
    """
    mean = posterior_mean(fused.unbounded, covariance) if learned_something(evidence) else None
    return fused.shares if mean is None else mean


def _error_ratio(evidence: Evidence, fused: Fused) -> float | None:
    """The client's errors over the server's, where the factor between them was found."""
    known = evidence.rated and fused.factor is not None and fused.factor[0] > 0
    return 1 / fused.factor[0] if known and fused.factor is not None else None


def _rate(fused: Fused, widening: float) -> tuple[float, float] | None:
    """η and its standard deviation, from 1/η and its own.

    widening  factor on the variance
    """
    if fused.factor is None or fused.factor[0] <= 0:
        return None
    inverse, error = fused.factor
    return 1 / inverse, error * widening**0.5 / inverse**2


def _expected(evidence: Evidence, line: Line, directions: Tensor) -> Settled:
    """The mean answer over `_assumptions` by their likelihood, its error with what they disagree.

    Slack makes the bias say less, and must be worth log D for D rows (Schwarz's criterion).
    BatchNorm means that fit worse than their noise allows make all differences smaller, by their
    misfit (quasi-likelihood).
    """
    plain = settle(evidence, line, directions, Assumed())
    if evidence.tilt and not line.means:
        return _averaged(evidence, line, directions, plain)
    others = [
        settle(evidence, line, directions, assumed, near=plain)
        for assumed in _assumptions(evidence, line, plain)
    ]
    if not others:
        return _halfway(evidence, line, plain)
    settled = [plain, *others]
    price = math.log(evidence.classes + sum(len(mean.mean) for mean in line.means))
    paid = [price * (one.assumed.slack > 0) for one in settled]
    costs = [one.fused.surprise + extra for one, extra in zip(settled, paid, strict=True)]
    best = settled[costs.index(min(costs))]
    dispersion = max(1.0, _worst(line, best))
    costs = [
        one.fused.surprise / dispersion + extra for one, extra in zip(settled, paid, strict=True)
    ]
    likelihoods = torch.softmax(-torch.tensor(costs, dtype=torch.float64) / 2, 0)
    return _mean(settled, likelihoods, best)


def _averaged(evidence: Evidence, line: Line, directions: Tensor, plain: Settled) -> Settled:
    """The mean answer over β from 0 to the one that was told, its error with their spread.

    Images weighted by p_y^β have smaller errors, and so does a factor on all of them: how much
    of the gap is the one and how much the other the update's rows cannot tell.
    """
    assert evidence.tilt is not None
    tilts = [evidence.tilt * part / _PARTS for part in range(1, _PARTS + 1)]
    settled = [plain, *(settle(evidence, line, directions, Assumed(t)) for t in tilts)]
    even = torch.full((len(settled),), 1 / len(settled), dtype=torch.float64)
    return _mean(settled, even, settled[len(settled) // 2])


def _mean(settled: Sequence[Settled], weights: Tensor, named: Settled) -> Settled:
    """The mean answer and what it assumes, its error with the spread; the rest as `named` has it.

    weights  of the answers, summing to 1
    """
    fused = [one.fused for one in settled]

    def mean(values: Sequence[Tensor]) -> Tensor:
        total: Tensor = torch.tensordot(weights, torch.stack(list(values)), 1)
        return total

    shares, unbounded, covariance, common = (
        mean([getattr(one, name) for one in fused])
        for name in ("shares", "unbounded", "covariance", "common")
    )
    apart = torch.stack([one.shares for one in fused]) - shares
    factors = torch.tensor([one.factor or (0.0, 0.0) for one in fused], dtype=torch.float64)
    factor = float(weights @ factors[:, 0])
    error = float(weights @ (factors[:, 1] ** 2 + (factors[:, 0] - factor) ** 2)) ** 0.5
    tilt, slack = mean(
        [torch.tensor(astuple(one.assumed), dtype=torch.float64) for one in settled]
    ).tolist()
    answer = replace(
        named.fused,
        shares=shares,
        unbounded=unbounded,
        covariance=covariance + (apart * weights[:, None]).T @ apart,
        common=common,
        factor=(factor, error) if named.fused.factor else None,
    )
    points = mean([one.points for one in settled])
    return Settled(Assumed(tilt, slack), answer, points, named.names)


def _halfway(evidence: Evidence, line: Line, settled: Settled) -> Settled:
    """Half fusion, half `path`, of an untrained model whose BatchNorm means drift with its layers.

    There the means fit badly and the path leaves the line, and nothing in the files tells which of
    the two is further off. The error has half the distance between them, and half the variance that
    it would have if the client were taken to move by equal steps.
    """
    if not (evidence.linear and evidence.rated) or learned_something(evidence):
        return settled
    apart = (settled.fused.shares - along(evidence, line).solution.shares) / 2
    shares = settled.fused.shares - apart
    even = even_weights(line.points, evidence.steps)
    confidence = torch.einsum("s,snj->nj", even, confidence_along(line))
    signal = evidence.signal.double().cpu()
    moved = mixture(coefficients(confidence, evidence.smoothing), signal).shares - shares
    distances = torch.outer(apart, apart) + torch.outer(moved, moved) / 2
    fused = replace(
        settled.fused,
        shares=shares,
        unbounded=settled.fused.unbounded - apart,
        covariance=settled.fused.covariance + distances,
    )
    return replace(settled, fused=fused)


def _assumptions(evidence: Evidence, line: Line, plain: Settled) -> Iterator[Assumed]:
    """What else than the plain case may hold: on a trained model seen by bias and BatchNorm means.

    Either alone is explained by some shares whatever is assumed. BatchNorm means that fit badly
    themselves cannot tell how far off the path is: the bias stays the anchor.
    """
    if not (evidence.linear and line.means and learned_something(evidence)):
        return
    rows = sum(len(mean.mean) for mean in line.means)
    tilts = _TILTS if rows < _MANY else _TILTS[::_COARSE]
    if evidence.tilt is not None:
        tilts = tuple(evidence.tilt * part / _PARTS for part in range(_PARTS + 1))
    fits = _worst(line, plain) <= _LOST
    slacks = _SLACKS if fits and len(line.points) > 1 else _SLACKS[:1]
    yield from (Assumed(*pair) for pair in product(tilts, slacks) if any(pair))


METHOD = Method(
    title="fusion",
    paper="rlu, docs/method.md",
    build=lambda options: fusion,
    auxiliary=True,
    needs=frozenset({LINE}),
    any_optimiser=True,
    any_rate=True,
)
