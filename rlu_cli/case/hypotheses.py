"""Model hypotheses: the architectures, activations and input scalings that fit the files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from rlu_cli.errors import InputError, printable
from rlu_cli.models import ARCHITECTURES, build_model, recognise
from rlu_cli.models.input_scaling import AUTO, PRESETS
from rlu_cli.types import Checkpoint

ACTIVATION = "act"


@dataclass(frozen=True)
class ModelHypothesis:
    """One combination of architecture, activation and input scaling, and how well it fits.

    model       reference, as in --model
    arguments   of the model, beyond what keys and shapes determine
    normalise   input scaling, as in --normalize
    cosine      between the embedding implied by the update and the images' mean embedding
    norm_ratio  norm of the implied embedding over that of the mean embedding

    `cosine` and `norm_ratio` are NaN until the hypothesis is evaluated.
    """

    model: str
    arguments: Mapping[str, Any]
    normalise: str
    cosine: float = math.nan
    norm_ratio: float = math.nan

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
    normalise  input scaling given by the user; "auto" for every preset

    Raises InputError E215 if no model is given and none is recognised.
    """
    names = [model] if model is not None else _recognised(checkpoint)
    scalings = list(PRESETS) if normalise == AUTO else [normalise]
    return [
        ModelHypothesis(name, open_arguments, scaling)
        for name in names
        for open_arguments in _activations(name, arguments)
        for scaling in scalings
    ]


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


def _activations(name: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The given arguments, with each known activation of the architecture if none is given."""
    known = name in ARCHITECTURES and ARCHITECTURES[name].options.get(ACTIVATION)
    if not known or ACTIVATION in arguments:
        return [dict(arguments)]
    return [{**arguments, ACTIVATION: choice} for choice in known]
