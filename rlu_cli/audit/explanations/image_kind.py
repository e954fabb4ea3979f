"""The auxiliary images are of another kind than the client's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from rlu_cli.audit.explanations.clues import Clues
from rlu_cli.audit.explanations.explanation import Explanation
from rlu_cli.audit.explanations.trial import sampled
from rlu_cli.evidence.batchnorm_statistics import norm_layers, recover
from rlu_cli.evidence.forward import outputs
from rlu_cli.evidence.model_selection import embedding_fit
from rlu_cli.types import Checkpoint

_ADVICE = "give labelled images like the client's"
_PER_DISTANCE = 20.0
_PER_GAP, _MOST = 300.0, 60.0
_LEAST = 1e-12
_ANGLE, _OF_IMAGES = 0.3, 4.0  # usual angle, and the variance of that of one image
_GAP = 0.15  # confidence over accuracy that overfitting explains
_AT_CHANCE = 2.0  # accuracy over chance up to which a model knows nothing of the images


def image_kind(clues: Clues) -> Explanation | None:
    """Images that the global model is sure and wrong about, or with other statistics or embeddings.

    gain  the sum of: (confidence - accuracy - 0.15) of a trained model, the distance of the first
          BatchNorm layer's statistics, and of the embedding that the update implies, in calibrated
          units
    """
    if not clues.labelled:
        return None
    parts = {**confidence_gap(clues), **statistics_distance(clues), **embedding_distance(clues)}
    if not parts:
        return None
    text, gain = max(parts.items(), key=lambda part: part[1])
    return Explanation(
        "other images",
        gain,
        f"the auxiliary images seem to be of another kind than the client's: {text}",
        _ADVICE,
    )


def confidence_gap(clues: Clues) -> dict[str, float]:
    """How much surer than right the global model is on the images, in evaluation mode."""
    if clues.trial is None:
        return {}
    sure, right = clues.trial.sure, clues.trial.accuracy
    text = (
        f"the global model gives them a mean confidence of {sure:.0%} and is right on {right:.0%}"
    )
    lost = 2 * right < sure and right * clues.evidence.classes < _AT_CHANCE
    gap = max(sure - right - _GAP, 0.0) * lost * clues.trial.spread**2
    return {text: min(_PER_GAP * gap, _MOST)}


def statistics_distance(clues: Clues) -> dict[str, float]:
    """Distance of the images' statistics in the first BatchNorm layer from the client's.

    d² = mean over channels of (μ - m)² / v + (log v' / v)² / 2, μ and v' of the images, m and v of
    the client's batches: that of the nearer of both models, less the one between them.
    """
    layers = norm_layers(clues.model)
    if not layers:
        return {}
    found, _ = recover(clues.model, clues.pair)
    name = next(iter(layers))
    if name in found:
        mean, variance = found[name].mean, found[name].variance
    else:
        return {}
    ends = [_statistics(clues, layers[name], checkpoint) for checkpoint in clues.pair]
    # The layers before it change during the round too: what they change explains as much.
    drift = _distance(*ends[1], *ends[0])
    distance = max(min(_distance(*end, mean, variance) for end in ends) - drift, 0.0)
    text = (
        "the statistics of the first BatchNorm layer differ by "
        f"{math.sqrt(distance):.2f} standard deviations"
    )
    return {text: _PER_DISTANCE * distance}


def _distance(mean: Tensor, variance: Tensor, other: Tensor, other_variance: Tensor) -> float:
    """Mean over channels of (μ - m)² / v + (log v' / v)² / 2."""
    ratio = (variance.clamp_min(_LEAST) / other_variance.clamp_min(_LEAST)).log()
    apart = (mean - other) ** 2 / other_variance.clamp_min(_LEAST)
    return float(apart.mean() + ratio.square().mean() / 2)


def _statistics(clues: Clues, layer: nn.Module, checkpoint: Checkpoint) -> tuple[Tensor, Tensor]:
    """Mean and variance of the layer's inputs over the images, at the quick shares."""
    with _inputs(layer) as seen:
        config = replace(clues.config, training=False)
        sample = sampled(clues.auxiliary)
        found = outputs(clues.model, checkpoint.state, sample, config, checkpoint.path)
        order = found.labels.cpu()
    flat = torch.cat([x.flatten(2).mean(2) if x.dim() > 2 else x for x in seen]).double()
    square = torch.cat([(x**2).flatten(2).mean(2) if x.dim() > 2 else x**2 for x in seen]).double()
    counts = torch.bincount(order, minlength=clues.evidence.classes).clamp_min(1)
    weight = (clues.shares_at(1.0) / counts)[order]
    weight = weight / weight.sum()
    own = weight @ flat
    return own, weight @ square - own**2


def embedding_distance(clues: Clues) -> dict[str, float]:
    """How far the embedding that the update implies is from the images'."""
    if norm_layers(clues.model) or clues.noisy:
        return {}  # embeddings depend on the other images of the batch, or are those of noise
    evidence = clues.evidence
    cosine, ratio = embedding_fit(evidence.learned, evidence.before, evidence.after)
    angle = math.acos(min(max(cosine, -1.0), 1.0))
    text = (
        f"the update implies another embedding than theirs (cosine {cosine:.2f}, "
        f"length {ratio:.2f})"
    )
    expected = _ANGLE**2 + _OF_IMAGES / clues.images
    return {text: angle**2 / expected * (1 - clues.learned)}


@contextmanager
def _inputs(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Yields a list to which every pass adds the layer's input."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach().cpu())

    hook = layer.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()
