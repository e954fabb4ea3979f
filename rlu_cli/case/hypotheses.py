"""The architectures, activations and input scalings that keys, shapes and the user leave open."""

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
    """One way to read the files, and how well it fits.

    model       reference, as in --model
    arguments   of the model, beyond what keys and shapes tell
    normalise   a scaling, as in --normalize
    cosine      between the embedding implied by the update and the images' mean embedding
    norm_ratio  length of the first over that of the second
    """

    model: str
    arguments: Mapping[str, Any]
    normalise: str
    cosine: float = math.nan
    norm_ratio: float = math.nan

    def build(self, checkpoint: Checkpoint, classes: int) -> nn.Module:
        """The model, with initial weights. Raises InputError E215 or E216."""
        return build_model(
            self.model, state=checkpoint.state, arguments=self.arguments, classes=classes
        )


def hypotheses(
    checkpoint: Checkpoint, model: str | None, arguments: Mapping[str, Any], normalise: str
) -> list[ModelHypothesis]:
    """Every reading that what the user said and the keys and shapes leave open.

    Raises InputError E215 when no model was named and none is recognised.
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
            f"no known architecture has the weights of {printable(checkpoint.path)}",
            facts=[("known", ", ".join(ARCHITECTURES))],
            hint="name your own: --model path/model.py:Net or --model package.module:factory "
            "(its code will be run)",
        )
    return found


def _activations(name: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The given arguments, once for each activation when none is given and the table knows some."""
    known = name in ARCHITECTURES and ARCHITECTURES[name].options.get(ACTIVATION)
    if not known or ACTIVATION in arguments:
        return [dict(arguments)]
    return [{**arguments, ACTIVATION: choice} for choice in known]
