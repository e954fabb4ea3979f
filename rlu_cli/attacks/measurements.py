"""Measurements of a client's labels: rows of bias update, weight update and BatchNorm means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.attacks.method import learned_something
from rlu_cli.numerics.measurement import Measurement, Sampling
from rlu_cli.numerics.output_means import class_means
from rlu_cli.types import BatchMean, Evidence, Interpolation

_ROWS = 600  # most rows of the update, for any number of classes
_USUAL_BATCH = 64  # if |B| is unknown; affects only the noise covariance


def directions_of(evidence: Evidence, interpolation: Interpolation) -> Tensor:
    """Directions V (L, r) of the embedding along which the class means differ most.

    r is limited by N (r + 1) ≤ 600 rows of the update. r = 0 if there are BatchNorm means, which
    are more informative than the weights (their errors are those of the bias), and if the update is
    not linear in the gradients.
    """
    classes, width = evidence.classes, interpolation.outputs[0].embeddings.shape[1]
    count = min(classes, width, _ROWS // classes - 1)
    if interpolation.means or not evidence.linear or count < 1:
        return torch.zeros(width, 0, dtype=torch.float64)
    mean = torch.stack(
        [outputs.embeddings.double().cpu() for outputs in interpolation.outputs]
    ).mean(0)
    centres = class_means(mean, interpolation.outputs[0].labels, classes)
    axes: Tensor = torch.linalg.svd(centres, full_matrices=False)[2]
    return axes[:count].T


def of_update(
    evidence: Evidence, interpolation: Interpolation, points: Tensor, directions: Tensor
) -> list[Measurement]:
    """Bias update u with per-image values e_y - p; if r > 0, ΔW V with per-image (e_y - p) eᵀV.

    points      (S,) weights of the interpolation points, summing to 1
    directions  V (L, r) of the embedding; r may be 0
    """
    gradient, count = evidence.gradient, directions.shape[1]
    assert gradient.bias is not None
    rows, error_products = errors(evidence, interpolation, points, directions)
    measurements = [_rows_of_update(evidence, interpolation, -gradient.bias, rows)]
    if count:
        observed = -(gradient.weight @ directions).flatten()
        measurements.append(_rows_of_update(evidence, interpolation, observed, error_products))
    return measurements


def errors(
    evidence: Evidence, interpolation: Interpolation, points: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """e_y - p (A, N) and (e_y - p) eᵀV (A, N r), averaged over the interpolation points.

    With label smoothing, e_y is smoothed.
    """
    labels = interpolation.outputs[0].labels.cpu()
    targets = torch.nn.functional.one_hot(labels, evidence.classes).double()
    targets = targets * (1 - evidence.smoothing) + evidence.smoothing / evidence.classes
    errors = targets - averaged_over(
        points, [outputs.probabilities for outputs in interpolation.outputs]
    )
    error_products = torch.zeros(
        len(targets), targets.shape[1] * directions.shape[1], dtype=torch.float64
    )
    for weight, outputs in (
        zip(points, interpolation.outputs, strict=True) if directions.shape[1] else ()
    ):
        projected = outputs.embeddings.double().cpu() @ directions  # (A, r)
        error = targets - outputs.probabilities
        error_products.add_(
            (error[:, :, None] * projected[:, None, :]).flatten(1), alpha=float(weight)
        )
    return errors, error_products


def averaged_over(points: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Weighted mean Σ_s w_s x_s over the interpolation points; the weights sum to 1."""
    total = torch.zeros_like(values[0])
    for weight, at_point in zip(points, values, strict=True):
        total.add_(at_point, alpha=float(weight))
    return total


def _rows_of_update(
    evidence: Evidence, interpolation: Interpolation, observed: Tensor, per_image_values: Tensor
) -> Measurement:
    """Rows of the update, with step weights ρ / Σρ.

    The scale is unknown without the learning rate, and on a trained model without BatchNorm means:
    the model was trained on the client's images, so their errors are smaller than the server's.
    Under recovered batch statistics the difference is small, and the BatchNorm means fix the scale.
    """
    rho = evidence.weights[-1].double().cpu()
    zeros = torch.zeros(len(observed), dtype=torch.float64)
    unknown_scale = not evidence.lr_known or (
        not interpolation.means and learned_something(evidence)
    )
    return Measurement(
        observed,
        per_image_values,
        rho / rho.sum(),
        zeros,
        zeros[:, None],
        unknown_scale=unknown_scale,
    )


def of_mean(
    mean: BatchMean, points: Tensor, labels: Tensor, shares: Tensor, importance: Tensor
) -> Measurement:
    """Recovered mean input of one layer; its change over the round is a nuisance direction.

    points      (S,) weights of the interpolation points, summing to 1
    labels      (A,) of the auxiliary images
    shares      (N,) last estimate, weights of the changes of the class means
    importance  (A,) weight of each image within its class
    """
    per_image_values = averaged_over(points, mean.inputs)
    change = mean.inputs[-1] - mean.inputs[0]
    nuisance_directions = shares @ class_means(change, labels, len(shares), importance)
    return Measurement(
        mean.mean, per_image_values, mean.weights, mean.rounding**2, nuisance_directions[:, None]
    )


def with_path_position_std(
    bias: Measurement, interpolation: Interpolation, amounts: Tensor, importance: Tensor
) -> Measurement:
    """The bias with an uncertain path position: P(0) - P(1) becomes a nuisance direction.

    amounts     (N,) shares times the standard deviation of the path position
    importance  (A,) weight of each auxiliary image within its class
    """
    first, last = (interpolation.outputs[at].probabilities for at in (0, -1))
    change = class_means(first - last, interpolation.outputs[0].labels, len(amounts), importance)
    return replace(bias, nuisance_directions=(amounts @ change)[:, None])


def sampling_of(evidence: Evidence) -> Sampling:
    """Mean |B| of the client, and the number of images of one pass over its samples."""
    sizes = evidence.batch_sizes or (_USUAL_BATCH,) * evidence.steps
    return Sampling(sum(sizes) / len(sizes), sum(sizes) / evidence.passes)
