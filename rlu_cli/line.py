"""The auxiliary images seen from the straight line between two checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlu_cli.auxiliary import is_noise
from rlu_cli.batch_statistics import Statistics, norm_layers, recover
from rlu_cli.observe import View, outputs
from rlu_cli.types import Auxiliary, BatchMean, Checkpoint, Line, Outputs

POINTS = (0.0, 0.5, 1.0)
_LAYERS = 1  # BatchNorm layers, counted from the output, whose means are kept
_UNSEEN = "the last BatchNorm layer does not see one row for each image: its means are left out"

_Uses = list[Tensor]  # the inputs (|B|, C) of a layer, each time that one forward pass uses it


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
    client_like = view.training and not is_noise(auxiliary)
    found, notes = recover(model, pair) if client_like else ({}, ())
    if not found:
        seen = tuple(_plain(model, pair, auxiliary, view, point, ends) for point in points)
        return Line(points, seen, notes=notes)
    kept = list(found)[-_LAYERS:]
    looks: list[Outputs] = []
    inputs: list[dict[str, list[_Uses]]] = []
    with _told(model, found, kept, view.batch) as rows:
        for point in points:
            state = between(pair, point)
            looks.append(outputs(model, state, auxiliary, view, pair[1].path))
            inputs.append({name: rows[name].copy() for name in kept})
            for passes in rows.values():
                passes.clear()
    found_means = (_mean(n, found[n], [at[n] for at in inputs], auxiliary, view) for n in kept)
    means = tuple(mean for mean in found_means if mean is not None)
    return Line(points, tuple(looks), means, () if means else (_UNSEEN,))


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


def _mean(
    name: str,
    told: Statistics,
    inputs: Sequence[Sequence[_Uses]],
    auxiliary: Auxiliary,
    view: View,
) -> BatchMean | None:
    """The layer as a witness; None where it does not see one row for each image.

    A layer that a forward pass uses several times sees each image as often, and by its buffers'
    momentum a later use weighs more.

    inputs  at every point, of every forward pass
    """
    passes = [uses for at in inputs for uses in at]
    often = len(passes[0]) if passes else 0
    alike = all(len(uses) == often and all(len(x) == view.batch for x in uses) for uses in passes)
    if not often or not alike or len(told.weights) % often:
        return None
    steps = told.weights.view(-1, often)
    parts = (steps[-1] / steps[-1].sum()).tolist()

    def joined(uses: _Uses) -> Tensor:
        return torch.stack([seen * part for seen, part in zip(uses, parts, strict=True)]).sum(0)

    count = len(auxiliary.images)
    rows = tuple(torch.cat([joined(uses) for uses in at])[:count] for at in inputs)
    return BatchMean(name, told.mean, steps.sum(1), told.rounding, rows)


@contextmanager
def _told(
    model: nn.Module, found: Mapping[str, Statistics], kept: Sequence[str], batch: int
) -> Iterator[dict[str, list[_Uses]]]:
    """Let the layers normalise with what was told of them; yields inputs of those to be kept.

    A layer that counted more batches than others is used several times in a pass: what was told is
    of all its uses together and fits none of them, so that each keeps the images' own statistics.

    batch  |B|: running_var keeps unbiased variances, a training pass divides by the biased one
    """
    rows: dict[str, list[_Uses]] = {name: [] for name in kept}
    once = min(len(told.weights) for told in found.values())

    def open_pass(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for passes in rows.values():
            passes.append([])

    def use(name: str) -> Any:
        told = found[name]

        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen = inputs[0].detach()
            if name in rows:
                rows[name][-1].append(seen.flatten(2).mean(2) if seen.dim() > 2 else seen)
            if len(told.weights) > once:
                return
            values = batch * seen[0, 0].numel()
            biased = told.variance * (max(values - 1, 1) / values)
            module.training = False
            module.running_mean.copy_(told.mean)  # type: ignore[operator]
            module.running_var.copy_(biased)  # type: ignore[operator]

        return before

    layers = norm_layers(model)
    hooks = [model.register_forward_pre_hook(open_pass)]
    hooks += [layers[name].register_forward_pre_hook(use(name)) for name in found]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()
