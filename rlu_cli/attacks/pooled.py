"""Pooled: the answers of `bayes`, `rlu` and `path`, weighed. The default of `auto`.

Not in the paper. `bayes` is the most accurate where its model of the noise holds. In rounds so long
that the client moves about its own optimum it does not, and the simpler methods, which ask less of
the evidence, are nearer. Where methods disagree by more than their stated errors, at least one of
these is too small: the distribution of the answer spans them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.bayes import Bayes
from rlu_cli.attacks.method import Attack, Method
from rlu_cli.attacks.noise_model import round_of
from rlu_cli.attacks.observations import INTERPOLATION, TILT, VIRTUAL_TRIALS
from rlu_cli.attacks.path import METHOD as PATH
from rlu_cli.attacks.rlu import RLU
from rlu_cli.numerics.posterior import Posterior, mixed_posterior, moved_posterior
from rlu_cli.numerics.simplex import mixture
from rlu_cli.types import Evidence, Recovery, VirtualTrial

_OTHERS = 0.5  # weight of the other methods together, in the longest rounds
_TRUST = 4.0  # virtual trials that count as much as the weights known without any
_NEGLIGIBLE = 1e-3
_NORMAL = math.sqrt(math.pi / 2)  # standard deviation of a normal error over its mean size


@dataclass(frozen=True)
class Pooled:
    """The mixture of the methods' answers, each with the spread of the posterior of `bayes`.

    prior  least and largest Dirichlet concentration of the client's labels; None: any
    draws, iterations, search, seed
           of `rlu`, which is left out if its search does not converge

    Without virtual trials, the weight of `rlu` and `path` together is ½ a², with a = 0 for short
    rounds and 1 for long ones (`Round.adapted`). With them, the weights are those of least squared
    error on the virtual clients, drawn towards the former, and the answer has a further error by
    which those on the virtual clients were larger than expected.
    """

    prior: tuple[float, float] | None = None
    draws: int = RLU.draws
    iterations: int | None = RLU.iterations
    search: str = RLU.search
    seed: int = RLU.seed

    def __call__(self, evidence: Evidence) -> Recovery:
        attacks = self._attacks
        first = attacks["bayes"](evidence)
        if first.posterior is None or not (evidence.linear and evidence.lr_known):
            return first
        answers = {"bayes": first} | {
            name: attack(evidence) for name, attack in attacks.items() if name != "bayes"
        }
        usable = {name: one.shares.double() for name, one in answers.items() if one.status.ok}
        adapted = round_of(evidence, evidence[INTERPOLATION].outputs).adapted
        weights = _prior_weights(list(usable), adapted)
        trials = evidence[VIRTUAL_TRIALS]
        tried = _tried(trials, {name: attacks[name] for name in usable})
        if tried:
            weights = _weights_of(tried, weights)
        found = _mixed(first.posterior, usable, weights)
        if tried:
            found = found.blurred(_further_error(tried, weights, found.mean))
        answer = shared(evidence, found.best_point(), first.status, notes=first.notes)
        diagnostics = {**first.diagnostics, "weights": weights, "virtual_trials": len(tried)}
        return replace(
            first,
            shares=answer.shares,
            counts=answer.counts,
            posterior=found,
            diagnostics=diagnostics,
        )

    @property
    def _attacks(self) -> Mapping[str, Attack]:
        rlu = RLU(self.draws, self.iterations, self.search, self.seed)
        return {"bayes": Bayes(self.prior), "rlu": rlu, "path": PATH.attack}


@dataclass(frozen=True)
class _Tried:
    """One virtual trial: the answers (M, N), the truth (N,) and the expected iAcc of `bayes`."""

    answers: Tensor
    truth: Tensor
    posterior: Posterior
    names: tuple[str, ...]

    def found(self, weights: Mapping[str, float]) -> tuple[float, float]:
        """Found and expected distance, 1 - iAcc, of the mixture."""
        shares = dict(zip(self.names, self.answers, strict=True))
        mixed = _mixed(self.posterior, shares, weights)
        point = mixed.best_point()
        return float((point - self.truth).abs().sum()) / 2, 1 - mixed.expected_iacc(point, 0.9)[0]


def _tried(trials: tuple[VirtualTrial, ...], attacks: Mapping[str, Attack]) -> list[_Tried]:
    """The methods' answers on the virtual clients."""
    found: list[_Tried] = []
    for trial in trials:
        answers = {name: attack(trial.evidence) for name, attack in attacks.items()}
        posterior = answers["bayes"].posterior
        if posterior is None or not all(one.status.ok for one in answers.values()):
            continue
        shares = torch.stack([one.shares.double() for one in answers.values()])
        found.append(_Tried(shares, trial.shares, posterior, tuple(answers)))
    return found


def _prior_weights(names: Sequence[str], adapted: float) -> dict[str, float]:
    """Weights known without virtual trials, summing to 1.

    adapted  `Round.adapted`, 0…1
    """
    others = [name for name in names if name != "bayes"]
    weight = _OTHERS * adapted**2 if others else 0.0
    return {"bayes": 1 - weight} | {name: weight / len(others) for name in others}


def _weights_of(tried: Sequence[_Tried], known: Mapping[str, float]) -> dict[str, float]:
    """Weights w ≥ 0, Σw = 1, of least Σ ‖Σ_m w_m e_m‖² + prior, e_m the errors on the trials."""
    errors = torch.cat([one.answers - one.truth for one in tried], 1).T  # (R N, M)
    size = errors.square().sum() / errors.shape[1] / len(tried)
    strength = (_TRUST * size).sqrt()
    prior = torch.tensor(list(known.values()), dtype=torch.float64)
    rows = torch.cat([errors, strength * torch.eye(len(prior), dtype=torch.float64)])
    target = torch.cat([torch.zeros(len(errors), dtype=torch.float64), strength * prior])
    return dict(zip(known, mixture(rows, target).shares.tolist(), strict=True))


def _mixed(
    posterior: Posterior, shares: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Posterior:
    """The mixture over the methods of the posterior, moved to each method's answer."""
    kept = {name: weight for name, weight in weights.items() if weight > _NEGLIGIBLE}
    total = sum(kept.values())
    parts = [
        posterior if name == "bayes" else moved_posterior(posterior, shares[name] - shares["bayes"])
        for name in kept
    ]
    if len(parts) == 1:
        return parts[0]
    return mixed_posterior(parts, [weight / total for weight in kept.values()])


def _further_error(tried: Sequence[_Tried], weights: Mapping[str, float], mean: Tensor) -> Tensor:
    """Standard deviation (N,) that explains by how much the errors on the trials were too large.

    Their mean distance from the truth, ½ Σ_n |e_n|, above the expected one is divided among the
    classes in proportion to the root of their shares, as the errors of counts are.
    """
    distances = [one.found(weights) for one in tried]
    excess = math.fsum(found - expected for found, expected in distances) / len(distances)
    sizes = (mean + 1 / len(mean) ** 2).sqrt()
    each: Tensor = 2 * max(excess, 0.0) * _NORMAL * sizes / sizes.sum()
    return each


METHOD = Method(
    title="pooled",
    paper="rlu, docs/method.md",
    attack=Pooled(),
    auxiliary=True,
    needs=frozenset({INTERPOLATION, TILT, VIRTUAL_TRIALS}),
    any_optimiser=True,
)
