"""The posterior of a client's counts, of small nets and of clients that train one layer."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from linear_client import World, evidence_of, skewed_steps
from same_round import relabelled
from test_fusion_method import _case, _without_means
from torch import Tensor

from rlu_cli.attacks import ATTACKS
from rlu_cli.attacks.bayes import _of_misfit, _Prior
from rlu_cli.attacks.observations import TILT
from rlu_cli.audit.scoring import score
from rlu_cli.numerics.posterior import Posterior
from rlu_cli.types import Evidence, Recovery, Status


def _answer(evidence: Evidence) -> Recovery:
    return ATTACKS["bayes"].configured({}.get)(evidence)


@cache
def _trained(client: int) -> tuple[Recovery, Tensor]:
    evidence, truth = _case(client)
    return _answer(evidence), truth


def _posterior(found: Recovery) -> Posterior:
    assert found.posterior is not None
    return found.posterior


def _iacc(found: Recovery, truth: Tensor) -> float:
    assert found.counts is not None
    return score(found.counts, truth).iacc


def test_of_an_untrained_layer_the_counts_are_exact() -> None:
    for seed in range(3):
        labels = skewed_steps(1, 24, seed=seed)
        found = _answer(evidence_of(labels, images=200))
        assert found.status is Status.SOLVED
        assert found.counts is not None
        assert torch.equal(found.counts, labels.sum(0)), seed
        assert found.diagnostics["error_ratio"] == 1
        assert found.diagnostics["folds"] == 0


def test_of_a_trained_net_with_buffers_it_is_better_than_uniform() -> None:
    gains = []
    for client in range(3):
        found, truth = _trained(client)
        even = float(torch.full((len(truth),), 1 / len(truth)).minimum(truth / truth.sum()).sum())
        gains.append(_iacc(found, truth) - even)
    assert min(gains) > 0.05
    assert float(np.mean(gains)) > 0.15


@pytest.mark.parametrize("sharp", [0.0, 4.0])
def test_the_intervals_cover_and_the_expected_iacc_is_reached(sharp: float) -> None:
    """Of images like the server's, and a client whose errors are not smaller."""
    head = World().trained_head(sharp) if sharp else None
    covered, gaps = [], []
    for seed in range(6):
        labels = skewed_steps(2, 100, seed=seed)
        found = _answer(evidence_of(labels, head=head, lr=0.01, images=20))
        truth = labels.sum(0)
        low, high = _posterior(found).interval(0.9)
        shares, half = truth / truth.sum(), 0.5 / float(truth.sum())
        covered.append(((low - half <= shares) & (shares <= high + half)).double().mean())
        expected, worst, most = _posterior(found).expected_iacc(found.shares, 0.9)
        assert worst <= most
        gaps.append(expected - _iacc(found, truth))
        assert expected > _posterior(found).expected_floor()
    assert float(np.mean(covered)) > 0.8
    assert abs(float(np.mean(gaps))) < 0.05


def test_all_that_it_estimated_is_named() -> None:
    found, truth = _trained(0)
    assert found.status is Status.SOLVED
    assert {"discrepancy", "path", "drift of 5", "noise scale"} <= set(found.diagnostics["noise"])
    assert 0.3 < found.diagnostics["error_ratio"] < 1.3
    assert found.diagnostics["concentration"] > 0
    assert found.diagnostics["folds"] > 0
    assert sum(found.diagnostics["point_weights"]) == pytest.approx(1)
    assert found.counts is not None
    assert int(found.counts.sum()) == int(truth.sum())
    assert found.covariance is not None
    assert found.unconstrained is not None
    assert float(found.unconstrained.sum()) == pytest.approx(1)
    torch.testing.assert_close(found.shares, _posterior(found).best_point())


def test_of_a_model_that_separates_nothing_no_gap_is_assumed() -> None:
    found = _answer(_case(0, trained=False)[0])
    assert found.diagnostics["error_ratio"] == 1


