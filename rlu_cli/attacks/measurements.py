"""The rows that each witness of a client's labels gives: bias, weights and BatchNorm means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.attacks.method import learned_something
from rlu_cli.numerics.fusion import Measurement, Sampling
from rlu_cli.numerics.output_means import class_means
from rlu_cli.types import BatchMean, Evidence, Interpolation

_ROWS = 600  # of the weights' update, whatever the number of classes
_USUAL_BATCH = 64  # where |B| is not known: it sets the noise, not the answer


def directions_of(evidence: Evidence, interpolation: Interpolation) -> Tensor:
    """Directions (L, r) of the embedding in which the classes differ most, as rows allow.

    N (r + 1) rows are read from the update. BatchNorm means tell more than the weights, whose
    errors are the bias's own; a client that is not linear has none.
    """
    classes, width = evidence.classes, interpolation.outputs[0].embeddings.shape[1]
    count = min(classes, width, _ROWS // classes - 1)
    if interpolation.means or not evidence.linear or count < 1:
        return torch.zeros(width, 0, dtype=torch.float64)
    mean = torch.stack([seen.embeddings.double().cpu() for seen in interpolation.outputs]).mean(0)
    centres = class_means(mean, interpolation.outputs[0].labels, classes)
    axes: Tensor = torch.linalg.svd(centres, full_matrices=False)[2]
    return axes[:count].T


def of_update(
    evidence: Evidence, interpolation: Interpolation, points: Tensor, directions: Tensor
) -> list[Measurement]:
    """u and e_y - p; the update of the weights along V and (e_y - p) eᵀV, where there is a V.

    points      (S,) how much each point of the line counts
    directions  V (L, r) of the embedding; r may be 0
    """
    gradient, count = evidence.gradient, directions.shape[1]
    assert gradient.bias is not None
    errors, turned = _errors(evidence, interpolation, points, directions)
    measurements = [_rows_of_update(evidence, interpolation, -gradient.bias, errors)]
    if count:
        observed = -(gradient.weight @ directions).flatten()
        measurements.append(_rows_of_update(evidence, interpolation, observed, turned))
    return measurements


def _errors(
    evidence: Evidence, interpolation: Interpolation, points: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """e_y - p (A, N) and (e_y - p) eᵀV (A, N r), averaged over the points of the line.

    With label smoothing e_y is smoothed too.
    """
    labels = interpolation.outputs[0].labels.cpu()
    hot = torch.nn.functional.one_hot(labels, evidence.classes).double()
    hot = hot * (1 - evidence.smoothing) + evidence.smoothing / evidence.classes
    errors = hot - _averaged_over(points, [seen.probabilities for seen in interpolation.outputs])
    turned = torch.zeros(len(hot), hot.shape[1] * directions.shape[1], dtype=torch.float64)
    for weight, seen in (
        zip(points, interpolation.outputs, strict=True) if directions.shape[1] else ()
    ):
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


def _rows_of_update(
    evidence: Evidence, interpolation: Interpolation, observed: Tensor, per_image_values: Tensor
) -> Measurement:
    """Rows of the update: the steps count as ρ says.

    On a trained model the scale is free: the client's images were trained on, and their errors are
    smaller than the server's. Under recovered batch statistics little of that is left, and the
    BatchNorm means hold the scale.
    """
    rho = evidence.weights[-1].double().cpu()
    nothing = torch.zeros(len(observed), dtype=torch.float64)
    unknown_scale = not evidence.lr_known or (
        not interpolation.means and learned_something(evidence)
    )
    return Measurement(
        observed,
        per_image_values,
        rho / rho.sum(),
        nothing,
        nothing[:, None],
        unknown_scale=unknown_scale,
    )


def of_mean(
    mean: BatchMean, points: Tensor, labels: Tensor, shares: Tensor, importance: Tensor
) -> Measurement:
    """The recovered mean input of one layer; it may be off by its own drift over the round.

    points      (S,) how much each point of the line counts
    labels      (A,) of the auxiliary images
    shares      (N,) as last found, which weight the drift of the classes
    importance  (A,) of each image within its class
    """
    per_image_values = _averaged_over(points, mean.inputs)
    change = mean.inputs[-1] - mean.inputs[0]
    nuisance_directions = shares @ class_means(change, labels, len(shares), importance)
    return Measurement(
        mean.mean, per_image_values, mean.weights, mean.rounding**2, nuisance_directions[:, None]
    )


def with_path_position_std(
    bias: Measurement, interpolation: Interpolation, amounts: Tensor, importance: Tensor
) -> Measurement:
    """The bias as far as the path is known: its steps may lie earlier or later on the line.

    amounts     (N,) shares times the standard deviation of the place
    importance  (A,) of each auxiliary image within its class
    """
    first, last = (interpolation.outputs[at].probabilities for at in (0, -1))
    change = class_means(first - last, interpolation.outputs[0].labels, len(amounts), importance)
    return replace(bias, nuisance_directions=(amounts @ change)[:, None])


def sampling_of(evidence: Evidence) -> Sampling:
    """How the client's images were drawn: its mean |B|, and the images of one pass."""
    sizes = evidence.batch_sizes or (_USUAL_BATCH,) * evidence.steps
    return Sampling(sum(sizes) / len(sizes), sum(sizes) / evidence.passes)
