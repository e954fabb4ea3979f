"""Outputs on the auxiliary images at points interpolated between two checkpoints.

The predictions of a trained model depend on the batch statistics of its BatchNorm layers. Here
they are either the client's own, recovered from its buffers, or, for auxiliary images from another
distribution, those of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rlu_cli.case.auxiliary import is_noise
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError
from rlu_cli.evidence.batchnorm_statistics import Statistics, norm_layers, recover
from rlu_cli.evidence.forward import ForwardConfig, mixed_order, outputs, pass_batches
from rlu_cli.types import Auxiliary, BatchMean, Interpolation, Outputs

POINTS = (0.0, 0.5, 1.0)
_LAYERS = 1  # BatchNorm layers, counted from the output, whose means are measured
_NO_ROWS = "BatchNorm means are not used: the last layer does not get one row per image"

_WEIGHTED_BATCH = 256  # least images per batch for weighted statistics
_LEAST = 1e-6  # least weight of an image, for classes with a share of 0

# (layer, its inputs, number of the pass) → mean and biased variance (C,) to normalise with.
_BatchStatistics = Callable[[str, Tensor, int], tuple[Tensor, Tensor]]
_Uses = list[Tensor]  # inputs (|B|, C) of a layer, one per use within a forward pass


def evaluate_along_interpolation(
    model: nn.Module,
    pair: CheckpointPair,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    *,
    steps: int,
    ends: tuple[Outputs, Outputs],
) -> Interpolation:
    """Evaluate along the interpolation, with the client's own batch statistics if they are known.

    In training mode, every BatchNorm layer whose buffers moved normalises with the statistics
    recovered from them, not with those of a balanced auxiliary batch: the client's batches are
    skewed, which changes the predictions of a trained model.

    steps  m; the gradient of a single step is that of the global model alone
    ends   Outputs of both models, reused if the client's statistics are unknown
    """
    points = POINTS if steps > 1 else POINTS[:1]
    client_like = config.training and not is_noise(auxiliary)
    found, notes = recover(model, pair) if client_like else ({}, ())
    if not found:
        plain = tuple(_plain(model, pair, auxiliary, config, point, ends) for point in points)
        return Interpolation(points, plain, notes=notes)
    client = _client_statistics(found, config.batch)
    evaluated, means = _evaluate(model, pair, auxiliary, config, points, found, client)
    return Interpolation(points, evaluated, means, () if means else (_NO_ROWS,))


def reevaluate_with_aux_statistics(
    model: nn.Module,
    pair: CheckpointPair,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    shares: Tensor,
    *,
    steps: int,
) -> Interpolation | None:
    """Evaluate along the interpolation with batch statistics of the auxiliary images.

    Every layer normalises with the statistics of its batch, the images weighted so that classes
    have the client's shares. This is for auxiliary images from another distribution, which the
    client's statistics do not fit. None if the model cannot run so: logits that are not finite, or
    too little memory for the larger batches.

    shares  (N,) current estimate of the client's label shares
    """
    points = POINTS if steps > 1 else POINTS[:1]
    found, _ = recover(model, pair)
    wide = replace(config, batch=min(max(config.batch, _WEIGHTED_BATCH), len(auxiliary.images)))
    weighted = _auxiliary_statistics(_weights(auxiliary, wide, shares))
    try:
        evaluated, means = _evaluate(model, pair, auxiliary, wide, points, found, weighted)
    except InputError:
        return None
    return Interpolation(points, evaluated, means) if means else None


def _evaluate(
    model: nn.Module,
    pair: CheckpointPair,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    points: Sequence[float],
    found: Mapping[str, Statistics],
    statistics: _BatchStatistics,
) -> tuple[tuple[Outputs, ...], tuple[BatchMean, ...]]:
    """Outputs at every point under the given statistics, and means of the last layers."""
    kept = list(found)[-_LAYERS:]
    evaluated: list[Outputs] = []
    inputs: list[dict[str, list[_Uses]]] = []
    for point in points:
        with _normalised(model, found, kept, statistics) as rows:
            state = between(pair, point)
            evaluated.append(outputs(model, state, auxiliary, config, pair.after.path))
        inputs.append(rows)
    means = (_batch_mean(n, found[n], [at[n] for at in inputs], auxiliary, config) for n in kept)
    return tuple(evaluated), tuple(mean for mean in means if mean is not None)


def between(pair: CheckpointPair, point: float) -> dict[str, Tensor]:
    """The state at θ_g + s (θ_c - θ_g), s = `point`; integers and flags are the client's."""
    before, after = pair.before.state, pair.after.state
    return {
        name: torch.lerp(before[name].to(value), value, point)
        if value.is_floating_point()
        else value
        for name, value in after.items()
    }


