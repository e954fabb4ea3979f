"""Model selection: how probable each architecture, activation and input scaling is.

Keys and shapes determine most of it. The rest is weighed by the likelihood of everything that both
models and the auxiliary images show (`model_evidence`), times a prior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from rlu_cli.case.auxiliary import is_noise
from rlu_cli.case.hypotheses import ModelHypothesis
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.evidence.forward import ForwardConfig
from rlu_cli.evidence.model_evidence import ModelEvidence, look_at
from rlu_cli.evidence.model_evidence import embedding_fit as embedding_fit
from rlu_cli.models.input_scaling import parse_normalisation
from rlu_cli.types import Auxiliary, Head

_RANKING_IMAGES = 256
_NOISE_SCALING = "half"
_FINALISTS = 2  # models under which every scaling is tried, and scalings tried under every model

# Effective numbers of observations: what a witness may say at most (docs/method.md).
_UPDATE = 20.0  # of the update's unexplained share
_UNITS = 10.0  # of the last hidden layer's units
_NORM = 3.0  # of each BatchNorm layer
_LEAST_UNEXPLAINED = 5e-3  # shares below it are alike: the auxiliary images are not the client's
_LEAST_DISTANCE = 1e-2  # squared distances below it are alike: class mix, moving weights
_LEAST_LOSS = 0.02  # nats by which models may differ for no reason
_MOST_DEVIATIONS = 5.0  # standard errors beyond which a difference of losses says no more

_SAME_SHARES = 0.01  # total variation of the class means up to which outputs are the same
_SAME_EMBEDDINGS = 0.05  # relative distance of the class means of the embeddings, likewise


def choose(
    candidates: Sequence[ModelHypothesis],
    pair: CheckpointPair,
    update: Head,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    images: float = _RANKING_IMAGES,
) -> list[ModelHypothesis]:
    """The candidates with their posterior weights, best first; a single one is not evaluated.

    Every model is evaluated under the most usual scaling; the two best under every scaling; every
    model under the two best scalings. The others get the weight 0.

    update  of the output layer, without the gradient-free offset
    images  distinct images the client trained on, about
    """
    if is_noise(auxiliary):
        scalings = {c.normalise for c in candidates}
        kept = _NOISE_SCALING if len(scalings) > 1 else scalings.pop()
        candidates = [c for c in candidates if c.normalise == kept]
    if len(candidates) == 1:
        return [replace(candidates[0], weight=1.0, same_as=0)]
    sample = _sample(auxiliary, config.batch)
    look = partial(_look, pair=pair, update=update, auxiliary=sample, config=config, images=images)
    seen = _search(candidates, look)
    costs = posterior_costs([candidates[i].prior for i in seen], list(seen.values()))
    weights = dict(zip(seen, torch.softmax(-costs / 2, 0).tolist(), strict=True))
    found: list[ModelHypothesis] = []
    for group in _alike(sorted(seen, key=lambda i: (-weights[i], i)), seen, weights):
        first = len(found)
        found += [_weighed(candidates[i], seen[i], weights[i], first) for i in group]
    left_out = [one for i, one in enumerate(candidates) if i not in seen]
    return found + [
        replace(one, weight=0.0, same_as=position)
        for position, one in enumerate(left_out, start=len(found))
    ]


def to_average(ranked: Sequence[ModelHypothesis], least: float, most: int) -> list[ModelHypothesis]:
    """The hypotheses that count, best first, with weights that sum to 1.

    Those that give the same outputs are one, with the sum of their weights.

    least  weight up to which one is left out
    most   number of them
    """
    joined: dict[int, float] = {}
    for one in ranked:
        joined[one.same_as] = joined.get(one.same_as, 0.0) + one.weight
    kept = sorted(joined, key=lambda i: (-joined[i], i))[:most]
    kept = [i for number, i in enumerate(kept) if number == 0 or joined[i] > least]
    total = sum(joined[i] for i in kept)
    return [replace(ranked[i], weight=joined[i] / total) for i in kept]


def posterior_costs(priors: Sequence[float], evidence: Sequence[ModelEvidence]) -> Tensor:
    """-2 log posterior of each hypothesis, (H,) float64, up to a constant.

    Every witness enters with an effective number of observations. Where its error is a misfit of
    unknown size (update, BatchNorm layers), a Gaussian likelihood with that size profiled out is
    n log(misfit).
    """
    costs = -2 * torch.tensor(priors, dtype=torch.float64).log()
    misfits = torch.tensor([one.unexplained for one in evidence], dtype=torch.float64)
    costs = costs + _UPDATE * (misfits + _LEAST_UNEXPLAINED).log()
    units = torch.tensor([one.units for one in evidence], dtype=torch.float64)
    costs = costs - 2 * _UNITS * units
    layers = min(len(one.norms) for one in evidence)
    if layers and all(len(one.norms) == layers for one in evidence):
        distances = torch.stack([one.norms for one in evidence])
        costs = costs + _NORM * (distances + _LEAST_DISTANCE).log().sum(1)
    losses = [one.losses for one in evidence if one.losses is not None]
    if len(losses) == len(evidence):
        costs = costs + loss_costs(torch.stack(losses))
    return costs


def loss_costs(losses: Tensor) -> Tensor:
    """-2 log likelihood ratio of each hypothesis to the one of least mean loss, (H,).

    losses  (H, A) of the same images

    The true network is the one that was trained, so its loss is the least but for chance. With
    z = the difference of the means over its standard error (of pairs, and of 0.02 nats that mean
    nothing), the odds that the other one's expected loss is less are Φ(-z) / Φ(z).
    """
    best = losses[int(losses.mean(1).argmin())]
    differences = losses - best
    variance = differences.var(1) / losses.shape[1] + _LEAST_LOSS**2
    z = (differences.mean(1) / variance.sqrt()).clamp(0, _MOST_DEVIATIONS)
    odds: Tensor = torch.special.log_ndtr(z) - torch.special.log_ndtr(-z)
    return 2 * odds


def _search(
    candidates: Sequence[ModelHypothesis], look: Callable[[ModelHypothesis], ModelEvidence]
) -> dict[int, ModelEvidence]:
    """Evidence of the candidates evaluated, by position."""
    seen: dict[int, ModelEvidence] = {}

    def evaluate(wanted: Iterable[int]) -> None:
        for i in wanted:
            if i not in seen:
                seen[i] = look(candidates[i])

    def best(of: Mapping[int, str], count: int) -> set[str]:
        """The models or scalings of the best candidates so far."""
        costs = posterior_costs([candidates[i].prior for i in seen], list(seen.values())).tolist()
        order = sorted(zip(costs, seen, strict=True))
        return set(list(dict.fromkeys(of[i] for _, i in order))[:count])

    models = {i: repr((c.model, sorted(c.arguments.items()))) for i, c in enumerate(candidates)}
    scalings = {i: c.normalise for i, c in enumerate(candidates)}
    first = _NOISE_SCALING if _NOISE_SCALING in scalings.values() else scalings[0]
    evaluate(i for i in scalings if scalings[i] == first)
    finalists = best(models, _FINALISTS)
    evaluate(i for i in models if models[i] in finalists)
    finalists = best(scalings, _FINALISTS)
    evaluate(i for i in scalings if scalings[i] in finalists)
    return seen


def _look(
    hypothesis: ModelHypothesis,
    *,
    pair: CheckpointPair,
    update: Head,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    images: float,
) -> ModelEvidence:
    model = hypothesis.build(pair.before, auxiliary.classes)
    config = replace(config, normalise=parse_normalisation(hypothesis.normalise))
    return look_at(model, pair, update, auxiliary, config, images)


def _weighed(
    hypothesis: ModelHypothesis, evidence: ModelEvidence, weight: float, same_as: int
) -> ModelHypothesis:
    cosine, ratio = evidence.cosine, evidence.norm_ratio
    return replace(hypothesis, weight=weight, cosine=cosine, norm_ratio=ratio, same_as=same_as)


def _alike(
    order: Sequence[int], evidence: Mapping[int, ModelEvidence], weights: Mapping[int, float]
) -> list[list[int]]:
    """Groups of hypotheses with the same outputs, by the sum of their weights.

    order  of the hypotheses, the most probable first, as in every group
    """
    groups: list[list[int]] = []
    for i in order:
        home = next((g for g in groups if _same_outputs(evidence[i], evidence[g[0]])), None)
        if home is None:
            groups.append([i])
        else:
            home.append(i)
    return sorted(groups, key=lambda group: -sum(weights[i] for i in group))


def _same_outputs(one: ModelEvidence, other: ModelEvidence) -> bool:
    """Whether probabilities and embeddings are the same, class by class, for both models."""
    if one.confidence is None or other.confidence is None:
        return False
    assert one.embeddings is not None
    assert other.embeddings is not None
    variation = (one.confidence - other.confidence).abs().sum(2).mean() / 2
    distance = (one.embeddings - other.embeddings).norm() / other.embeddings.norm()
    return float(variation) <= _SAME_SHARES and float(distance) <= _SAME_EMBEDDINGS


def _sample(auxiliary: Auxiliary, batch: int) -> Auxiliary:
    """A few images of every class, at least a batch in all."""
    wanted = max(_RANKING_IMAGES, batch)
    each = max(2, wanted // auxiliary.classes)
    index = [
        torch.nonzero(auxiliary.labels == n).flatten()[:each] for n in range(auxiliary.classes)
    ]
    chosen = torch.cat(index)
    return replace(auxiliary, images=auxiliary.images[chosen], labels=auxiliary.labels[chosen])
