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
from dataclasses import astuple, dataclass, replace
from itertools import product

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.method import LINE, Method, learned_something
from rlu_cli.attacks.path import along, confidence_along, line_of, path, progress
from rlu_cli.numerics.fusion import Fused, Sampling, Witness, fuse
from rlu_cli.numerics.output_means import class_means, tilted
from rlu_cli.numerics.posterior import posterior_mean
from rlu_cli.numerics.progress import even_weights
from rlu_cli.numerics.simplex import coefficients, mixture
from rlu_cli.types import BatchMean, Evidence, Line, Recovery

_ROUNDS = 8  # of shares, noise and progress in turn
_ROUNDS_MORE = 2  # from a settled answer to that under another assumption
_TILTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)
_SLACKS = (0.0, 0.1, 0.3)
_COARSE = 4  # where there are many rows, only every fourth tilt is tried
_MANY = 1_000
_PARTS = 4  # of the exponent that a training accuracy makes, where one is told
_WEIGHTS = "weights"
_WIDEST = 1e6  # factor on a covariance, so that numbers stay numbers
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
_ROWS = 600  # of the weights' update, whatever the number of classes
_USUAL_BATCH = 64  # where |B| is not known: it sets the noise, not the answer


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
    directions = _directions(evidence, line)
    if not line.means and not evidence.linear:  # nothing is left to read
        return shared(evidence, torch.zeros(evidence.classes), notes=line.notes)
    if not line.means and not (directions.shape[1] and learned_something(evidence)):
        return replace(path(evidence), notes=line.notes)
    settled, line = _looked_again(evidence, line, _expected(evidence, line, directions))
    fused, misfit = settled.fused, settled.misfit
    if misfit.get(_WEIGHTS, 0.0) > _LOST:
        return replace(path(evidence), notes=(*line.notes, _DROPPED))
    # Without BatchNorm means the bias shares the weights' errors, but has no rows to spare that
    # would show them; beside the means its own misfit shows how far the two disagree.
    judge = "bias" if line.means and learned_something(evidence) else _WEIGHTS
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
        other = _expected(evidence, seen, _directions(evidence, seen))
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


