"""What two checkpoints' BatchNorm buffers tell of the batches between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlu_cli.models import load_weights
from rlu_cli.types import Checkpoint

_Norm = nn.modules.batchnorm._BatchNorm
_EPSILON = {None: 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit, relative
_WHOLE = 1e-3  # how far from a whole number a count of batches may be


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
    model: nn.Module, pair: Sequence[Checkpoint]
) -> tuple[dict[str, Statistics], tuple[str, ...]]:
    """The batch statistics of every layer whose buffers moved, and why there are none.

    With momentum κ, m passes leave r_c = (1-κ)^m r_g + κ Σ_i (1-κ)^{m-i} x̄_i of a running mean; a
    layer without a momentum keeps the plain mean of all batches so far. A layer that a forward
    pass uses several times counts as often, which its own counter says.
    """
    before, after = (_buffers(model, checkpoint) for checkpoint in pair)
    narrow = next((c.narrow for c in pair if c.narrow), None)
    layers = norm_layers(model)
    found = {
        name: told
        for name, module in layers.items()
        if (told := _recover_one(module, before[name], after[name], _EPSILON[narrow]))
    }
    if found or not layers:
        return found, ()
    return {}, ("the BatchNorm buffers did not move or have no counters: they tell nothing",)


def _buffers(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Mapping[str, Tensor]]:
    """Every layer's buffers, read through the model: its own loading may rename keys."""
    load_weights(model, checkpoint.state, path=checkpoint.path)
    return {
        name: {key: value.detach().double().cpu().clone() for key, value in module.named_buffers()}
        for name, module in norm_layers(model).items()
    }


def _recover_one(
    module: nn.Module, before: Mapping[str, Tensor], after: Mapping[str, Tensor], epsilon: float
) -> Statistics | None:
    passes = _passes(before, after)
    if passes is None:
        return None
    kept, weights = _weights(module, float(before["num_batches_tracked"]), passes)
    if not 0 <= kept < 1:
        return None
    mean, variance = (
        (after[name] - kept * before[name]) / (1 - kept) for name in ("running_mean", "running_var")
    )
    size = (after["running_mean"] ** 2 + (kept * before["running_mean"]) ** 2).sqrt()
    rounding = epsilon * size / (1 - kept)
    if not bool(torch.isfinite(mean).all()) or bool((variance < -rounding.max()).any()):
        return None
    return Statistics(mean, variance.clamp_min(0), weights, rounding)


def _passes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> int | None:
    """Batches between two counters, which a server may have averaged into floats."""
    counters = [b.get("num_batches_tracked") for b in (before, after)]
    if counters[0] is None or counters[1] is None:
        return None
    difference = float(counters[1] - counters[0])
    whole = round(difference)
    moved = not torch.equal(before["running_mean"], after["running_mean"])
    return whole if whole > 0 and abs(difference - whole) < _WHOLE and moved else None


def _weights(module: nn.Module, seen: float, passes: int) -> tuple[float, Tensor]:
    """How much of the old running mean is kept, and the weight of each new batch, summing to 1."""
    momentum = getattr(module, "momentum", None)
    if momentum is None:  # the plain mean of all batches so far
        return seen / (seen + passes), torch.full((passes,), 1 / passes, dtype=torch.float64)
    kept = (1 - momentum) ** passes
    powers = (1 - momentum) ** torch.arange(passes - 1, -1, -1, dtype=torch.float64)
    return kept, powers / powers.sum()
