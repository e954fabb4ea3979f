"""Ramakrishna & Dán: the closed form and virtual clients, where they are exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hand_made import Numbers, Rows, head, numbers, one_embedding, pulled, round_of, seen
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_client import World, evidence_of, momentum_weights, skewed_steps
from torch import Tensor

from rlu_cli.attacks.ramakrishna_dan import closed_form, virtual_clients
from rlu_cli.types import Evidence, Head, Recovery, Status

UNSURE = [0.5, 0.3, 0.2]


def _counts(found: Recovery) -> list[int]:
    assert found.counts is not None
    return found.counts.tolist()


def _origin(probabilities: Numbers) -> Head:
    bias = numbers(probabilities).log()
    return Head(torch.ones(len(bias), 2, dtype=torch.float64), bias)


def test_one_step_is_exact_where_the_bias_tells_the_confidence() -> None:
    """p = softmax(b) = (.5, .3, .2), n = (2, 7, 1)/10: u = n - p = (-.3, .4, -.1); S is not used.

    I - 0·Sᵀ: shares are u + softmax(b).
    """
    junk = seen([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.1, 0.1, 0.8]])
    gradient = one_embedding([0.3, -0.4, 0.1])
    found = closed_form(round_of(gradient, batches=[10], before=junk, origin=_origin(UNSURE)))
    assert torch.allclose(found.shares, numbers([0.2, 0.7, 0.1]))
    assert _counts(found) == [2, 7, 1]


def test_a_layer_without_bias_starts_from_even_confidence() -> None:
    gradient = one_embedding(pulled([2, 7, 3], [1 / 3] * 3))
    assert _counts(closed_form(round_of(gradient, batches=[12]))) == [2, 7, 3]


def test_two_steps_are_exact_where_the_second_sees_the_confidence_of_the_images() -> None:
    """S = ((.8, .2), (.4, .6)), p = (.75, .25): Sᵀp = (.7, .3); first step softmax(b) = (.5, .5).

    u = (.75, .25) - (.5, .5)/2 - (.7, .3)/2 = (.15, -.15). With S for Sᵀ the answer would be off.
    """
    shown = seen([[0.8, 0.2], [0.4, 0.6]])
    gradient = one_embedding([-0.15, 0.15])
    found = closed_form(
        round_of(gradient, batches=[10, 10], before=shown, origin=_origin([0.5, 0.5]))
    )
    assert torch.allclose(found.shares, numbers([0.75, 0.25]))
    assert _counts(found) == [15, 5]


@given(
    counts=st.lists(st.integers(0, 40), min_size=2, max_size=6).filter(any),
    steps=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_exact_over_any_number_of_steps_while_s_stays(
    counts: list[int], steps: int, seed: int
) -> None:
    """u = p - softmax(b)/m - (m - 1)/m Sᵀp, with S of the global model throughout."""
    classes, shares = len(counts), numbers([count / sum(counts) for count in counts])
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(classes + 1, classes, generator=generator, dtype=torch.float64).softmax(1)
    start, confidence = rows[0], rows[1:]
    signal = shares - start / steps - (steps - 1) / steps * confidence.T @ shares
    found = closed_form(
        round_of(
            one_embedding(-signal),
            batches=[sum(counts)] * steps,
            before=seen(confidence),
            origin=_origin(start),
        )
    )
    assert _counts(found) == [steps * count for count in counts]


def test_the_closed_form_floors_what_comes_out_negative() -> None:
    """u + softmax(b) = (.5 + .2, .3 + .1, .2 - .3)."""
    gradient = one_embedding([-0.2, -0.1, 0.3])
    found = closed_form(round_of(gradient, batches=[11], origin=_origin(UNSURE)))
    assert _counts(found) == [7, 4, 0]


CLASS_UPDATES = [[0.6, -0.3, -0.3], [-0.2, 0.5, -0.3], [-0.1, -0.4, 0.5]]


def _mixed(learned: Numbers, class_updates: Rows = CLASS_UPDATES) -> Evidence:
    """A client whose Δb is given, beside virtual clients."""
    evidence = round_of(one_embedding([0.0] * 3), batches=[4, 4], class_updates=class_updates)
    return replace(evidence, update=head(torch.ones(3, 2), learned))


def test_virtual_clients_are_mixed_into_the_client_s_update() -> None:
    """.5 (.6, -.3, -.3) + .25 (-.2, .5, -.3) + .25 (-.1, -.4, .5) = (.225, -.125, -.1)."""
    found = virtual_clients(_mixed([0.225, -0.125, -0.1]))
    assert torch.allclose(found.shares, numbers([0.5, 0.25, 0.25]))
    assert _counts(found) == [4, 2, 2]
    assert found.status.ok
    assert found.diagnostics["residual"] == pytest.approx(0, abs=1e-9)


def test_a_mixture_never_takes_less_than_nothing_of_a_class() -> None:
    """1.5 of client 0 less .5 of client 1: the nearest mixture is client 0 alone."""
    rows = numbers(CLASS_UPDATES)
    found = virtual_clients(_mixed(1.5 * rows[0] - 0.5 * rows[1]))
    assert _counts(found) == [8, 0, 0]
    assert found.diagnostics["residual"] > 0


def test_virtual_clients_that_did_not_move_leave_the_mixture_unsolved() -> None:
    found = virtual_clients(_mixed([0.2, -0.1, -0.1], [[0.0] * 3] * 3))
    assert found.status is Status.UNSOLVED
    assert not found.status.ok


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_exact_for_a_round_that_is_linear_in_its_counts(seed: int, biased: bool) -> None:
    """One step on images that are all alike within a class: Δb is the mean of the classes' own."""
    world = World(seed=seed, wide=0.0)
    per_step = skewed_steps(1, 64, seed=seed, present=4)
    found = virtual_clients(
        evidence_of(per_step, world=world, biased=biased, images=2, virtual=True)
    )
    assert torch.allclose(found.shares, per_step[0].double() / 64, atol=1e-6)
    assert _counts(found) == per_step[0].tolist()


@pytest.mark.parametrize("weights", [None, momentum_weights(6, 0.9)])
@pytest.mark.parametrize("seed", range(3))
def test_within_a_label_of_a_slow_round_whatever_the_scheme(
    seed: int, weights: Tensor | None
) -> None:
    world = World(seed=seed, apart=0.02, wide=0.02)
    per_step = skewed_steps(1, 32, seed=seed, present=4).repeat(6, 1)
    evidence = evidence_of(per_step, world=world, lr=0.003, weights=weights, images=5, virtual=True)
    found = virtual_clients(evidence)
    assert found.counts is not None
    assert (found.counts - per_step.sum(0)).abs().max() <= 1
