"""The answer averaged over the architectures and input scalings that are probable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from rlu_cli.audit.finding import CaseFinding, MethodFinding
from rlu_cli.audit.scoring import score
from rlu_cli.case.build import Case
from rlu_cli.case.hypotheses import ACTIVATION, ModelHypothesis
from rlu_cli.errors import InputError, printable
from rlu_cli.evidence.model_selection import to_average
from rlu_cli.models import names_files
from rlu_cli.numerics.posterior import Posterior, mixed_posterior
from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.types import Recovery

_LEAST_WEIGHT = 0.1
_MOST_HYPOTHESES = 3
_SURE = 0.9  # weight from which one hypothesis answers for all
_DIFFERENT = 0.15  # share of the labels by which two answers may differ


def hypotheses_to_average(ranked: Sequence[ModelHypothesis]) -> list[ModelHypothesis]:
    """Up to three hypotheses with a probability above 0.1, most probable first, summing to 1."""
    return to_average(ranked, _LEAST_WEIGHT, _MOST_HYPOTHESES)


def averaged(
    finding: CaseFinding, others: Sequence[CaseFinding], kept: Sequence[ModelHypothesis]
) -> CaseFinding:
    """The finding with every method's answer averaged over the hypotheses.

    finding  under the first hypothesis
    others   under the rest, with the same methods
    kept     the hypotheses, with weights that sum to 1

    Raises InputError E224 if none has a weight of 0.9 and the first method's answers differ by more
    than 15 % of the labels.
    """
    if not others:
        return finding
    position = finding.methods.index(finding.first)
    answers = [one.methods[position].recovery for one in (finding, *others)]
    _refuse_different([one for one in answers if one is not None], kept)
    methods = tuple(
        _averaged_method(finding.case, [one.methods[i] for one in (finding, *others)], kept)
        for i in range(len(finding.methods))
    )
    return replace(finding, methods=methods, assumptions=(*finding.assumptions, _said(kept)))


def mean_recovery(
    recoveries: Sequence[Recovery], weights: Sequence[float], passes: int = 1
) -> Recovery:
    """Σ_h w_h z_h, with Σ_h w_h (C_h + (z_h - z)(z_h - z)ᵀ) as its covariance.

    weights  of the recoveries, summing to 1
    passes   full passes over the samples, each with the same labels

    What only some of them have, such as a covariance, is left out; the rest is the first one's.
    """
    first, weight = recoveries[0], torch.tensor(weights, dtype=torch.float64)
    shares = _mean([one.shares for one in recoveries], weight)
    assert shares is not None
    covariance = _mean([one.covariance for one in recoveries], weight)
    if covariance is not None:
        deviations = torch.stack([one.shares.double() for one in recoveries]) - shares
        covariance = covariance + (deviations * weight[:, None]).T @ deviations
    present = _mean([one.present for one in recoveries], weight)
    rates = [one.lr for one in recoveries]
    return replace(
        first,
        shares=shares,
        counts=None if first.counts is None else _counts(shares, first.counts, passes),
        present=None if present is None else present > 0.5,
        unconstrained=_mean([one.unconstrained for one in recoveries], weight),
        covariance=covariance,
        shared_covariance=_mean([one.shared_covariance for one in recoveries], weight),
        lr=_mean_rate([rate for rate in rates if rate], weight) if all(rates) else None,
        posterior=_mixture([one.posterior for one in recoveries], weights),
    )


def _mixture(posteriors: Sequence[Posterior | None], weights: Sequence[float]) -> Posterior | None:
    """The mixture of the posteriors; None if any is missing."""
    known = [one for one in posteriors if one is not None]
    return mixed_posterior(known, weights) if len(known) == len(posteriors) else None


def _averaged_method(
    case: Case, found: Sequence[MethodFinding], kept: Sequence[ModelHypothesis]
) -> MethodFinding:
    """The method's finding with the mean of its answers; the first one if it has none."""
    first = found[0]
    answered = [
        (one.recovery, hypothesis.weight)
        for one, hypothesis in zip(found, kept, strict=True)
        if one.recovery is not None
    ]
    if first.recovery is None or len(answered) < 2:
        return first
    total = sum(weight for _, weight in answered)
    passes = case.plan.passes if case.plan.whole else 1
    mean = mean_recovery(
        [recovery for recovery, _ in answered], [weight / total for _, weight in answered], passes
    )
    scored = None
    if case.truth is not None and mean.counts is not None:
        scored = score(mean.counts, case.truth, mean.present)
    return replace(first, recovery=mean, score=scored)


def _mean(values: Sequence[Tensor | None], weights: Tensor) -> Tensor | None:
    """Weighted mean; None if any is missing."""
    given = [value.double() for value in values if value is not None]
    if len(given) < len(values):
        return None
    mean: Tensor = torch.tensordot(weights, torch.stack(given), 1)
    return mean


def _mean_rate(rates: Sequence[tuple[float, float]], weights: Tensor) -> tuple[float, float]:
    """Mean learning rate and its standard deviation, the spread of the rates included."""
    table = torch.tensor(rates, dtype=torch.float64)
    mean = float(weights @ table[:, 0])
    return mean, float(weights @ (table[:, 1] ** 2 + (table[:, 0] - mean) ** 2)) ** 0.5


def _counts(shares: Tensor, like: Tensor, passes: int) -> Tensor:
    """Whole counts of the shares, with the sum of `like`, the same in every pass."""
    return round_to_total(shares, int(like.sum()) // passes) * passes


def _refuse_different(answers: Sequence[Recovery], kept: Sequence[ModelHypothesis]) -> None:
    """Raise InputError E224 if no hypothesis is sure and they do not agree about the labels."""
    if max(one.weight for one in kept) >= _SURE:
        return
    pairs = combinations([one.shares.double() for one in answers], 2)
    apart = max((float((a - b).abs().sum()) / 2 for a, b in pairs), default=0.0)
    if apart <= _DIFFERENT:
        return
    open_settings = ["--normalize none|half|imagenet|cifar10|…|MEAN/STD"] * (
        len({one.normalise for one in kept}) > 1
    )
    if len({(one.model, repr(dict(one.arguments))) for one in kept}) > 1:
        open_settings.insert(0, "--model NAME --model-arg act=NAME")
    raise InputError(
        "E224",
        "the architecture or the input scaling cannot be determined from the files, and the labels "
        "depend on it",
        facts=[(_name(one), f"probability {one.weight:.2f}") for one in kept],
        why=f"their answers differ by up to {apart:.0%} of the labels",
        hint=f"give what the client used: {' and '.join(open_settings)}",
    )


def _said(kept: Sequence[ModelHypothesis]) -> str:
    """The sentence in a report."""
    listed = ", ".join(f"{_name(one)} {one.weight:.0%}" for one in kept)
    return f"averaged over what the files leave open, by probability: {listed}"


def _name(one: ModelHypothesis) -> str:
    """Model, activation and scaling; not the path of the user's own code."""
    named = [] if names_files(one.model) else [one.model]
    if ACTIVATION in one.arguments:
        named.append(f"{ACTIVATION}={one.arguments[ACTIVATION]}")
    return printable(" ".join([*named, one.normalise]))