def _plain(
    model: nn.Module,
    pair: CheckpointPair,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    point: float,
    ends: tuple[Outputs, Outputs],
) -> Outputs:
    if point in (0.0, 1.0):
        return ends[int(point)]
    return outputs(model, between(pair, point), auxiliary, config, pair.after.path)


def _batch_mean(
    name: str,
    statistics: Statistics,
    inputs: Sequence[Sequence[_Uses]],
    auxiliary: Auxiliary,
    config: ForwardConfig,
) -> BatchMean | None:
    """The layer's mean input as a measurement; None if it does not get one row per image.

    If a forward pass uses the layer several times, each image has several inputs. They are averaged
    with the weights that the momentum of the buffers gives them: later uses weigh more.

    inputs  the layer's inputs per point and forward pass
    """
    passes = [uses for at in inputs for uses in at]
    often = len(passes[0]) if passes else 0
    alike = all(len(uses) == often and all(len(x) == config.batch for x in uses) for uses in passes)
    if not often or not alike or len(statistics.weights) % often:
        return None
    steps = statistics.weights.view(-1, often)
    parts = (steps[-1] / steps[-1].sum()).tolist()

    def joined(uses: _Uses) -> Tensor:
        return torch.stack([x * part for x, part in zip(uses, parts, strict=True)]).sum(0)

    count = len(auxiliary.images)
    rows = tuple(torch.cat([joined(uses) for uses in at])[:count] for at in inputs)
    return BatchMean(name, statistics.mean, steps.sum(1), statistics.rounding, rows)


def _client_statistics(found: Mapping[str, Statistics], batch: int) -> _BatchStatistics:
    """The client's batch statistics, recovered from its buffers.

    batch  |B|: running_var stores unbiased variances, a training pass normalises with biased ones
    """

    def client(name: str, inputs: Tensor, number: int) -> tuple[Tensor, Tensor]:
        values = batch * inputs[0, 0].numel()
        return found[name].mean, found[name].variance * (max(values - 1, 1) / values)

    return client


def _auxiliary_statistics(weights: Sequence[Tensor]) -> _BatchStatistics:
    """The statistics of the layer's own inputs, each image with its weight.

    weights  per batch (|B|,), summing to 1
    """

    def weighted(name: str, inputs: Tensor, number: int) -> tuple[Tensor, Tensor]:
        flat = inputs.flatten(2) if inputs.dim() > 2 else inputs[:, :, None]
        weight = weights[number].to(flat)
        mean = weight @ flat.mean(2)
        return mean, weight @ ((flat - mean[:, None]) ** 2).mean(2)

    return weighted


def _weights(auxiliary: Auxiliary, config: ForwardConfig, shares: Tensor) -> list[Tensor]:
    """Weights of the images of every batch, in the order of `outputs`, by the shares of classes.

    The shares of classes without an image in the batch are spread over the other classes.
    """
    order = mixed_order(len(auxiliary.images), config.seed)
    weights = []
    for batch in pass_batches(order, config):
        labels = auxiliary.labels[batch]
        held = torch.bincount(labels, minlength=len(shares)).clamp_min(1)
        weight = (shares / held)[labels].clamp_min(_LEAST)
        weights.append(weight / weight.sum())
    return weights


@contextmanager
def _normalised(
    model: nn.Module,
    found: Mapping[str, Statistics],
    kept: Sequence[str],
    statistics: _BatchStatistics,
) -> Iterator[dict[str, list[_Uses]]]:
    """Make the layers normalise with the given statistics; yields the inputs of those in `kept`.

    A layer that counted more batches than others is used several times per pass. Its recovered
    statistics mix all its uses and fit none of them, so it keeps the batch's own statistics.
    """
    rows: dict[str, list[_Uses]] = {name: [] for name in kept}
    once = min(len(one.weights) for one in found.values())
    number = -1

    def open_pass(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal number
        number += 1
        for passes in rows.values():
            passes.append([])

    def use(name: str) -> Any:
        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach()
            if name in rows:
                rows[name][-1].append(x.flatten(2).mean(2) if x.dim() > 2 else x)
            if len(found[name].weights) > once:
                return
            mean, variance = statistics(name, x, number)
            module.training = False
            module.running_mean.copy_(mean)  # type: ignore[operator]
            module.running_var.copy_(variance)  # type: ignore[operator]

        return before

    layers = norm_layers(model)
    hooks = [model.register_forward_pre_hook(open_pass)]
    hooks += [layers[name].register_forward_pre_hook(use(name)) for name in found]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()
