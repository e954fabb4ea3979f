"""RLU on a client that meets its assumptions, and what must hold for any client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_client import (
    World,
    evidence_of,
    momentum_weights,
    plain_weights,
    skewed_steps,
)
from same_round import relabelled
from torch import Tensor

from rlu_cli.attacks.rlu import PRINTED_ITERATIONS, RLU, SEARCHES, erroneous_confidence
from rlu_cli.numerics import monte_carlo
from rlu_cli.numerics.moments import class_moments
from rlu_cli.numerics.monte_carlo import logit_draws
from rlu_cli.numerics.simplex import label_shares
from rlu_cli.types import Evidence, GradientFreeOffset, Head, Outputs, Recovery, Status

DRAWS = 500
# Embeddings nearly the same for every class, as RLU assumes.
ALIKE: dict[str, Any] = {"apart": 0.02, "wide": 0.02}
EVERY = [*SEARCHES, "none"]


def _even_steps(steps: int, batch: int, *, seed: int) -> Tensor:
    """The same labels in every step: what Eq. 12 assumes."""
    return skewed_steps(1, batch, seed=seed, present=4).repeat(steps, 1)


def _curved(seed: int) -> Evidence:
    """A round so fast that the mean of both ends is not the mean over the path."""
    return evidence_of(_even_steps(10, 32, seed=seed), world=World(seed=seed, **ALIKE), lr=0.3)


def _attack(evidence: Evidence, **options: object) -> Recovery:
    return RLU(**{"draws": DRAWS, **options})(evidence)  # type: ignore[arg-type]


def _counts(recovery: Recovery) -> Tensor:
    assert recovery.counts is not None
    return recovery.counts


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_one_step_gives_the_counts_exactly(seed: int, biased: bool) -> None:
    per_step = skewed_steps(1, 64, seed=seed, present=4)
    found = _attack(evidence_of(per_step, world=World(seed=seed, **ALIKE), biased=biased))
    assert torch.equal(_counts(found), per_step[0])
    assert found.status is Status.SOLVED


@pytest.mark.parametrize("seed", range(5))
def test_one_step_of_a_sharp_model_gives_the_counts_within_a_label(seed: int) -> None:
    """S far from uniform and far from symmetric: the transposed matrix would be off by many."""
    world = World(seed=seed, apart=0.4, wide=0.02)
    per_step = skewed_steps(1, 64, seed=seed, present=4)
    evidence = evidence_of(per_step, world=world, head=world.trained_head(1.0))
    found = _attack(evidence)
    assert found.diagnostics["confidence_sum_before"] < 0.7
    assert (_counts(found) - per_step[0]).abs().max() <= 1
    transposed = label_shares(_confidence(evidence.before).T, evidence.signal).shares * 64
    assert (transposed - per_step[0]).abs().max() > 1


@pytest.mark.parametrize("search", ["checked", "none"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_ten_slow_steps_give_the_counts_within_a_label(
    seed: int, biased: bool, search: str
) -> None:
    per_step = _even_steps(10, 32, seed=seed)
    world = World(seed=seed, apart=0.005, wide=0.005)
    found = _attack(evidence_of(per_step, world=world, lr=0.01, biased=biased), search=search)
    assert (_counts(found) - per_step.sum(0)).abs().max() <= 1


def test_on_a_curved_path_the_checked_search_is_nearer_than_least_squares_alone() -> None:
    missed = {"checked": 0, "none": 0}
    for seed in range(8):
        truth = _even_steps(10, 32, seed=seed).sum(0)
        for search in missed:
            found = _counts(_attack(_curved(seed), search=search))
            missed[search] += int((found - truth).abs().sum())
    assert missed["checked"] < 0.8 * missed["none"]


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_a_scheme_is_known_by_its_weights_alone(momentum: float) -> None:
    per_step = _even_steps(6, 32, seed=1)
    weights = momentum_weights(6, momentum)
    evidence = evidence_of(per_step, world=World(**ALIKE), lr=0.003, weights=weights)
    assert (_counts(_attack(evidence)) - per_step.sum(0)).abs().max() <= 1
    unaware = replace(evidence, weights=plain_weights(6))
    assert _attack(unaware).diagnostics["residual"] > 0.1


def test_a_scheme_s_gradient_free_offset_is_removed() -> None:
    world, per_step = World(**ALIKE), _even_steps(4, 32, seed=2)
    generator = torch.Generator().manual_seed(0)
    push = Head(
        torch.randn(6, world.width, generator=generator).double() / 50,
        torch.randn(6, generator=generator).double() / 50,
    )
    offset = GradientFreeOffset(torch.linspace(0, 1, 5, dtype=torch.float64)[:, None], (push,))
    evidence = evidence_of(per_step, world=world, lr=0.01, offset=offset)
    assert (_counts(_attack(evidence)) - per_step.sum(0)).abs().max() <= 1
    unaware = _counts(_attack(replace(evidence, offset=None)))
    assert (unaware - per_step.sum(0)).abs().max() > 5


@given(
    steps=st.sampled_from([1, 4]),
    batch=st.integers(1, 40),
    lr=st.sampled_from([0.01, 0.3, 2.0]),
    biased=st.booleans(),
    search=st.sampled_from(EVERY),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_whatever_the_client_did_the_answer_is_whole_and_complete(
    steps: int, batch: int, lr: float, biased: bool, search: str, seed: int
) -> None:
    per_step = skewed_steps(steps, batch, seed=seed)
    evidence = evidence_of(per_step, world=World(seed=seed), lr=lr, biased=biased, images=5)
    found = RLU(draws=50, search=search)(evidence)
    counts = _counts(found)
    assert counts.dtype == torch.int64
    assert (counts >= 0).all()
    assert int(counts.sum()) == steps * batch == evidence.total
    assert (found.shares >= 0).all()
    assert float(found.shares.sum()) == pytest.approx(1, abs=1e-9)
    assert (counts - found.shares * steps * batch).abs().max() < 1 + 1e-6
    first, last = (found.diagnostics[f"discrepancy_{end}"] for end in ("start", "end"))
    if search == "checked" and steps > 1:
        assert 0 <= last <= first


@pytest.mark.parametrize("search", EVERY)
@pytest.mark.parametrize("steps", [1, 6])
def test_relabelled_classes_relabel_the_answer(steps: int, search: str) -> None:
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    evidence = evidence_of(skewed_steps(steps, 32, seed=4), lr=0.2)
    plain = _attack(evidence, search=search)
    renamed = _attack(relabelled(evidence, order), search=search)
    assert torch.equal(_counts(renamed), _counts(plain)[order])
    assert torch.allclose(renamed.shares, plain.shares[order], atol=1e-6)


def _confidence(outputs: Outputs) -> Tensor:
    moments = class_moments(outputs.logits.float(), outputs.labels, outputs.logits.shape[1])
    return logit_draws(moments, DRAWS, seed=0).confidence()


def test_without_a_search_the_answer_is_least_squares_with_both_ends_averaged() -> None:
    evidence = _curved(0)
    found = _attack(evidence, search="none")
    middle = (_confidence(evidence.before) + _confidence(evidence.after)) / 2
    assert torch.equal(found.shares, label_shares(middle, evidence.signal).shares)
    assert found.status is Status.SOLVED
    assert found.diagnostics["search_passes"] == 0


def test_one_step_uses_the_global_model_alone() -> None:
    """Its only gradient is taken there; the client's model must not come into it."""
    evidence = evidence_of(skewed_steps(1, 32, seed=0), lr=0.5)
    other = replace(evidence, after=replace(evidence.after, logits=-evidence.after.logits))
    assert torch.equal(_attack(other).shares, _attack(evidence).shares)


