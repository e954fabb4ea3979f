"""Model selection: which architecture, activation and input scaling fit the two checkpoints.

Keys and shapes determine most of it. The remaining hypotheses are ranked by the embedding that the
update implies (Eq. 14): under the right model it is parallel to the auxiliary images' mean
embedding.
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
    """The candidates with cosine and norm ratio, best first; a single one is not evaluated.

    The best model and activation have the largest cosine under any scaling. The best scaling then
    has the norm ratio nearest 1.

    update  of the output layer, without the gradient-free offset

    Raises InputError E224 if the norm ratios of the two best scalings are within 5 %.
    """
    if is_noise(auxiliary):
        scalings = {c.normalise for c in candidates}
        kept = _NOISE_SCALING if len(scalings) > 1 else scalings.pop()
        candidates = [c for c in candidates if c.normalise == kept]
    if len(candidates) == 1:
        return list(candidates)
    sample = _sample(auxiliary, config.batch)
    evaluated = [_evaluated(c, pair, update, sample, config) for c in candidates]
    best = max(evaluated, key=lambda h: h.cosine)
    scalings_of_best = [
        h for h in evaluated if (h.model, h.arguments) == (best.model, best.arguments)
    ]
    scalings_of_best.sort(key=lambda h: abs(math.log(max(h.norm_ratio, 1e-9))))
    _refuse_tie(scalings_of_best)
    others = sorted((h for h in evaluated if h not in scalings_of_best), key=lambda h: -h.cosine)
    return scalings_of_best + others


def _refuse_tie(candidates: Sequence[ModelHypothesis]) -> None:
    """Raise InputError E224 if the two best input scalings fit equally well."""
    if len(candidates) < 2:
        return
    first, second = candidates[:2]
    known = second.norm_ratio > 0  # 0 if only the weights or only the bias moved
    if not known or abs(first.norm_ratio / second.norm_ratio - 1) <= _TOO_CLOSE:
        raise InputError(
            "E224",
            "the input scaling cannot be determined from the files",
            facts=[(h.normalise, f"embedding norm ratio {h.norm_ratio:.3f}") for h in candidates],
            why="a model with normalisation layers gives nearly the same outputs under each"
            if first.norm_ratio > 0
            else "",
            hint="give the client's input scaling: --normalize none|half|imagenet|MEAN/STD",
        )


def _evaluated(
    hypothesis: ModelHypothesis,
    pair: CheckpointPair,
    update: Head,
    auxiliary: Auxiliary,
    config: ForwardConfig,
) -> ModelHypothesis:
    """The hypothesis with its cosine and norm ratio."""
    model = hypothesis.build(pair.before, auxiliary.classes)
    config = replace(config, normalise=parse_normalisation(hypothesis.normalise))
    before, after = evaluate_pair(model, pair, auxiliary, config)
    cosine, ratio = embedding_fit(with_bias(update, before, after), before, after)
    return replace(hypothesis, cosine=cosine, norm_ratio=ratio)


def embedding_fit(update: Head, before: Outputs, after: Outputs) -> tuple[float, float]:
    """Cosine and norm ratio of the implied embedding to the images' mean embedding (Eq. 14)."""
    implied = implied_embedding(update).double()
    mean = mean_embedding(before, after).double()
    cosine = torch.nn.functional.cosine_similarity(implied, mean, dim=0)
    return float(cosine), float(implied.norm() / mean.norm())


def _sample(auxiliary: Auxiliary, batch: int) -> Auxiliary:
    """A few images of every class, at least a batch in all: enough for a mean embedding."""
    wanted = max(_RANKING_IMAGES, batch)
    each = max(2, wanted // auxiliary.classes)
    index = [
        torch.nonzero(auxiliary.labels == n).flatten()[:each] for n in range(auxiliary.classes)
    ]
    chosen = torch.cat(index)
    return replace(auxiliary, images=auxiliary.images[chosen], labels=auxiliary.labels[chosen])
