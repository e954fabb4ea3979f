"""The noise of all measurements of a client's labels: which parts there are, and how large.

A part of known size comes from the finite numbers of images and from rounding. The parts of unknown
size are discrepancies that no number of images reduces: the client's images differ from the
server's, the path leaves the line between the models, the inputs of the BatchNorm layers drift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rlu_cli.attacks.measurements import averaged_over, errors, sampling_of
from rlu_cli.numerics.class_covariances import ClassCovariances, class_covariances
from rlu_cli.numerics.measurement import blocks
from rlu_cli.numerics.output_means import class_means
from rlu_cli.numerics.split_covariances import split_covariances
from rlu_cli.numerics.variance_components import Component, Problem
from rlu_cli.types import BatchMean, Evidence, Interpolation, Outputs

_ROWS = 400  # most rows of the update
_EXTRA_ROWS = 30  # of a compressed layer, beyond those that separate classes or drift
_FLOOR = 1e-9  # relative variance added to every row: some rows do not vary
# Prior scales: of the discrepancy between images in units of the variance within a class (1/τ² is
# an effective number of images), of errors of the path and drifts in units of the whole round.
# And of a layer whose inputs change otherwise, in units of the variance within the classes.
_DISCREPANCY, _PATH, _DRIFT, _MISFIT = 0.1, 0.1, 1.0, 0.01
_STRAIGHT = 1e-4  # least of the path's: a round of few time constants hardly leaves the line
_ANYWHERE = 1 / 12  # variance of a position that may be anywhere on the path
_FEWEST = 0.25  # largest τ²: class means of four images
_NOISE_SCALE = 0.5  # prior standard deviation of log ω
_FAR = 30.0  # time constants after which half of a path is far from the line between the models
_CLASSES_PER_ROW = 4
_SEED = 0


@dataclass(frozen=True)
class RowBlock:
    """Rows of one measurement.

    name      for the report
    update    whether the rows belong to the update: their size depends on the error ratio λ
    observed  (D,)
    values    (A, D) of each auxiliary image
    weights   (m',) of the forward passes, summing to 1
    rounding  (D,) variance
    drift     (N, D) change of the class means over the round
    confidence_drift  (N, N) change of the mean softmax of each class; of the update alone
    leads     (N, D) how an error of the mean prediction of each class enters the rows
    """

    name: str
    update: bool
    observed: Tensor
    values: Tensor
    weights: Tensor
    rounding: Tensor
    drift: Tensor
    confidence_drift: Tensor
    leads: Tensor


def row_blocks(
    evidence: Evidence, interpolation: Interpolation, points: Tensor, importance: Tensor
) -> list[RowBlock]:
    """The rows of the update and of the last BatchNorm layer.

    Those of the update are left out if it is not linear in the gradients or η is unknown.

    points      (S,) weights of the interpolation points, summing to 1
    importance  (A,) weight of each image within its class, summing to 1 per class
    """
    usable = evidence.linear and evidence.lr_known
    found = [_update_rows(evidence, interpolation, points, importance)] if usable else []
    labels, classes = interpolation.outputs[0].labels.cpu(), evidence.classes
    for mean in interpolation.means:
        block = _buffer_rows(mean, points, labels, classes, importance)
        found.append(_compressed(block, labels, classes, importance))
    return found


def _update_rows(
    evidence: Evidence, interpolation: Interpolation, points: Tensor, importance: Tensor
) -> RowBlock:
    """Bias update u, with e_y - p; without BatchNorm means also ΔW V, with (e_y - p) eᵀV.

    A layer without a bias has weight rows alone: its u is derived from them.
    """
    labels, classes = interpolation.outputs[0].labels.cpu(), evidence.classes
    directions = _directions(evidence, interpolation)

    first = 0 if evidence.biased or not directions.shape[1] else classes

    def values(weights: Tensor) -> Tensor:
        return torch.cat(errors(evidence, interpolation, weights, directions), 1)

    gradient = evidence.gradient
    assert gradient.bias is not None
    observed = torch.cat([-gradient.bias, -(gradient.weight @ directions).flatten()])
    ends = torch.eye(len(points), dtype=torch.float64)[[-1, 0]]
    drift = class_means(values(ends[0]) - values(ends[1]), labels, classes, importance)
    embeddings = [outputs.embeddings.double().cpu() for outputs in interpolation.outputs]
    mean_row = averaged_over(points, embeddings).mean(0) @ directions
    identity = torch.eye(classes, dtype=torch.float64)
    leads = torch.cat([identity, torch.kron(identity, mean_row[None, :])], 1)
    rho = evidence.weights[-1].double().cpu()
    return RowBlock(
        name="update",
        update=True,
        observed=observed[first:],
        values=values(points)[:, first:],
        weights=rho / rho.sum(),
        rounding=torch.full((len(observed) - first,), added_noise(evidence), dtype=torch.float64),
        drift=drift[:, first:],
        confidence_drift=drift[:, :classes],
        leads=leads[:, first:],
    )


def added_noise(evidence: Evidence) -> float:
    """Variance of noise added to the entries of the update, in units of the signal u.

    Without noise every column of ΔW, and Δb, sums to 0 over the N classes. Independent noise of
    variance σ² leaves sums of variance N σ². The rounding of the files is included.
    """
    gradient = evidence.gradient
    assert gradient.bias is not None
    sums = torch.cat([gradient.weight.sum(0), gradient.bias.sum()[None] * evidence.biased])
    return float(sums.square().sum() / (len(sums) - 1 + evidence.biased)) / evidence.classes


def _directions(evidence: Evidence, interpolation: Interpolation) -> Tensor:
    """Directions V (L, r) of the embedding along which the class means differ most."""
    classes, width = evidence.classes, interpolation.outputs[0].embeddings.shape[1]
    count = min(classes, width, _ROWS // classes - 1)
    if (interpolation.means and evidence.biased) or count < 1:
        return torch.zeros(width, 0, dtype=torch.float64)
    embeddings = [outputs.embeddings.double().cpu() for outputs in interpolation.outputs]
    centres = class_means(
        torch.stack(embeddings).mean(0), interpolation.outputs[0].labels.cpu(), classes
    )
    axes: Tensor = torch.linalg.svd(centres, full_matrices=False)[2]
    return axes[:count].T


def _buffer_rows(
    mean: BatchMean, points: Tensor, labels: Tensor, classes: int, importance: Tensor
) -> RowBlock:
    inputs = [values.double().cpu() for values in mean.inputs]
    return RowBlock(
        name=mean.layer,
        update=False,
        observed=mean.mean.double(),
        values=averaged_over(points, inputs),
        weights=mean.weights.double(),
        rounding=mean.rounding.double() ** 2,
        drift=class_means(inputs[-1] - inputs[0], labels, classes, importance),
        confidence_drift=torch.zeros(0, 0, dtype=torch.float64),
        leads=torch.zeros(0, 0, dtype=torch.float64),
    )


def _compressed(block: RowBlock, labels: Tensor, classes: int, importance: Tensor) -> RowBlock:
    """The rows projected on directions that separate classes or drift, and a few random others.

    The directions are chosen after whitening by the pooled covariance, so that hardly any
    information on the labels is lost; the random ones show how well the noise model fits.
    """
    width = block.values.shape[1]
    if width <= _CLASSES_PER_ROW * classes + _EXTRA_ROWS:
        return block
    within = class_covariances(block.values, labels, importance)
    pooled = within.pooled + torch.eye(width) * _FLOOR * within.pooled.diagonal().mean()
    root = torch.linalg.cholesky(pooled)

    def white(rows: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(root, rows.T, upper=False)
        return solved.T

    between = torch.linalg.svd(white(within.means - within.means.mean(0)), full_matrices=False)[2]
    between = between[: classes - 1]
    drift = white(block.drift)
    drift = torch.linalg.svd(drift - drift @ between.T @ between, full_matrices=False)[2]
    generator = torch.Generator().manual_seed(_SEED)
    others = torch.randn(_EXTRA_ROWS, width, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([between, drift, others]).T)[0].T
    project = torch.linalg.solve_triangular(root.T, basis.T, upper=True).T  # (r, D)
    return replace(
        block,
        observed=project @ block.observed,
        values=block.values @ project.T,
        rounding=project.square() @ block.rounding,
        drift=block.drift @ project.T,
    )


@dataclass(frozen=True)
class Round:
    """How far the client moved during the round.

    folds  κ: time constants of the client's adaptation that its round lasted; 0 for one step
    """

    folds: float

    @property
    def adapted(self) -> float:
        """Part of the way by which the end of the path is ahead of its mean, 0…1.

        1 - (1 - e^{-κ}) / κ: for an exponential approach, about κ/2 at first.
        """
        return 1 - (1 - math.exp(-self.folds)) / self.folds if self.folds > 1e-6 else 0.0

    @property
    def roaming(self) -> float:
        """Part of the update that says nothing of the labels, 0…1: (a κ / (κ + 30))².

        What the client does after it has adapted, a part a of the round, and of this the part that
        is far from the line between the models: half after thirty time constants.
        """
        return (self.adapted * self.folds / (self.folds + _FAR)) ** 2


def round_of(evidence: Evidence, outputs: Sequence[Outputs]) -> Round:
    """κ = η Σρ (1 + ‖ē‖²) × mean p (1 - p): the steps times the gain of the logits in each.

    A step of the gradient e_y - p moves the logits of class j by η (1 + ‖ē‖²) of it (Eq. 13), and
    its probability by p (1 - p) times that.

    outputs  at points of the round, first and last at least
    """
    if evidence.steps == 1 or not evidence.lr_known:
        return Round(0.0)
    mean = torch.stack([one.embeddings.double().cpu().mean(0) for one in outputs]).mean(0)
    spread = [float((one.probabilities * (1 - one.probabilities)).mean()) for one in outputs]
    rate = evidence.lr * float(evidence.weights[-1].sum()) * (1 + float(mean @ mean))
    return Round(rate * sum(spread) / len(spread))


class NoiseModel:
    """All rows of a case, from which `problem` builds least squares for given shares.

    rows        blocks of rows
    labels      (A,) of the auxiliary images
    importance  (A,) weight of each image within its class, summing to 1 per class
    """

    def __init__(
        self,
        evidence: Evidence,
        rows: list[RowBlock],
        labels: Tensor,
        importance: Tensor,
        moved: Round,
    ) -> None:
        self.rows = rows
        self._sampling = sampling_of(evidence)
        self._moved = moved
        self._path_scale = max(_PATH * min(1.0, moved.folds) ** 2, _STRAIGHT)
        values = torch.cat([block.values for block in rows], 1)
        self._within: ClassCovariances = class_covariances(values, labels, importance)
        self._split = split_covariances(values, labels, importance, _SEED) or self._within
        widths = [len(block.observed) for block in rows]
        ends = np.cumsum([0, *widths])
        self._slices = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        self._uneven = self._unevenness(widths)
        self._scaled = torch.cat(
            [torch.full((width,), block.update) for block, width in zip(rows, widths, strict=True)]
        )

    def problem(self, shares: Tensor, ratio: float, ratio_std: float) -> Problem:
        """Least squares with the noise that belongs to `shares` (N,).

        ratio      λ, the client's errors e_y - p over the server's
        ratio_std  standard deviation of log λ
        """
        within = self._within
        scale = torch.where(self._scaled, ratio, 1.0).double()
        predicted = (shares @ within.means) * scale * self._scaled
        fixed = self._path_error(shares) + ratio_std**2 * torch.outer(predicted, predicted)
        return Problem(
            observed=torch.cat([block.observed for block in self.rows]).numpy(),
            means=(within.means * scale).numpy(),
            known=self._known(shares).numpy(),
            fixed=fixed.numpy(),
            components=self._components(shares),
            scaled=self._scaled.numpy(),
            centre=ratio**2,
            deviation=_NOISE_SCALE,
        )

    def of_means(self, shares: Tensor, discrepancy: float) -> Tensor:
        """The part of the noise (D, D) that all rounds seen with the same images share.

        discrepancy  τ², estimated
        """
        within = self._within
        return within.mixed(shares.square() * (1 / within.effective + discrepancy))

    def _known(self, shares: Tensor) -> Tensor:
        """Noise from the finite numbers of images, uneven steps and rounding, (D, D)."""
        within, sampling = self._within, self._sampling
        amounts = shares / sampling.distinct + shares.square() / within.effective
        of_images = self._split.mixed(amounts) + within.mixed(shares) * self._uneven
        of_labels = within.means.T @ (torch.diag(shares) - torch.outer(shares, shares))
        noise = of_images + of_labels @ within.means * self._uneven
        variances = noise.diagonal().clone()
        rounding = torch.cat([block.rounding for block in self.rows])
        return noise + torch.diag(rounding + _FLOOR * (variances.mean() + variances))

    def _components(self, shares: Tensor) -> tuple[Component, ...]:
        """The parts of unknown size."""
        discrepancy = self._within.mixed(shares.square())
        found = [Component("discrepancy", discrepancy.numpy(), _DISCREPANCY, _FEWEST)]
        for block, rows in zip(self.rows, self._slices, strict=True):
            if not block.update:
                part = torch.zeros_like(discrepancy)
                part[rows, rows] = self._within.mixed(shares)[rows, rows]
                found.append(Component(f"misfit of {block.name}", part.numpy(), _MISFIT))
            if not bool(block.drift.any()):
                continue
            part = torch.zeros_like(discrepancy)
            part[rows, rows] = _of_drift(shares, block.drift)
            if block.update:
                found.append(Component("path", part.numpy(), self._path_scale, _ANYWHERE))
            else:
                found.append(Component(f"drift of {block.name}", part.numpy(), _DRIFT))
        return tuple(found)

    def _path_error(self, shares: Tensor) -> Tensor:
        """What cannot be known of the mean prediction P̄ along the path, (D, D).

        No row shows an error of P̄, since some shares explain any P̄. It is taken to be as large as
        the change of the predictions over the round times a = `Round.adapted`, independently for
        every class: negligible for short rounds, all of the change once the client has adapted.
        From then on it moves about its optimum, ever farther from the line between both models,
        and its update says less and less: as much as if the labels of a part
        r = `Round.roaming` of the update were drawn anew.
        """
        total = torch.zeros(len(self._scaled), len(self._scaled), dtype=torch.float64)
        for block, rows in zip(self.rows, self._slices, strict=True):
            if not block.update:
                continue
            of_bias = block.confidence_drift
            sizes = (shares @ of_bias).square() + (of_bias.square() * shares[:, None] ** 2).sum(0)
            part = block.leads.T @ (sizes[:, None] * block.leads) + _of_drift(shares, block.drift)
            any_labels = (shares + 1 / len(shares)) / 2
            anew = torch.diag(any_labels) - torch.outer(any_labels, any_labels)
            means = self._within.means[:, rows]
            total[rows, rows] = part * self._moved.adapted**2 + (
                means.T @ anew @ means * self._moved.roaming
            )
        return total

    def _unevenness(self, widths: list[int]) -> Tensor:
        """Σ_τ (w_τ - 1/m)(w'_τ - 1/m) / |B| of every pair of rows, (D, D)."""
        steps = [block.weights - 1 / len(block.weights) for block in self.rows]
        table = torch.tensor(
            [[float(a @ b) if len(a) == len(b) else 0.0 for b in steps] for a in steps],
            dtype=torch.float64,
        )
        expand = blocks([torch.ones(1, width) for width in widths])
        return expand.T @ table @ expand / self._sampling.batch


def _of_drift(shares: Tensor, drift: Tensor) -> Tensor:
    """Covariance of a random part of the drift (N, D): common to all classes, and of each."""
    common = shares @ drift
    return torch.outer(common, common) + (drift * (shares**2)[:, None]).T @ drift
