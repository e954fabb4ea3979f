"""Which architecture, activation and input scaling the two files were made with.

Keys and shapes tell most of it. What they cannot tell is ranked by the embedding the update
implies (Eq. 14): under the right model it points where the auxiliary images' embeddings point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from rlu_cli.auxiliary import is_noise
from rlu_cli.errors import InputError, printable
from rlu_cli.models import ARCHITECTURES, build_model, recognise
from rlu_cli.normalisation import AUTO, PRESETS, parse_normalisation
from rlu_cli.numerics.dynamics import implied_embedding
from rlu_cli.observe import View, mean_embedding, view_pair, with_bias
from rlu_cli.types import Auxiliary, Checkpoint, Head, Outputs

_RANKING_IMAGES = 256
_TOO_CLOSE = 0.05
_NOISE_SCALING = "half"
ACTIVATION = "act"


@dataclass(frozen=True)
class Reading:
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


def readings(
    checkpoint: Checkpoint, model: str | None, arguments: Mapping[str, Any], normalise: str
) -> list[Reading]:
    """Every reading that what the user said and the keys and shapes leave open.

    Raises InputError E215 when no model was named and none is recognised.
    """
    names = [model] if model is not None else _recognised(checkpoint)
    scalings = list(PRESETS) if normalise == AUTO else [normalise]
    return [
        Reading(name, open_arguments, scaling)
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


def choose(
    candidates: Sequence[Reading],
    pair: Sequence[Checkpoint],
    update: Head,
    auxiliary: Auxiliary,
    view: View,
) -> list[Reading]:
    """The candidates with their figures, best first; a single one is not measured.

    The activation is the one whose embedding has the largest cosine under any scaling, then the
    scaling is the one whose norm ratio is nearest 1.

    Raises InputError E224 when the norm ratios of two scalings are within 5 %.
    """
    if is_noise(auxiliary):
        scalings = {c.normalise for c in candidates}
        kept = _NOISE_SCALING if len(scalings) > 1 else scalings.pop()
        candidates = [c for c in candidates if c.normalise == kept]
    if len(candidates) == 1:
        return list(candidates)
    sample = _sample(auxiliary, view.batch)
    measured = [_measured(c, pair, update, sample, view) for c in candidates]
    best = max(measured, key=lambda r: r.cosine)
    alike = [r for r in measured if (r.model, r.arguments) == (best.model, best.arguments)]
    alike.sort(key=lambda r: abs(math.log(max(r.norm_ratio, 1e-9))))
    _refuse_a_tie(alike)
    others = sorted((r for r in measured if r not in alike), key=lambda r: -r.cosine)
    return alike + others


def _refuse_a_tie(alike: Sequence[Reading]) -> None:
    if len(alike) < 2:
        return
    first, second = alike[:2]
    told = second.norm_ratio > 0  # an update of the weights or the bias alone has no ratio
    if not told or abs(first.norm_ratio / second.norm_ratio - 1) <= _TOO_CLOSE:
        raise InputError(
            "E224",
            "the scaling of the input cannot be told from the files",
            facts=[(r.normalise, f"embedding norm ratio {r.norm_ratio:.3f}") for r in alike],
            why="a model with normalisation layers sees nearly the same under each"
            if first.norm_ratio > 0
            else "",
            hint="say how the client scaled its images: --normalize none|half|imagenet|MEAN/STD",
        )


def _measured(
    reading: Reading,
    pair: Sequence[Checkpoint],
    update: Head,
    auxiliary: Auxiliary,
    view: View,
) -> Reading:
    model = reading.build(pair[0], auxiliary.classes)
    seen = replace(view, normalise=parse_normalisation(reading.normalise))
    before, after = view_pair(model, pair, auxiliary, seen)
    cosine, ratio = embedding_fit(with_bias(update, before, after), before, after)
    return replace(reading, cosine=cosine, norm_ratio=ratio)


def embedding_fit(update: Head, before: Outputs, after: Outputs) -> tuple[float, float]:
    """Cosine and norm ratio of the embedding the update implies to the images' mean embedding."""
    implied = implied_embedding(update).double()
    seen = mean_embedding(before, after).double()
    cosine = torch.nn.functional.cosine_similarity(implied, seen, dim=0)
    return float(cosine), float(implied.norm() / seen.norm())


def _sample(auxiliary: Auxiliary, batch: int) -> Auxiliary:
    """A few images of every class, enough for a batch: ranking needs a mean, not moments."""
    wanted = max(_RANKING_IMAGES, batch)
    each = max(2, wanted // auxiliary.classes)
    index = [
        torch.nonzero(auxiliary.labels == n).flatten()[:each] for n in range(auxiliary.classes)
    ]
    chosen = torch.cat(index)
    return replace(auxiliary, images=auxiliary.images[chosen], labels=auxiliary.labels[chosen])
