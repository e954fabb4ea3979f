"""Pooled: which methods count how much, and that disagreement widens the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from linear_client import World, evidence_of, skewed_steps

from rlu_cli.attacks import ATTACKS
from rlu_cli.attacks.observations import VIRTUAL_TRIALS
from rlu_cli.types import Evidence, Recovery, VirtualTrial


def answer(evidence: Evidence, name: str = "pooled", **settings: Any) -> Recovery:
    return ATTACKS[name].configured(settings.get)(evidence)


def case(steps: int = 4, lr: float = 0.01, seed: int = 0, images: int = 40) -> Evidence:
    evidence = evidence_of(skewed_steps(steps, 60, seed=seed), lr=lr, images=images, world=World())
    return evidence.with_observed(VIRTUAL_TRIALS, ())


def spread(found: Recovery) -> float:
    assert found.posterior is not None
    low, high = found.posterior.interval(0.9)
    return float((high - low).sum())


def test_of_a_short_round_it_is_bayes() -> None:
    evidence = case(steps=1)
    found = answer(evidence)
    assert found.diagnostics["weights"]["bayes"] == 1
    torch.testing.assert_close(found.shares, answer(evidence, "bayes").shares)


def test_of_a_long_round_the_others_count_too_and_disagreement_widens_it() -> None:
    evidence = case(steps=40, lr=0.5)
    found, alone = answer(evidence), answer(evidence, "bayes")
    weights = found.diagnostics["weights"]
    assert set(weights) == {"bayes", "rlu", "path"}
    assert sum(weights.values()) == pytest.approx(1)
    assert 0.5 <= weights["bayes"] < 0.9
    assert weights["rlu"] == weights["path"] > 0
    assert spread(found) > spread(alone)
    assert float(found.shares.sum()) == pytest.approx(1)
    assert found.counts is not None
    assert int(found.counts.sum()) == evidence.total


def tried(best: str) -> tuple[VirtualTrial, ...]:
    """Trials of which one method is always exactly right."""
    trials = []
    for seed in range(1, 9):
        other = case(steps=40, lr=0.5, seed=seed)
        trials.append(VirtualTrial(other, answer(other, best).shares.double()))
    return tuple(trials)


@pytest.mark.parametrize("best", ["rlu", "path"])
def test_the_method_that_is_right_on_virtual_clients_counts_most(best: str) -> None:
    evidence = case(steps=40, lr=0.5)
    with_trials = evidence.with_observed(VIRTUAL_TRIALS, tried(best))
    before, after = answer(evidence), answer(with_trials)
    assert after.diagnostics["virtual_trials"] == 8
    assert after.diagnostics["weights"][best] > 1.5 * before.diagnostics["weights"][best]
    assert sum(after.diagnostics["weights"].values()) == pytest.approx(1)


def test_errors_on_virtual_clients_larger_than_expected_widen_the_answer() -> None:
    evidence = case()
    far = torch.zeros(evidence.classes, dtype=torch.float64)
    far[0] = 1
    trials = tuple(VirtualTrial(case(seed=seed), far) for seed in range(1, 5))
    wide = answer(evidence.with_observed(VIRTUAL_TRIALS, trials))
    assert spread(wide) > 0.3 + spread(answer(evidence))


def test_a_prior_of_few_classes_and_of_even_clients_pull_apart() -> None:
    world = World(apart=0.02, wide=0.5)
    evidence = evidence_of(skewed_steps(20, 20), world=world, images=4, lr=0.3)
    evidence = evidence.with_observed(VIRTUAL_TRIALS, ())
    few, even = answer(evidence, prior=(0.05, 0.05)), answer(evidence, prior=(100.0, 100.0))
    assert few.diagnostics["concentration"] == pytest.approx(0.05)
    assert even.diagnostics["concentration"] == pytest.approx(100)
    assert float(few.shares.max()) > float(even.shares.max())


@pytest.mark.parametrize("setting", [{"draws": 50}, {"seed": 5}, {"search": "none"}])
def test_the_settings_of_rlu_are_those_of_its_part(setting: dict[str, Any]) -> None:
    evidence = case(steps=40, lr=0.5)
    assert not torch.equal(answer(evidence, **setting).shares, answer(evidence).shares)


def test_a_search_cut_short_does_not_count() -> None:
    found = answer(case(steps=40, lr=0.5), iterations=0)
    assert set(found.diagnostics["weights"]) == {"bayes", "path"}
    assert found.status.ok


def test_where_the_update_is_not_linear_it_is_bayes() -> None:
    evidence = replace(case(), linear=False)
    assert "weights" not in answer(evidence).diagnostics