def test_checked_ends_settled_and_never_farther_than_it_started() -> None:
    moved = 0
    for seed in range(8):
        found = _attack(_curved(seed))
        figures = found.diagnostics
        assert found.status is Status.SETTLED
        assert figures["discrepancy_end"] <= figures["discrepancy_start"]
        if figures["search_passes"] > 1:
            assert figures["discrepancy_end"] < figures["discrepancy_start"]
            moved += 1
    assert moved > 0


def test_checked_cut_short_while_it_still_improves_is_not_settled() -> None:
    evidence = next(
        e for e in map(_curved, range(8)) if _attack(e).diagnostics["search_passes"] > 2
    )
    found = _attack(evidence, iterations=1)
    assert found.status is Status.UNSETTLED
    assert not found.status.ok
    assert found.diagnostics["search_passes"] == 1
    enough = _attack(evidence, iterations=_attack(evidence).diagnostics["search_passes"])
    assert enough.status is Status.SETTLED


@pytest.mark.parametrize(("asked", "made"), [(None, PRINTED_ITERATIONS), (1, 1), (3, 3)])
def test_the_printed_search_makes_all_its_passes(asked: int | None, made: int) -> None:
    found = _attack(_curved(0), search="printed", iterations=asked)
    assert found.status is Status.STOPPED
    assert found.status.ok
    assert found.diagnostics["search_passes"] == made


