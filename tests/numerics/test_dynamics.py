"""The simulated client: against its definition, softmax by softmax, for any scheme's weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlu_cli.numerics.dynamics import (
    implied_embedding,
    logit_gain,
    offset_shifts,
    simulated_shift,
)
from rlu_cli.numerics.moments import class_moments
from rlu_cli.numerics.monte_carlo import LogitDraws, logit_draws
from rlu_cli.schemes.recursion import Recursion, step_weights
from rlu_cli.types import GradientFreeOffset, Head

CLASSES, WIDTH = 5, 7


def _random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _draws(seed: int = 0) -> LogitDraws:
    labels = torch.arange(CLASSES).repeat_interleave(6)
    return logit_draws(class_moments(_random(30, CLASSES, seed=seed), labels, CLASSES), 150, seed=1)


def _triangle(steps: int, seed: int) -> Tensor:
    """Weights of an arbitrary linear scheme: state τ knows the gradients before τ."""
    return torch.tril(_random(steps + 1, steps, seed=seed), diagonal=-1)


def _mix(seed: int, absent: int = 1) -> Tensor:
    mix = _random(CLASSES, seed=seed).abs()
    mix[:absent] = 0
    return mix / mix.sum()


def _replayed(
    draws: LogitDraws,
    mix: Tensor,
    weights: Tensor,
    rate: float,
    offset: Tensor | None,
    smoothing: float,
) -> Tensor:
    """Eqs. 12, 13 in full: every sample of every class, shifted and put through a softmax."""
    moments = draws.moments
    samples = [
        moments.mean[n] + draws.noise[:, : len(factor)] @ factor
        for n, factor in enumerate(moments.factors)
    ]
    gradients: list[Tensor] = []

    def moved(state: int) -> Tensor:
        shift = torch.zeros(CLASSES, dtype=torch.float64)
        for i, gradient in enumerate(gradients):
            shift = shift - rate * weights[state, i] * gradient
        return shift if offset is None else shift - offset[state]

    for state in range(weights.shape[1]):
        shift = moved(state)
        mean = [torch.softmax(own + shift, 1).mean(0) for own in samples]
        targets = (1 - smoothing) * mix + smoothing / CLASSES
        gradients.append(sum(mix[n] * mean[n] for n in range(CLASSES)) - targets)
    return moved(weights.shape[1])


@given(
    steps=st.integers(1, 6),
    rate=st.floats(0.0, 3.0),
    pushed=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=40)
def test_the_shift_is_that_of_the_round_replayed_sample_by_sample(
    steps: int, rate: float, pushed: bool, smoothing: float, seed: int
) -> None:
    weights, mix, draws = _triangle(steps, seed), _mix(seed), _draws()
    offset = _random(steps + 1, CLASSES, seed=seed + 1) if pushed else None
    expected = _replayed(draws, mix, weights, rate, offset, smoothing)
    found = simulated_shift(draws, mix, weights, rate, offset, smoothing)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_one_step_of_plain_sgd_is_the_difference_between_labels_and_confidence() -> None:
    draws, mix = _draws(), _mix(3)
    found = simulated_shift(draws, mix, torch.tensor([[0.0], [1.0]]), 0.5)
    assert torch.allclose(found, 0.5 * (mix - mix @ draws.confidence()), atol=1e-12)


def test_without_a_learning_rate_nothing_moves_but_the_offset() -> None:
    weights, offset = _triangle(4, 0), _random(5, CLASSES, seed=2)
    assert not simulated_shift(_draws(), _mix(0), weights, 0.0).any()
    assert torch.equal(simulated_shift(_draws(), _mix(0), weights, 0.0, offset), -offset[-1])


def test_the_labels_that_a_batch_holds_gain_and_the_shift_sums_to_zero() -> None:
    weights = step_weights(Recursion(lr=(0.1,) * 8))
    mix = torch.zeros(CLASSES, dtype=torch.float64)
    mix[2] = 1
    shift = simulated_shift(_draws(), mix, weights, 0.1)
    assert int(shift.argmax()) == 2
    assert (shift[mix == 0] < 0).all()
    assert float(shift.sum()) == pytest.approx(0, abs=1e-12)


def test_relabelled_classes_relabel_the_shift() -> None:
    order = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(1))
    logits, labels = _random(30, CLASSES, seed=0), torch.arange(CLASSES).repeat_interleave(6)
    mix, weights = _mix(4), step_weights(Recursion(lr=(0.1,) * 3))
    plain = logit_draws(class_moments(logits, labels, CLASSES), 50, seed=0)
    position = torch.argsort(order)
    swapped = class_moments(logits[:, order], position[labels], CLASSES)
    renamed = logit_draws(swapped, 50, seed=0)
    expected = simulated_shift(plain, mix, weights, 0.7)[order]
    found = simulated_shift(renamed, mix[order], weights, 0.7)
    assert torch.allclose(found, expected, atol=1e-12)


@given(st.integers(0, 10**6), st.floats(1e-6, 1e3))
@settings(deadline=None)
def test_an_update_made_by_one_embedding_gives_it_back(seed: int, scale: float) -> None:
    bias, embedding = scale * _random(CLASSES, seed=seed), _random(WIDTH, seed=seed + 1)
    found = implied_embedding(Head(bias[:, None] * embedding, bias))
    assert torch.allclose(found, embedding, rtol=1e-9, atol=1e-9)


def test_the_implied_embedding_is_least_squares_over_all_rows() -> None:
    bias, weight = _random(CLASSES, seed=0), _random(CLASSES, WIDTH, seed=1)
    expected = torch.linalg.lstsq(bias[:, None], weight).solution[0]
    assert torch.allclose(implied_embedding(Head(weight, bias)), expected)


def test_a_logit_gains_what_its_weights_and_its_bias_give() -> None:
    embedding = _random(WIDTH, seed=0)
    own = float((embedding**2).sum())
    assert logit_gain(embedding, biased=True) == pytest.approx(1 + own)
    assert logit_gain(embedding, biased=False) == pytest.approx(own)


def test_offset_shifts_are_what_the_offset_adds_to_a_logit() -> None:
    heads = [Head(_random(CLASSES, WIDTH, seed=s), _random(CLASSES, seed=s + 9)) for s in range(2)]
    embedding = _random(WIDTH, seed=30)
    offset = GradientFreeOffset(_random(4, 2, seed=31), tuple(heads))
    unbiased = GradientFreeOffset(offset.coefficients, tuple(Head(h.weight, None) for h in heads))
    found = offset_shifts(offset, embedding, biased=True)
    without = offset_shifts(unbiased, embedding, biased=False)
    assert found is not None
    assert without is not None
    for state in range(4):
        head = offset[state]
        assert head.bias is not None
        assert torch.allclose(found[state], head.weight @ embedding + head.bias)
        assert torch.allclose(without[state], head.weight @ embedding)
    assert offset_shifts(None, embedding, biased=True) is None
