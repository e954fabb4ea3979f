"""The auxiliary images seen from the straight line between two checkpoints.

Whose batch statistics a BatchNorm layer normalises with makes another model of a trained one: the
client's own, as its buffers tell, or, for images of another kind, those of the images themselves.
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
_LAYERS = 1  # BatchNorm layers, counted from the output, whose means are kept
_UNSEEN = "the last BatchNorm layer does not see one row for each image: its means are left out"

_WEIGHTED_BATCH = 256  # images that weighted statistics are of, or |B| where that is more
_LEAST = 1e-6  # weight of an image whose class the client has none of

# Mean and biased variance (C,) for a layer's inputs in the pass of the given number.
_Normalising = Callable[[str, Tensor, int], tuple[Tensor, Tensor]]
_Uses = list[Tensor]  # the inputs (|B|, C) of a layer, each time that one forward pass uses it


def evaluate_along_interpolation(
    model: nn.Module,
    pair: CheckpointPair,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    *,
    steps: int,
    ends: tuple[Outputs, Outputs],
) -> Interpolation:
    """Outputs at points of the line, under the client's own batch statistics where they are told.

    In training mode every BatchNorm layer whose buffers moved normalises with the statistics that
    the buffers tell, instead of those of a balanced auxiliary batch: the client's batches are
    skewed, and on a trained model that changes what it predicts.

    steps  m; a single step starts and ends at the global model
    ends   plain Outputs of both models, used again where nothing is told
    """
    points = POINTS if steps > 1 else POINTS[:1]
    client_like = config.training and not is_noise(auxiliary)
    found, notes = recover(model, pair) if client_like else ({}, ())
    if not found:
        seen = tuple(_plain(model, pair, auxiliary, config, point, ends) for point in points)
        return Interpolation(points, seen, notes=notes)
    told = _of_client(found, config.batch)
    looks, means = _looks(model, pair, auxiliary, config, points, found, told)
    return Interpolation(points, looks, means, () if means else (_UNSEEN,))


def reevaluate_with_aux_statistics(
    model: nn.Module,
    pair: CheckpointPair,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    shares: Tensor,
    *,
    steps: int,
) -> Interpolation | None:
    """As `look_along`, every layer normalising with the statistics that the images themselves would
    have if the client's shares of them were in a batch.

    For images of another kind than the client's, whose own statistics do not fit them. None where
    that gives no finite logits or the device has no room for it: batches are larger here.

    shares  (N,) of the client's labels, as far as they are known
    """
    points = POINTS if steps > 1 else POINTS[:1]
    found, _ = recover(model, pair)
    wide = replace(config, batch=min(max(config.batch, _WEIGHTED_BATCH), len(auxiliary.images)))
    weighted = _of_images(_weights(auxiliary, wide, shares))
    try:
        looks, means = _looks(model, pair, auxiliary, wide, points, found, weighted)
    except InputError:
        return None
    return Interpolation(points, looks, means) if means else None


def _looks(
    model: nn.Module,
    pair: CheckpointPair,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    points: Sequence[float],
    found: Mapping[str, Statistics],
    statistics: _Normalising,
) -> tuple[tuple[Outputs, ...], tuple[BatchMean, ...]]:
    """Outputs at every point, and the last layers as witnesses, under the given statistics."""
    kept = list(found)[-_LAYERS:]
    looks: list[Outputs] = []
    inputs: list[dict[str, list[_Uses]]] = []
    for point in points:
        with _normalised(model, found, kept, statistics) as rows:
            state = between(pair, point)
            looks.append(outputs(model, state, auxiliary, config, pair.after.path))
        inputs.append(rows)
    measurements = (_mean(n, found[n], [at[n] for at in inputs], auxiliary, config) for n in kept)
    return tuple(looks), tuple(mean for mean in measurements if mean is not None)


def between(pair: CheckpointPair, point: float) -> dict[str, Tensor]:
    """The state at θ_g + s (θ_c - θ_g); whole numbers and flags are the client's."""
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


def _mean(
    name: str,
    told: Statistics,
    inputs: Sequence[Sequence[_Uses]],
    auxiliary: Auxiliary,
    config: ForwardConfig,
) -> BatchMean | None:
    """The layer as a witness; None where it does not see one row for each image.

    A layer that a forward pass uses several times sees each image as often, and by its buffers'
    momentum a later use weighs more.

    inputs  at every point, of every forward pass
    """
    passes = [uses for at in inputs for uses in at]
    often = len(passes[0]) if passes else 0
    alike = all(len(uses) == often and all(len(x) == config.batch for x in uses) for uses in passes)
    if not often or not alike or len(told.weights) % often:
        return None
    steps = told.weights.view(-1, often)
    parts = (steps[-1] / steps[-1].sum()).tolist()

    def joined(uses: _Uses) -> Tensor:
        return torch.stack([seen * part for seen, part in zip(uses, parts, strict=True)]).sum(0)

    count = len(auxiliary.images)
    rows = tuple(torch.cat([joined(uses) for uses in at])[:count] for at in inputs)
    return BatchMean(name, told.mean, steps.sum(1), told.rounding, rows)


def _of_client(found: Mapping[str, Statistics], batch: int) -> _Normalising:
    """What the buffers tell.

    batch  |B|: running_var keeps unbiased variances, a training pass divides by the biased one
    """

    def told(name: str, seen: Tensor, number: int) -> tuple[Tensor, Tensor]:
        values = batch * seen[0, 0].numel()
        return found[name].mean, found[name].variance * (max(values - 1, 1) / values)

    return told


def _of_images(weights: Sequence[Tensor]) -> _Normalising:
    """What a layer sees, each image by its weight.

    weights  of every batch, (|B|,) each, summing to 1
    """

    def weighted(name: str, seen: Tensor, number: int) -> tuple[Tensor, Tensor]:
        flat = seen.flatten(2) if seen.dim() > 2 else seen[:, :, None]
        weight = weights[number].to(flat)
        mean = weight @ flat.mean(2)
        return mean, weight @ ((flat - mean[:, None]) ** 2).mean(2)

    return weighted


def _weights(auxiliary: Auxiliary, config: ForwardConfig, shares: Tensor) -> list[Tensor]:
    """Weights of the images of every batch, in the order of `outputs`: classes count as shares say.

    A class that a batch has no image of counts nothing there.
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
    model: nn.Module, found: Mapping[str, Statistics], kept: Sequence[str], statistics: _Normalising
) -> Iterator[dict[str, list[_Uses]]]:
    """Let the layers normalise with the given statistics; yields inputs of those to be kept.

    A layer that counted more batches than others is used several times in a pass: what was told is
    of all its uses together and fits none of them, so that each keeps the images' own statistics.
    """
    rows: dict[str, list[_Uses]] = {name: [] for name in kept}
    once = min(len(told.weights) for told in found.values())
    number = -1

    def open_pass(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal number
        number += 1
        for passes in rows.values():
            passes.append([])

    def use(name: str) -> Any:
        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen = inputs[0].detach()
            if name in rows:
                rows[name][-1].append(seen.flatten(2).mean(2) if seen.dim() > 2 else seen)
            if len(found[name].weights) > once:
                return
            mean, variance = statistics(name, seen, number)
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