def _directions(evidence: Evidence, line: Line) -> Tensor:
    """Directions (L, r) of the embedding in which the classes differ most, as rows allow.

    N (r + 1) rows are read from the update. BatchNorm means tell more than the weights, whose
    errors are the bias's own; a client that is not linear has none.
    """
    mean = torch.stack([seen.embeddings.double().cpu() for seen in line.outputs]).mean(0)
    classes = evidence.classes
    wanted = evidence.linear and not line.means
    count = min(classes, mean.shape[1], _ROWS // classes - 1) if wanted else 0
    centres = class_means(mean, line.outputs[0].labels, classes)
    axes: Tensor = torch.linalg.svd(centres, full_matrices=False)[2]
    return axes[: max(count, 0)].T


def _expected(evidence: Evidence, line: Line, directions: Tensor) -> Settled:
    """The mean answer over `_assumptions` by their likelihood, its error with what they disagree.

    Slack makes the bias say less, and must be worth log D for D rows (Schwarz's criterion).
    BatchNorm means that fit worse than their noise allows make all differences smaller, by their
    misfit (quasi-likelihood).
    """
    plain = _settle(evidence, line, directions, Assumed())
    if evidence.tilt and not line.means:
        return _averaged(evidence, line, directions, plain)
    others = [
        _settle(evidence, line, directions, assumed, near=plain)
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
    settled = [plain, *(_settle(evidence, line, directions, Assumed(t)) for t in tilts)]
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


def _settle(
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
    names = ["bias"] * evidence.linear + [_WEIGHTS] * bool(directions.shape[1])
    names += [mean.layer for mean in line.means]
    scales = _widened(names, near.fused.misfit) if near else [1.0] * len(names)
    fused: Fused | None = None
    for _ in range(_ROUNDS_MORE if near else _ROUNDS):
        witnesses = _update(evidence, line, points, directions) if evidence.linear else []
        if assumed.slack:
            witnesses[0] = _slack(witnesses[0], line, assumed.slack * shares, importance)
        witnesses += [_batch_mean(mean, points, labels, shares, importance) for mean in line.means]
        scaled = [replace(w, scale=scale) for w, scale in zip(witnesses, scales, strict=True)]
        fused = fuse(scaled, labels, shares, _sampling(evidence), importance)
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
        1.0 if name == "bias" else min(max(1.0, found), _WIDEST)
        for name, found in zip(names, misfit, strict=True)
    ]


def _slack(bias: Witness, line: Line, amounts: Tensor, importance: Tensor) -> Witness:
    """The bias as far as the path is known: its steps may lie earlier or later on the line.

    amounts  (N,) shares times the standard deviation of the place
    """
    first, last = (line.outputs[at].probabilities for at in (0, -1))
    change = class_means(first - last, line.outputs[0].labels, len(amounts), importance)
    return replace(bias, drift=(amounts @ change)[:, None])


def _start(evidence: Evidence, line: Line) -> tuple[Tensor, Tensor]:
    """First shares and weights of the points: from the bias update, where it can be read."""
    if evidence.linear and evidence.rated:
        found = along(evidence, line)
        return found.solution.shares, found.points
    even = torch.full((evidence.classes,), 1 / evidence.classes, dtype=torch.float64)
    return even, even_weights(line.points, evidence.steps)


def _update(evidence: Evidence, line: Line, points: Tensor, directions: Tensor) -> list[Witness]:
    """u and e_y - p; the update of the weights along V and (e_y - p) eᵀV, where there is a V."""
    gradient, count = evidence.gradient, directions.shape[1]
    assert gradient.bias is not None
    errors, turned = _errors(evidence, line, points, directions)
    witnesses = [_of_update(evidence, line, -gradient.bias, errors)]
    if count:
        observed = -(gradient.weight @ directions).flatten()
        witnesses.append(_of_update(evidence, line, observed, turned))
    return witnesses


def _errors(
    evidence: Evidence, line: Line, points: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """e_y - p (A, N) and (e_y - p) eᵀV (A, N r), averaged over the points of the line.

    With label smoothing e_y is smoothed too.
    """
    labels = line.outputs[0].labels.cpu()
    hot = torch.nn.functional.one_hot(labels, evidence.classes).double()
    hot = hot * (1 - evidence.smoothing) + evidence.smoothing / evidence.classes
    errors = hot - _averaged_over(points, [seen.probabilities for seen in line.outputs])
    turned = torch.zeros(len(hot), hot.shape[1] * directions.shape[1], dtype=torch.float64)
    for weight, seen in zip(points, line.outputs, strict=True) if directions.shape[1] else ():
        along = seen.embeddings.double().cpu() @ directions  # (A, r)
        error = hot - seen.probabilities
        turned.add_((error[:, :, None] * along[:, None, :]).flatten(1), alpha=float(weight))
    return errors, turned


def _averaged_over(points: Tensor, seen: Sequence[Tensor]) -> Tensor:
    """Σ_s w_s of what was seen at each point of the line; the weights sum to 1."""
    total = torch.zeros_like(seen[0])
    for weight, rows in zip(points, seen, strict=True):
        total.add_(rows, alpha=float(weight))
    return total


def _of_update(evidence: Evidence, line: Line, observed: Tensor, figures: Tensor) -> Witness:
    """Rows of the update: the steps count as ρ says.

    On a trained model the scale is free: the client's images were trained on, and their errors are
    smaller than the server's. Under recovered batch statistics little of that is left, and the
    BatchNorm means hold the scale.
    """
    rho = evidence.weights[-1].double().cpu()
    nothing = torch.zeros(len(observed), dtype=torch.float64)
    free = not evidence.rated or (not line.means and learned_something(evidence))
    return Witness(observed, figures, rho / rho.sum(), nothing, nothing[:, None], free=free)


def _batch_mean(
    mean: BatchMean, points: Tensor, labels: Tensor, shares: Tensor, importance: Tensor
) -> Witness:
    """The recovered mean input of one layer; it may be off by its own drift over the round."""
    figures = _averaged_over(points, mean.inputs)
    change = mean.inputs[-1] - mean.inputs[0]
    drift = shares @ class_means(change, labels, len(shares), importance)
    return Witness(mean.mean, figures, mean.weights, mean.rounding**2, drift[:, None])


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