@pytest.mark.parametrize("sharp", [0.0, 4.0])
def test_relabelled_classes_relabel_the_answer(sharp: float) -> None:
    head = World().trained_head(sharp) if sharp else None
    evidence = evidence_of(skewed_steps(2, 60, seed=1), head=head, images=30)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    plain, turned = _answer(evidence), _answer(relabelled(evidence, order))
    assert torch.allclose(turned.shares, plain.shares[order], atol=1e-4)


def test_without_usable_rows_it_is_undetermined() -> None:
    bare = _without_means(evidence_of(skewed_steps(4, 24, seed=1)), "the buffers tell nothing")
    for unusable in (replace(bare, linear=False), replace(bare, lr=1.0, lr_known=False)):
        found = _answer(unusable)
        assert found.status is Status.UNDETERMINED
        assert found.notes == ("the buffers tell nothing",)
        assert found.posterior is None


@pytest.mark.parametrize("change", [{"linear": False}, {"lr": 1.0, "lr_known": False}])
def test_an_update_that_cannot_be_read_is_left_to_the_means(change: dict[str, object]) -> None:
    """Of an unknown rate its rows were once read as if the rate were 1."""
    evidence, truth = _case(0)
    found = _answer(replace(evidence, **change))  # type: ignore[arg-type]
    assert list(found.diagnostics["noise"]) == ["discrepancy", "misfit of 5", "drift of 5"]
    assert found.status is Status.SOLVED
    assert found.counts is not None
    assert int(found.counts.sum()) == int(truth.sum())
    other = _answer(replace(evidence, linear=False, update=evidence.update * 7))
    assert torch.allclose(other.shares, found.shares, atol=0.01)


def test_a_given_tilt_is_averaged_over() -> None:
    head = World().trained_head(4.0)
    evidence = evidence_of(skewed_steps(4, 400, seed=1), head=head, lr=0.01, images=60)
    plain, none, given = (_answer(evidence.with_observed(TILT, tilt)) for tilt in (None, 0.0, 1.0))
    assert torch.equal(none.shares, plain.shares)
    assert not torch.equal(given.shares, plain.shares)
    assert float((given.shares - plain.shares).abs().sum()) / 2 < 0.1


def test_full_passes_are_counted_once() -> None:
    one_pass = skewed_steps(2, 24, seed=4)
    repeated = replace(evidence_of(one_pass.repeat(3, 1)), passes=3)
    found = _answer(repeated)
    assert found.counts is not None
    assert not (found.counts % 3).any()
    assert int(found.counts.sum()) == 144


def test_noise_added_to_the_update_widens_the_intervals() -> None:
    evidence = evidence_of(skewed_steps(1, 64, seed=1), world=World(width=60))
    assert evidence.update.bias is not None
    generator = torch.Generator().manual_seed(2)
    shape, scale = evidence.update.weight.shape, 0.05 * evidence.lr
    weight = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    bias = torch.randn(shape[0], generator=generator, dtype=torch.float64) * scale
    moved = replace(evidence.update, weight=evidence.update.weight + weight)
    moved = replace(moved, bias=evidence.update.bias + bias)
    widths = []
    for one in (evidence, replace(evidence, update=moved)):
        low, high = _posterior(_answer(one)).interval(0.9)
        widths.append(float((high - low).mean()))
    assert widths[1] > 1.5 * widths[0]


def test_shares_far_below_zero_are_a_misfit_that_widens_the_answer() -> None:
    covariance = 1e-8 * (torch.eye(3, dtype=torch.float64) - 1 / 3)
    centre = torch.tensor([0.8, 0.4, -0.2], dtype=torch.float64)
    found = _of_misfit(centre, covariance, _Prior(60, (0.5,), (0.5,)))
    assert found is not None
    low, high = found.interval(0.9)
    assert float((high - low).max()) > 0.05
    assert float(found.mean[2]) < 0.1
