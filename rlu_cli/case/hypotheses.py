"""Model hypotheses: the architectures, activations and input scalings that fit the files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from rlu_cli.errors import InputError, printable
from rlu_cli.models import ARCHITECTURES, build_model, recognise
from rlu_cli.models.input_scaling import AUTO, AUX, of_images
from rlu_cli.types import Checkpoint

ACTIVATION = "act"

# Prior of the first activation listed, which is relu; the others share the rest evenly.
_USUAL = 0.8

# Prior of the input scalings, those that are nearly alike or for one kind of image being less.
_SCALINGS = {
    "none": 0.2,
    "half": 0.2,
    "imagenet": 0.2,
    "cifar10": 0.1,
    "cifar100": 0.1,
    "mnist": 0.1,
    AUX: 0.1,
}


@dataclass(frozen=True)
class ModelHypothesis:
    """One combination of architecture, activation and input scaling, and how well it fits.

    model       reference, as in --model
    arguments   of the model, beyond what keys and shapes determine
    normalise   input scaling, as in --normalize
    prior       probability before anything was evaluated; the priors sum to 1 over the candidates
    cosine      between the embedding implied by the update and the images' mean embedding
    norm_ratio  norm of the implied embedding over that of the mean embedding
    weight      posterior probability; the weights sum to 1 over the candidates
    same_as     position, among the ranked candidates, of the first under which the model gives the
                same outputs on the auxiliary images

    `cosine` and `norm_ratio` are NaN until the hypothesis is evaluated, `weight` until it is
    ranked.
    """

    model: str
    arguments: Mapping[str, Any]
    normalise: str
    prior: float = 1.0
    cosine: float = math.nan
    norm_ratio: float = math.nan
    weight: float = math.nan
    same_as: int = 0

    def build(self, checkpoint: Checkpoint, classes: int) -> nn.Module:
        """Build the model with initial weights. Raises InputError E215 or E216."""
        return build_model(
            self.model, state=checkpoint.state, arguments=self.arguments, classes=classes
        )


def hypotheses(
    checkpoint: Checkpoint, model: str | None, arguments: Mapping[str, Any], normalise: str
) -> list[ModelHypothesis]:
    """Every hypothesis consistent with the settings and with the checkpoint's keys and shapes.

    model      reference given by the user; None to recognise the architecture
    arguments  model arguments given by the user
    normalise  input scaling given by the user; "auto" for every preset and `aux`

    Raises InputError E215 if no model is given and none is recognised.
    """
    names = [model] if model is not None else _recognised(checkpoint)
    scalings = _SCALINGS if normalise == AUTO else {normalise: 1.0}
    return [
        ModelHypothesis(name, open_arguments, scaling, prior=usual * prior / len(names))
        for name in names
        for open_arguments, usual in _activations(name, arguments)
        for scaling, prior in scalings.items()
    ]


def with_images(
    candidates: Sequence[ModelHypothesis], images: Tensor
) -> tuple[ModelHypothesis, ...]:
    """The candidates with `aux` replaced by the mean and standard deviation of the images.

    images  (A, C, H, W) in 0…1
    """
    if not any(one.normalise == AUX for one in candidates):
        return tuple(candidates)
    scaling = of_images(images)
    return tuple(
        replace(one, normalise=scaling) if one.normalise == AUX else one for one in candidates
    )


def _recognised(checkpoint: Checkpoint) -> list[str]:
    found = [candidate.name for candidate in recognise(checkpoint.state)]
    if not found:
        raise InputError(
            "E215",
            f"the weights in {printable(checkpoint.path)} fit no known architecture",
            facts=[("known", ", ".join(ARCHITECTURES))],
            hint="give your own: --model path/model.py:Net or --model package.module:factory "
            "(its code will be run)",
        )
    return found


def _activations(name: str, arguments: Mapping[str, Any]) -> list[tuple[dict[str, Any], float]]:
    """The given arguments, with each known activation of the architecture if none is given.

    Each with its prior. A published package's architecture has the activation of its own.
    """
    known = name in ARCHITECTURES and ARCHITECTURES[name].options.get(ACTIVATION)
    if not known or ACTIVATION in arguments:
        return [(dict(arguments), 1.0)]
    if ARCHITECTURES[name].fixed:
        return [({**arguments, ACTIVATION: known[0]}, 1.0)]
    rest = (1 - _USUAL) / (len(known) - 1)
    return [
        ({**arguments, ACTIVATION: choice}, rest if number else _USUAL)
        for number, choice in enumerate(known)
    ]
