"""Answers under several architectures or scalings, averaged or refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlu_cli.audit.finding import CaseFinding
from rlu_cli.audit.model_average import averaged, hypotheses_to_average, mean_recovery
from rlu_cli.case.hypotheses import ModelHypothesis
from rlu_cli.errors import InputError
from rlu_cli.numerics.posterior import posterior
from rlu_cli.types import Recovery, Status
from tests.audit.made_case import case_of, finding_of, found


def _recovery(*shares: float, covariance: bool = True) -> Recovery:
    values = torch.tensor(shares, dtype=torch.float64)
    return Recovery(
        shares=values,
        counts=(values * 20).round().long(),
        status=Status.SOLVED,
        unconstrained=values,
        covariance=torch.eye(3).double() / 100 if covariance else None,
    )


def _hypothesis(weight: float, scaling: str = "half", same_as: int = 0) -> ModelHypothesis:
    arguments = {"act": "relu"}
    return ModelHypothesis("lenet5", arguments, scaling, weight=weight, same_as=same_as)


def _findings(*recoveries: Recovery) -> list[CaseFinding]:
    return [finding_of(case_of(), found(one)) for one in recoveries]


def test_the_mean_has_the_spread_of_the_answers_in_its_covariance() -> None:
    one, other = _recovery(0.5, 0.3, 0.2), _recovery(0.6, 0.2, 0.2)
    mean = mean_recovery([one, other], [0.75, 0.25])
    assert mean.shares.tolist() == pytest.approx([0.525, 0.275, 0.2])
    assert mean.counts is not None
    assert mean.counts.tolist() == [11, 5, 4]
    assert mean.covariance is not None
    spread = 0.75 * 0.25 * 0.1**2
    assert float(mean.covariance[0, 0]) == pytest.approx(0.01 + spread)
    assert float(mean.covariance[0, 1]) == pytest.approx(-spread)
    assert float(mean.covariance[2, 2]) == pytest.approx(0.01)


def test_passes_keep_the_same_labels_in_each() -> None:
    mean = mean_recovery([_recovery(0.5, 0.3, 0.2), _recovery(0.6, 0.2, 0.2)], [0.5, 0.5], 2)
    assert mean.counts is not None
    assert int(mean.counts.sum()) == 20
    assert all(count % 2 == 0 for count in mean.counts.tolist())


def test_a_covariance_that_one_lacks_is_left_out() -> None:
    known, unknown = _recovery(0.5, 0.3, 0.2), _recovery(0.5, 0.3, 0.2, covariance=False)
    assert mean_recovery([known, unknown], [0.5, 0.5]).covariance is None


def test_answers_that_agree_are_averaged_and_said_to_be() -> None:
    kept = [_hypothesis(0.6), _hypothesis(0.4, "none")]
    first, second = _findings(_recovery(0.5, 0.3, 0.2), _recovery(0.6, 0.2, 0.2))
    finding = averaged(first, [second], kept)
    recovery = finding.first.recovery
    assert recovery is not None
    assert recovery.shares.tolist() == pytest.approx([0.54, 0.26, 0.2])
    assert "lenet5 act=relu half 60%, lenet5 act=relu none 40%" in finding.assumptions[-1]


def test_answers_that_differ_are_refused_with_the_list() -> None:
    kept = [_hypothesis(0.6), _hypothesis(0.4, "none")]
    first, second = _findings(_recovery(0.8, 0.1, 0.1), _recovery(0.1, 0.8, 0.1))
    with pytest.raises(InputError) as caught:
        averaged(first, [second], kept)
    assert caught.value.code == "E224"
    shown = str(caught.value)
    assert "lenet5 act=relu none: probability 0.40" in shown
    assert "70%" in shown
    assert "--normalize" in caught.value.hint
    assert "--model-arg" not in caught.value.hint


def test_one_that_is_nearly_sure_answers_whatever_the_others_say() -> None:
    kept = [_hypothesis(0.9), _hypothesis(0.1, "none")]
    first, second = _findings(_recovery(0.8, 0.1, 0.1), _recovery(0.1, 0.8, 0.1))
    recovery = averaged(first, [second], kept).first.recovery
    assert recovery is not None
    assert recovery.shares.tolist() == pytest.approx([0.73, 0.17, 0.1])


def test_a_single_hypothesis_changes_nothing() -> None:
    (first,) = _findings(_recovery(0.8, 0.1, 0.1))
    assert averaged(first, [], [_hypothesis(1.0)]) is first


def test_what_is_averaged_is_probable_and_sums_to_one() -> None:
    ranked = [_hypothesis(w, str(i), i) for i, w in enumerate((0.5, 0.2, 0.15, 0.11, 0.04))]
    kept = hypotheses_to_average(ranked)
    assert [one.normalise for one in kept] == ["0", "1", "2"]
    assert sum(one.weight for one in kept) == pytest.approx(1)
    alike = [replace(one, same_as=0) for one in ranked]
    (only,) = hypotheses_to_average(alike)
    assert only.weight == pytest.approx(1)
    sure = [_hypothesis(0.95, "0", 0), _hypothesis(0.05, "1", 1)]
    assert len(hypotheses_to_average(sure)) == 1


def test_rates_are_averaged_with_their_spread() -> None:
    one = replace(_recovery(0.6, 0.4, covariance=False), lr=(0.01, 0.001))
    other = replace(_recovery(0.6, 0.4, covariance=False), lr=(0.03, 0.001))
    mean = mean_recovery([one, other], [0.5, 0.5])
    assert mean.lr is not None
    assert mean.lr[0] == pytest.approx(0.02)
    assert mean.lr[1] == pytest.approx((0.001**2 + 0.01**2) ** 0.5)


def test_posteriors_are_mixed_and_left_out_where_one_lacks_it() -> None:
    covariance = 1e-4 * (torch.eye(2, dtype=torch.float64) - 0.5)
    known = [
        replace(
            _recovery(a, 1 - a, covariance=False),
            posterior=posterior(torch.tensor([a, 1 - a]), covariance, 50),
        )
        for a in (0.6, 0.4)
    ]
    mixed = mean_recovery(known, [0.5, 0.5]).posterior
    assert mixed is not None
    assert mixed.mean.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert (
        mean_recovery([known[0], _recovery(0.4, 0.6, covariance=False)], [0.5, 0.5]).posterior
        is None
    )
