"""Batch statistics of the client's local training, recovered from BatchNorm buffers."""

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
_EPSILON = {None: 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # relative rounding error
_WHOLE = 1e-3  # tolerated distance of a batch count from a whole number
_SURE = 3  # rounding standard deviations by which a variance may lie below 0


@dataclass(frozen=True)
class Statistics:
    """Input statistics of one BatchNorm layer over the client's batches, float64 on the CPU.

    mean      (C,) weighted mean of the batch means
    variance  (C,) weighted mean of the unbiased batch variances, as in running_var
    weights   (m',) weight of each of the layer's m' passes, first to last, summing to 1
    rounding  (C,) standard deviation of the rounding error of `mean`
    """

    mean: Tensor
    variance: Tensor
    weights: Tensor
    rounding: Tensor


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The model's BatchNorm layers with running statistics, by name, in the model's order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _Norm) and module.running_mean is not None
    }


def recover(
    model: nn.Module, pair: CheckpointPair
) -> tuple[dict[str, Statistics], tuple[str, ...]]:
    """Recover the batch statistics of every layer whose buffers moved; notes if there are none.

    With momentum κ, the running mean after m passes is r_c = (1-κ)^m r_g + κ Σ_i (1-κ)^{m-i} x̄_i;
    without momentum, it is the plain mean of all batches so far. m is the layer's own counter, so
    a layer used several times per forward pass counts each use.
    """
    before, after = (_buffers(model, checkpoint) for checkpoint in pair)
    epsilon = max(_EPSILON[checkpoint.narrow] for checkpoint in pair)
    counting = epsilon if any(map(_counts_in_floats, pair)) else 0.0
    layers = norm_layers(model)
    found = {
        name: statistics
        for name, module in layers.items()
        if (statistics := _recover_one(module, before[name], after[name], epsilon, counting))
    }
    if found or not layers:
        return found, ()
    return {}, ("BatchNorm buffers are not used: they did not move, or have no counters",)


def _buffers(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Mapping[str, Tensor]]:
    """Every layer's buffers, read through the model because its loading may rename keys."""
    layers = norm_layers(model)
    with _floating_counters(layers.values()):
        load_weights(model, checkpoint.state, path=checkpoint.path)
        return {
            name: {key: value.detach().double().cpu().clone() for key, value in m.named_buffers()}
            for name, m in layers.items()
        }


@contextmanager
def _floating_counters(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Make the counters floating-point: a server's averaging may leave fractions in a file."""
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
    """Whether any BatchNorm counter in the checkpoint is floating-point."""
    named = checkpoint.state.items()
    return any(k.endswith("num_batches_tracked") and v.is_floating_point() for k, v in named)


def _recover_one(
    module: nn.Module,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    epsilon: float,
    counting: float,
) -> Statistics | None:
    """Batch statistics of one layer; None if its counters or buffers do not determine them.

    epsilon   relative rounding of the buffers
    counting  relative rounding of the counters, 0 for integers
    """
    counted = _passes(before, after, counting)
    if counted is None:
        return None
    kept, weights = _weights(module, *counted)
    if not 0 <= kept < 1:
        return None
    (mean, rounding), (variance, variance_rounding) = (
        _invert(before[name], after[name], kept, epsilon)
        for name in ("running_mean", "running_var")
    )
    if not bool(torch.isfinite(mean).all()) or bool((variance < -_SURE * variance_rounding).any()):
        return None
    return Statistics(mean, variance.clamp_min(0), weights, rounding)


def _invert(before: Tensor, after: Tensor, kept: float, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean of the new batches in a running statistic, and its rounding error, both (C,).

    kept  weight of the old value
    """
    rounding = epsilon * (after**2 + (kept * before) ** 2).sqrt() / (1 - kept)
    return (after - kept * before) / (1 - kept), rounding


def _passes(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], epsilon: float
) -> tuple[float, int] | None:
    """The client's initial counter and the number of batches it added; None if unclear.

    A server's averaging may leave fractional counters. If the client's counter is whole even so,
    loading had truncated the fraction.

    epsilon  relative rounding of floating-point counters; above 1/epsilon they skip integers
    """
    counters = [b.get("num_batches_tracked") for b in (before, after)]
    if counters[0] is None or counters[1] is None:
        return None
    begun, ended = float(counters[0]), float(counters[1])
    begun = math.floor(begun) if ended == round(ended) else begun
    passes = round(ended - begun)
    tolerance = min(_WHOLE + 2 * epsilon * ended, 0.25)
    moved = not torch.equal(before["running_mean"], after["running_mean"])
    whole = abs(ended - begun - passes) < tolerance and ended * epsilon <= 1
    return (begun, passes) if passes > 0 and whole and moved else None


def _weights(module: nn.Module, begun: float, passes: int) -> tuple[float, Tensor]:
    """Weight of the old running mean, and the weight of each new batch, summing to 1.

    begun  counter before the first of the new batches
    """
    momentum = getattr(module, "momentum", None)
    if momentum is None:  # the plain mean of all batches so far
        return begun / (begun + passes), torch.full((passes,), 1 / passes, dtype=torch.float64)
    kept = (1 - momentum) ** passes
    powers = (1 - momentum) ** torch.arange(passes - 1, -1, -1, dtype=torch.float64)
    return kept, powers / powers.sum()
