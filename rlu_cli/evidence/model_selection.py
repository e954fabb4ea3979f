"""Which architecture, activation and input scaling the two files were made with.

Keys and shapes tell most of it. What they cannot tell is ranked by the embedding the update
implies (Eq. 14): under the right model it points where the auxiliary images' embeddings point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from rlu_cli.case.auxiliary import is_noise
from rlu_cli.case.hypotheses import ModelHypothesis
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError
from rlu_cli.evidence.forward import ForwardConfig, evaluate_pair, mean_embedding, with_bias
from rlu_cli.models.input_scaling import parse_normalisation
from rlu_cli.numerics.dynamics import implied_embedding
from rlu_cli.types import Auxiliary, Head, Outputs

_RANKING_IMAGES = 256
_TOO_CLOSE = 0.05
_NOISE_SCALING = "half"


def choose(
    candidates: Sequence[ModelHypothesis],
    pair: CheckpointPair,
    update: Head,
    auxiliary: Auxiliary,
    config: ForwardConfig,
) -> list[ModelHypothesis]:
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
    sample = _sample(auxiliary, config.batch)
    measured = [_measured(c, pair, update, sample, config) for c in candidates]
    best = max(measured, key=lambda r: r.cosine)
    alike = [r for r in measured if (r.model, r.arguments) == (best.model, best.arguments)]
    alike.sort(key=lambda r: abs(math.log(max(r.norm_ratio, 1e-9))))
    _refuse_a_tie(alike)
    others = sorted((r for r in measured if r not in alike), key=lambda r: -r.cosine)
    return alike + others


def _refuse_a_tie(alike: Sequence[ModelHypothesis]) -> None:
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
    reading: ModelHypothesis,
    pair: CheckpointPair,
    update: Head,
    auxiliary: Auxiliary,
    config: ForwardConfig,
) -> ModelHypothesis:
    model = reading.build(pair.before, auxiliary.classes)
    seen = replace(config, normalise=parse_normalisation(reading.normalise))
    before, after = evaluate_pair(model, pair, auxiliary, seen)
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
