"""The auxiliary images seen from the straight line between two checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlu_cli.batch_statistics import Statistics, norm_layers, recover
from rlu_cli.observe import View, outputs
from rlu_cli.types import Auxiliary, BatchMean, Checkpoint, Line, Outputs

POINTS = (0.0, 0.5, 1.0)
_LAYERS = 1  # BatchNorm layers, counted from the output, whose means are kept


def look_along(
    model: nn.Module,
    pair: Sequence[Checkpoint],
    auxiliary: Auxiliary,
    view: View,
    *,
    steps: int,
    ends: tuple[Outputs, Outputs],
) -> Line:
    """Outputs at points of the line, under the client's own batch statistics where they are told.

    In training mode every BatchNorm layer whose buffers moved normalises with the statistics that
    the buffers tell, instead of those of a balanced auxiliary batch: the client's batches are
    skewed, and on a trained model that changes what it predicts.

    steps  m; a single step starts and ends at the global model
    ends   plain Outputs of both models, used again where nothing is told
    """
    points = POINTS if steps > 1 else POINTS[:1]
    found, notes = recover(model, pair) if view.training else ({}, ())
    if not found:
        seen = tuple(_plain(model, pair, auxiliary, view, point, ends) for point in points)
        return Line(points, seen, notes=notes)
    kept = list(found)[-_LAYERS:]
    looks: list[Outputs] = []
    inputs: list[dict[str, Tensor]] = []
    with _told(model, found, kept, view.batch) as rows:
        for point in points:
            for listed in rows.values():
                listed.clear()
            state = between(pair, point)
            looks.append(outputs(model, state, auxiliary, view, pair[1].path))
            count = len(looks[-1].labels)
            inputs.append({name: torch.cat(rows[name])[:count] for name in kept})
    means = tuple(_mean(name, found[name], [at[name] for at in inputs]) for name in kept)
    return Line(points, tuple(looks), means)


def between(pair: Sequence[Checkpoint], point: float) -> dict[str, Tensor]:
    """The state at θ_g + s (θ_c - θ_g); whole numbers and flags are the client's."""
    before, after = (checkpoint.state for checkpoint in pair)
    return {
        name: torch.lerp(before[name].to(value), value, point)
        if value.is_floating_point()
        else value
        for name, value in after.items()
    }


def _plain(
    model: nn.Module,
    pair: Sequence[Checkpoint],
    auxiliary: Auxiliary,
    view: View,
    point: float,
    ends: tuple[Outputs, Outputs],
) -> Outputs:
    if point in (0.0, 1.0):
        return ends[int(point)]
    return outputs(model, between(pair, point), auxiliary, view, pair[1].path)


def _mean(name: str, told: Statistics, inputs: list[Tensor]) -> BatchMean:
    return BatchMean(name, told.mean, told.weights, told.rounding, tuple(inputs))


@contextmanager
def _told(
    model: nn.Module, found: Mapping[str, Statistics], kept: Sequence[str], batch: int
) -> Iterator[dict[str, list[Tensor]]]:
    """Let the layers normalise with what was told of them; yields inputs of those to be kept.

    batch  |B|: running_var keeps unbiased variances, a training pass divides by the biased one
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in kept}

    def use(name: str) -> Any:
        told = found[name]

        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen = inputs[0]
            values = batch * seen[0, 0].numel()
            biased = told.variance * (max(values - 1, 1) / values)
            module.training = False
            module.running_mean.copy_(told.mean)  # type: ignore[operator]
            module.running_var.copy_(biased)  # type: ignore[operator]
            if name in rows:
                rows[name].append(seen.detach().flatten(2).mean(2) if seen.dim() > 2 else seen)

        return before

    layers = norm_layers(model)
    hooks = [layers[name].register_forward_pre_hook(use(name)) for name in found]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()
