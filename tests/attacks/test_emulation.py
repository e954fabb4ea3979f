"""Emulation by linear clients, whose labels and steps are known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from linear_client import World, evidence_of, skewed_steps
from same_round import without_observed
from torch import Tensor

from rlu_cli.attacks import ATTACKS
from rlu_cli.attacks.emulation import left_out
from rlu_cli.attacks.observations import CLASS_UPDATES, INTERPOLATION, VIRTUAL_POPULATION
from rlu_cli.numerics.emulator import emulate
from rlu_cli.numerics.posterior import posterior_mean
from rlu_cli.types import Evidence, Recovery, Status, VirtualPopulation


@cache
def _round(seed: int = 0, sharp: float = 0.0) -> tuple[Evidence, Tensor]:
    """What a server sees of a client, and the client's shares."""
    steps = skewed_steps(4, 64, seed=seed, present=4)
    head = World().trained_head(sharp) if sharp else None
    evidence = evidence_of(steps, images=10, virtual=True, head=head)
    return evidence, steps.sum(0).double() / int(steps.sum())


def _answer(evidence: Evidence) -> Recovery:
    return ATTACKS["emulation"].attack(evidence)


def _population(evidence: Evidence) -> VirtualPopulation:
    return evidence[VIRTUAL_POPULATION]


def _lost(found: Recovery, truth: Tensor) -> float:
    return float((found.shares - truth).abs().sum()) / 2


@pytest.mark.parametrize(("sharp", "most"), [(0.0, 0.02), (2.0, 0.03), (4.0, 0.1)])
def test_it_finds_the_labels_of_clients_like_the_virtual_ones(sharp: float, most: float) -> None:
    """Of a trained model too, and better than rlu, which has no virtual clients."""
    cases = [_round(seed, sharp) for seed in range(8)]
    rlu = ATTACKS["rlu"].configured({"draws": 300}.get)
    lost = sum(_lost(_answer(evidence), truth) for evidence, truth in cases) / 8
    assert lost < most
    assert lost < 0.8 * sum(_lost(rlu(evidence), truth) for evidence, truth in cases) / 8


def test_the_answer_is_what_the_emulator_s_error_allows() -> None:
    evidence, _ = _round()
    population, found = _population(evidence), _answer(evidence)
    solved = emulate(population.shares, population.rows, population.observed, population.closeness)
    expected = posterior_mean(solved.unconstrained, solved.covariance)
    assert expected is not None
    torch.testing.assert_close(found.shares, expected, rtol=0, atol=1e-12)
    assert found.unconstrained is not None
    assert torch.equal(found.unconstrained, solved.unconstrained)
    assert found.status is Status.SOLVED
    for name in ("reduced_chi_square", "misfit"):  # its name now, and up to schema 1.2
        assert found.diagnostics[name] == {"virtual clients": solved.reduced_chi_square}
    assert found.diagnostics["virtual_clients"] == len(population.shares)
    assert found.counts is not None
    assert int(found.counts.sum()) == 256


def test_neither_update_nor_images_are_looked_at() -> None:
    """All that it knows was measured in the same way on all the clients."""
    evidence, _ = _round()
    bare = without_observed(evidence, INTERPOLATION, CLASS_UPDATES)
    blank = replace(bare, update=evidence.update * 0.0, linear=False)
    assert torch.equal(_answer(blank).shares, _answer(evidence).shares)


def test_the_covariance_is_that_of_many_clients() -> None:
    measured = claimed = 0.0
    for evidence, truth in (_round(seed, 2.0) for seed in range(30)):
        found = _answer(evidence)
        assert found.covariance is not None
        measured += float(((found.shares - truth) ** 2).sum())
        claimed += float(found.covariance.trace())
    assert 0.4 < measured / claimed < 2.5


def test_what_to_expect_is_what_happens() -> None:
    found = [(_answer(evidence), truth) for evidence, truth in map(_round, range(20))]
    expected = sum(one.diagnostics["expected_iacc"] for one, _ in found) / 20
    happened = 1 - sum(_lost(one, truth) for one, truth in found) / 20
    assert expected == pytest.approx(happened, abs=0.015)


def test_each_near_virtual_client_is_read_from_all_the_others() -> None:
    population = _population(_round()[0])
    found = left_out(population)
    near = torch.nonzero(population.closeness == 1)[:, 0].tolist()
    assert len(found) == len(near) == 20
    index, others = near[3], [i for i in range(40) if i != near[3]]
    expected = emulate(
        population.shares[others],
        population.rows[others],
        population.rows[index],
        population.closeness[others],
    )
    mean = posterior_mean(expected.unconstrained, expected.covariance)
    assert mean is not None
    assert torch.equal(found[3], mean)
    # Its own labels are not looked at.
    blind = population.shares.clone()
    blind[index] = 1 / 6
    again = left_out(replace(population, shares=blind))
    assert torch.equal(again[3], found[3])
    assert not torch.equal(again[4], found[4])


def test_a_client_that_is_like_no_virtual_one_is_said_to_be_so() -> None:
    evidence, _ = _round()
    like, population = _answer(evidence), _population(evidence)
    assert like.notes == ()
    other = _population(_round(1, 4.0)[0])
    moved = replace(population, observed=5 * other.observed)
    strange = _answer(evidence.with_observed(VIRTUAL_POPULATION, moved))
    assert strange.diagnostics["reduced_chi_square"]["virtual clients"] > 10
    assert any("unlike that of any virtual client" in note for note in strange.notes)
    assert strange.covariance is not None
    assert like.covariance is not None
    assert float(strange.covariance.trace()) > 5 * float(like.covariance.trace())