@pytest.mark.parametrize("iterations", [1, 2, None])
def test_the_printed_search_survives_batches_of_one(iterations: int | None) -> None:
    """g = ⌊N/m⌋ is then zero for every class, and a batch without labels has no probability.

    A move of m labels is also more than any class has.
    """
    per_step = torch.eye(6, dtype=torch.int64)
    evidence = evidence_of(per_step, lr=0.05)
    found = _attack(evidence, search="printed", iterations=iterations)
    assert int(_counts(found).sum()) == 6
    assert (_counts(found) >= 0).all()
    assert torch.isfinite(torch.tensor(found.diagnostics["discrepancy_end"]))


@pytest.mark.parametrize("search", EVERY)
def test_without_batch_sizes_there_are_shares_and_no_counts(search: str) -> None:
    per_step = _even_steps(10, 32, seed=1)
    evidence = evidence_of(per_step, world=World(**ALIKE), lr=0.01)
    found = _attack(replace(evidence, batch_sizes=None), search=search)
    assert found.counts is None
    assert float(found.shares.sum()) == pytest.approx(1, abs=1e-9)
    assert (found.shares - per_step[0] / 32).abs().max() < 0.15


@pytest.mark.parametrize("search", EVERY)
def test_full_passes_over_the_same_samples_give_multiples_of_the_passes(search: str) -> None:
    one_pass = _even_steps(4, 32, seed=1)
    evidence = evidence_of(one_pass.repeat(3, 1), world=World(**ALIKE), lr=0.01)
    counts = _counts(_attack(replace(evidence, passes=3), search=search))
    assert int(counts.sum()) == evidence.total
    assert not (counts % 3).any()


def test_label_smoothing_that_is_given_is_taken_out() -> None:
    """A smoothed target is a mixture: what the client learns is (1 - ε) z + ε/N."""
    truth, smoothing = skewed_steps(1, 64, seed=2, present=3)[0], 0.2
    evidence = evidence_of(truth[None], world=World(**ALIKE))
    bias, weight = evidence.update.bias, evidence.update.weight
    assert bias is not None
    plain = truth.double() / 64
    moved = evidence.lr * ((1 - smoothing) * plain + smoothing / 6 - plain)
    learned = replace(evidence, update=Head(weight, bias + moved), smoothing=smoothing)
    assert torch.equal(_counts(_attack(learned)), truth)


def test_the_same_seed_gives_the_same_answer_whatever_torch_did_before() -> None:
    evidence = _curved(3)
    first = _attack(evidence, seed=5)
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = _attack(evidence, seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(again.shares, first.shares)
    assert dict(again.diagnostics) == dict(first.diagnostics)
    other = _attack(evidence, seed=6)
    assert other.diagnostics["residual"] != first.diagnostics["residual"]


def test_a_solver_that_gives_up_ends_the_attack_with_its_status() -> None:
    """A model that never doubts: A is zero, nothing is searched, the answer says so."""
    evidence = evidence_of(_even_steps(3, 12, seed=0))
    certain = 1e4 * torch.eye(6, dtype=torch.float64)[evidence.before.labels]
    sure = replace(
        evidence,
        before=replace(evidence.before, logits=certain),
        after=replace(evidence.after, logits=certain),
    )
    found = _attack(sure)
    assert found.status is Status.UNSOLVED
    assert _counts(found).tolist() == [6] * 6
    assert found.diagnostics["search_passes"] == 0


def test_fewer_draws_than_asked_for_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = evidence_of(skewed_steps(1, 16, seed=0), images=5)
    assert _attack(evidence).diagnostics["draws"] == DRAWS
    monkeypatch.setattr(monte_carlo, "_NOISE_BYTES", 4 * 5 * 7)
    assert _attack(evidence).diagnostics["draws"] == 7


def test_erroneous_confidence_is_one_untrained_and_zero_for_a_perfect_model() -> None:
    assert erroneous_confidence(torch.full((7, 7), 1 / 7)) == pytest.approx(1, abs=1e-6)
    assert erroneous_confidence(torch.eye(7)) == 0
    trained = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    assert erroneous_confidence(trained) == pytest.approx(0.6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("search", EVERY)
def test_cpu_and_cuda_give_the_same_counts(search: str) -> None:
    def moved(seen: Outputs) -> Outputs:
        return Outputs(seen.embeddings.cuda(), seen.logits.cuda(), seen.labels.cuda())

    for seed in range(3):
        evidence = _curved(seed)
        there = replace(evidence, before=moved(evidence.before), after=moved(evidence.after))
        here, cuda = _attack(evidence, search=search), _attack(there, search=search)
        assert torch.equal(_counts(cuda), _counts(here))
        assert torch.allclose(cuda.shares, here.shares, atol=1e-4)
