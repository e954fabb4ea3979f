"""What two checkpoints' BatchNorm buffers tell of the batches between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.models import load_weights
from rlu_cli.types import Checkpoint

_Norm = nn.modules.batchnorm._BatchNorm
_EPSILON = {None: 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit, relative
_WHOLE = 1e-3  # how far from a whole number a count of batches may be
_SURE = 3  # standard deviations of rounding below 0 that a variance may be


@dataclass(frozen=True)
class Statistics:
    """The client's batches as one BatchNorm layer saw them, float64 on the CPU.

    mean      (C,) weighted mean of the batch means
    variance  (C,) weighted mean of the batch variances, unbiased as running_var keeps them
    weights   (m',) of the layer's passes, first to last, summing to 1
    rounding  (C,) standard deviation that the files' precision leaves of `mean`
    """

    mean: Tensor
    variance: Tensor
    weights: Tensor
    rounding: Tensor


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The model's BatchNorm layers that keep statistics, by name, in the model's order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _Norm) and module.running_mean is not None
    }


def recover(
    model: nn.Module, pair: CheckpointPair
) -> tuple[dict[str, Statistics], tuple[str, ...]]:
    """The batch statistics of every layer whose buffers moved, and why there are none.

    With momentum κ, m passes leave r_c = (1-κ)^m r_g + κ Σ_i (1-κ)^{m-i} x̄_i of a running mean; a
    layer without a momentum keeps the plain mean of all batches so far. A layer that a forward
    pass uses several times counts as often, which its own counter says.
    """
    before, after = (_buffers(model, checkpoint) for checkpoint in pair)
    epsilon = max(_EPSILON[checkpoint.narrow] for checkpoint in pair)
    counting = epsilon if any(map(_counts_in_floats, pair)) else 0.0
    layers = norm_layers(model)
    found = {
        name: told
        for name, module in layers.items()
        if (told := _recover_one(module, before[name], after[name], epsilon, counting))
    }
    if found or not layers:
        return found, ()
    return {}, ("the BatchNorm buffers did not move or have no counters: they tell nothing",)


def _buffers(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Mapping[str, Tensor]]:
    """Every layer's buffers, read through the model: its own loading may rename keys."""
    layers = norm_layers(model)
    with _floating_counters(layers.values()):
        load_weights(model, checkpoint.state, path=checkpoint.path)
        return {
            name: {key: value.detach().double().cpu().clone() for key, value in m.named_buffers()}
            for name, m in layers.items()
        }


@contextmanager
def _floating_counters(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Let the layers' counters hold fractions, which a server's averaging leaves in a file."""
    counted = [(m, m.num_batches_tracked) for m in layers]
    known = [(m, counter) for m, counter in counted if isinstance(counter, Tensor)]
    for module, counter in known:
        module.num_batches_tracked = counter.double()
    try:
        yield
    finally:
        for module, counter in known:
            module.num_batches_tracked = counter


def _counts_in_floats(checkpoint: Checkpoint) -> bool:
    named = checkpoint.state.items()
    return any(k.endswith("num_batches_tracked") and v.is_floating_point() for k, v in named)


def _recover_one(
    module: nn.Module,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    epsilon: float,
    counting: float,
) -> Statistics | None:
    counted = _passes(before, after, counting)
    if counted is None:
        return None
    kept, weights = _weights(module, *counted)
    if not 0 <= kept < 1:
        return None
    (mean, rounding), (variance, loose) = (
        _invert(before[name], after[name], kept, epsilon)
        for name in ("running_mean", "running_var")
    )
    if not bool(torch.isfinite(mean).all()) or bool((variance < -_SURE * loose).any()):
        return None
    return Statistics(mean, variance.clamp_min(0), weights, rounding)


def _invert(before: Tensor, after: Tensor, kept: float, epsilon: float) -> tuple[Tensor, Tensor]:
    """The part of a running figure that is new, and the rounding of it, both (C,)."""
    rounding = epsilon * (after**2 + (kept * before) ** 2).sqrt() / (1 - kept)
    return (after - kept * before) / (1 - kept), rounding


def _passes(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], epsilon: float
) -> tuple[float, int] | None:
    """The counter a client began with and the batches it added; None when they cannot be told.

    A server may have averaged counters into fractions. A client's counter that is whole all the
    same began whole: loading cuts fractions off.

    epsilon  relative rounding of counters kept as floats; beyond its reciprocal they skip numbers
    """
    counters = [b.get("num_batches_tracked") for b in (before, after)]
    if counters[0] is None or counters[1] is None:
        return None
    begun, ended = float(counters[0]), float(counters[1])
    begun = math.floor(begun) if ended == round(ended) else begun
    passes = round(ended - begun)
    path_position_std = min(_WHOLE + 2 * epsilon * ended, 0.25)
    moved = not torch.equal(before["running_mean"], after["running_mean"])
    told = abs(ended - begun - passes) < path_position_std and ended * epsilon <= 1
    return (begun, passes) if passes > 0 and told and moved else None


def _weights(module: nn.Module, seen: float, passes: int) -> tuple[float, Tensor]:
    """How much of the old running mean is kept, and the weight of each new batch, summing to 1."""
    momentum = getattr(module, "momentum", None)
    if momentum is None:  # the plain mean of all batches so far
        return seen / (seen + passes), torch.full((passes,), 1 / passes, dtype=torch.float64)
    kept = (1 - momentum) ** passes
    powers = (1 - momentum) ** torch.arange(passes - 1, -1, -1, dtype=torch.float64)
    return kept, powers / powers.sum()
