"""Expected softmax by Monte Carlo: exact samples, shared noise, bounded work, shifts for free."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlu_cli.numerics import monte_carlo
from rlu_cli.numerics.moments import ClassMoments, class_moments
from rlu_cli.numerics.monte_carlo import (
    LogitDraws,
    affordable_draws,
    base_noise,
    logit_draws,
)

CLASSES = 4


def _moments(
    seed: int = 0, *, sizes: tuple[int, ...] = (6, 9, 3, 7), spread: float = 1.0
) -> ClassMoments:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    logits = spread * torch.randn(len(labels), len(sizes), generator=generator)
    return class_moments(logits, labels, len(sizes))


def _samples(draws: LogitDraws, n: int) -> Tensor:
    """The logits drawn for class n, (M, N), from their definition."""
    moments = draws.moments
    factor = moments.factors[n].double()
    return moments.mean[n].double() + draws.noise[:, : len(factor)].double() @ factor


def _directly(draws: LogitDraws, shift: Tensor) -> Tensor:
    """S with `shift` added to every logit, softmax by softmax."""
    rows = [torch.softmax(_samples(draws, n) + shift, 1).mean(0) for n in range(draws.classes)]
    return torch.stack(rows)


@pytest.mark.parametrize("n", range(CLASSES))
def test_the_samples_have_the_mean_and_covariance_estimated(n: int) -> None:
    count = 40_000
    draws = logit_draws(_moments(), count, seed=3)
    own = torch.cat(list(draws._logits(n))).double()
    mean, factor = draws.moments.mean[n].double(), draws.moments.factors[n].double()
    covariance = factor.T @ factor
    variance = covariance.diagonal()
    assert own.shape == (count, CLASSES)
    assert ((own.mean(0) - mean).abs() < 5 * (variance / count).sqrt()).all()
    error = ((variance[:, None] * variance + covariance**2) / count).sqrt()
    assert ((torch.cov(own.T) - covariance).abs() < 5 * error).all()
    assert torch.allclose(own, _samples(draws, n), atol=1e-4)


@given(
    shift=st.lists(st.floats(-200, 200), min_size=CLASSES, max_size=CLASSES),
    spread=st.sampled_from([0.1, 1.0, 8.0]),
)
@settings(deadline=None, max_examples=40)
def test_a_shift_of_the_logits_costs_no_accuracy(shift: list[float], spread: float) -> None:
    draws = logit_draws(_moments(spread=spread), 200, seed=1)
    delta = torch.tensor(shift)
    found = draws.confidence(delta)
    assert torch.allclose(found, _directly(draws, delta), atol=2e-5)
    assert torch.allclose(found.sum(1), torch.ones(CLASSES).double(), atol=1e-5)


def test_both_ways_to_shift_agree_at_their_border(monkeypatch: pytest.MonkeyPatch) -> None:
    delta = torch.tensor([0.0, 30.0, -29.0, 4.0])
    kept = logit_draws(_moments(spread=5.0), 300, seed=1).confidence(delta)
    monkeypatch.setattr(monte_carlo, "_WIDE", 0.0)
    direct = logit_draws(_moments(spread=5.0), 300, seed=1).confidence(delta)
    assert torch.allclose(kept, direct, atol=1e-5)


def test_a_constant_added_to_every_logit_changes_nothing() -> None:
    draws = logit_draws(_moments(), 200, seed=1)
    shifted = draws.confidence(torch.full((CLASSES,), 17.0))
    assert torch.allclose(shifted, draws.confidence(), atol=1e-6)


def test_what_does_not_fit_in_memory_is_computed_again_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delta = torch.tensor([0.5, -1.0, 0.0, 2.0])
    whole = logit_draws(_moments(), 500, seed=2)
    expected = [whole.confidence(), whole.confidence(delta)]
    assert len(whole._kept) == CLASSES
    for limit, kept in ((0, 0), (2 * 4 * 500 * CLASSES, 2)):
        monkeypatch.setattr(monte_carlo, "_KEPT_BYTES", limit)
        tight = logit_draws(_moments(), 500, seed=2)
        for _ in range(2):  # what a second call finds must not depend on the first
            assert torch.equal(tight.confidence(), expected[0])
            assert torch.equal(tight.confidence(delta), expected[1])
        assert len(tight._kept) == kept


def test_blocks_change_nothing_but_the_order_of_summation(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = logit_draws(_moments(), 500, seed=2).confidence()
    monkeypatch.setattr(monte_carlo, "_CHUNK_BYTES", 4 * CLASSES * 7)
    blocks = logit_draws(_moments(), 500, seed=2)
    assert torch.allclose(blocks.confidence(), whole, atol=1e-6)
    assert [len(block) for block in blocks._kept[0]] == [7] * 71 + [3]


def test_the_same_seed_gives_the_same_noise_whatever_torch_did_before() -> None:
    first = base_noise(50, 6, seed=9)
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    assert torch.equal(base_noise(50, 6, seed=9), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(base_noise(50, 6, seed=10), first)


def test_all_classes_and_both_ends_of_a_round_share_the_noise() -> None:
    """Two classes with the same logits have the same row, and a shifted one the shifted row."""
    images = torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(4))
    delta = torch.tensor([0.3, -0.2, 0.0, 1.0])
    labels = torch.repeat_interleave(torch.arange(CLASSES), 5)
    before = logit_draws(class_moments(images.repeat(CLASSES, 1), labels, CLASSES), 40, seed=0)
    after = class_moments((images + delta).repeat(CLASSES, 1), labels, CLASSES)
    rows = before.confidence()
    assert torch.equal(rows, rows[0].expand_as(rows))
    assert torch.allclose(
        logit_draws(after, 40, seed=0).confidence(), before.confidence(delta), atol=1e-6
    )


def test_a_batch_is_the_mixture_of_its_classes_and_an_empty_one_has_no_probability() -> None:
    draws = logit_draws(_moments(), 100, seed=0)
    delta = torch.tensor([0.5, -1.0, 0.0, 2.0])
    mix = torch.tensor([0.25, 0.0, 0.75, 0.0], dtype=torch.float64)
    expected = mix @ draws.confidence(delta)
    assert torch.allclose(draws.batch_probability(mix, delta), expected, atol=1e-12)
    assert torch.equal(draws.batch_probability(0 * mix, delta), 0 * mix)


@given(st.integers(1, 10**7), st.integers(2, 30_000), st.integers(2, 20_000))
def test_draws_are_bounded_by_work_and_by_memory(draws: int, classes: int, images: int) -> None:
    granted = affordable_draws(draws, classes, images)
    assert 1 <= granted <= draws
    assert granted == 1 or 4 * granted * images <= 2**28
    assert granted == 1 or classes <= 500 or granted * classes**2 <= 4e8
    if granted < draws:  # never fewer than needed
        more = granted + 1
        assert 4 * more * images > 2**28 or (classes > 500 and more * classes**2 > 4e8)


def test_up_to_500_classes_the_draws_stay_as_asked_for() -> None:
    assert affordable_draws(10_000, 500, 100) == 10_000
    assert affordable_draws(10_000, 501, 100) < 10_000


def test_saturated_logits_give_a_finite_answer() -> None:
    moments = ClassMoments(1e4 * torch.eye(CLASSES), [torch.ones(2, CLASSES)] * CLASSES)
    draws = logit_draws(moments, 10, seed=0)
    for shift in (None, torch.tensor([0.0, -59.0, 59.0, 0.0]), torch.tensor([0.0, -1e4, 1e4, 0.0])):
        found = draws.confidence(shift)
        assert torch.isfinite(found).all()
        assert torch.allclose(found.sum(1), torch.ones(CLASSES).double(), atol=1e-5)


def test_one_noise_serves_every_device() -> None:
    """Drawn on the CPU: on the `meta` device only its place and shape can differ."""
    moments = ClassMoments(
        torch.empty(CLASSES, CLASSES, device="meta"),
        [torch.empty(3, CLASSES, device="meta")] * CLASSES,
    )
    drawn = base_noise(8, 3, seed=5)
    assert drawn.device.type == "cpu"
    assert logit_draws(moments, 8, seed=5).noise.device.type == "meta"
    assert torch.equal(logit_draws(_moments(sizes=(3,) * CLASSES), 8, seed=5).noise, drawn)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cpu_and_cuda_agree() -> None:
    moments = _moments(spread=3.0)
    there = ClassMoments(moments.mean.cuda(), [factor.cuda() for factor in moments.factors])
    here, cuda = logit_draws(moments, 2_000, seed=0), logit_draws(there, 2_000, seed=0)
    assert torch.equal(cuda.noise.cpu(), here.noise)
    for shift in (None, torch.tensor([0.0, 3.0, -2.0, 1.0]), torch.tensor([0.0, 90.0, 0.0, 0.0])):
        assert torch.allclose(cuda.confidence(shift), here.confidence(shift), atol=1e-4)
        assert math.isclose(float(cuda.confidence(shift).sum()), CLASSES, abs_tol=1e-3)
