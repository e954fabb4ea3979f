"""The path method on a client that trains one layer: what S along the line adds to its ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from linear_client import World, evidence_of, momentum_weights, plain_weights, skewed_steps
from torch import Tensor

from rlu_cli.attacks import ATTACKS
from rlu_cli.attacks.observations import INTERPOLATION
from rlu_cli.numerics.output_means import class_confidence
from rlu_cli.numerics.simplex import label_shares
from rlu_cli.types import Evidence, Interpolation, Outputs, Recovery, Status

STEPS, BATCH, CLASSES = 10, 64, 6


def _path(evidence: Evidence) -> Recovery:
    return ATTACKS["path"].attack(evidence)


def _error(shares: Tensor, per_step: Tensor) -> float:
    truth = per_step.sum(0).double() / per_step.sum()
    return float((shares - truth).abs().sum())


def _both_ends(evidence: Evidence) -> Tensor:
    """The shares under S as the mean of both ends: Algorithm 1 without its search."""
    confidence = (class_confidence(evidence.before) + class_confidence(evidence.after)) / 2
    return label_shares(confidence, evidence.signal, evidence.smoothing).shares


def _trained(world: World) -> Evidence:
    made = skewed_steps(STEPS, BATCH, seed=world.seed, present=4)
    return evidence_of(made, world=world, head=world.trained_head(2.0), lr=1.0, images=200)


ROUNDS: dict[str, Callable[[World, Tensor], Evidence]] = {
    "untrained": lambda w, made: evidence_of(made, world=w, lr=0.3, images=200),
    "fast": lambda w, made: evidence_of(made, world=w, lr=3.0, images=200),
    "trained": lambda w, made: evidence_of(
        made, world=w, head=w.trained_head(2.0), lr=1.0, images=200
    ),
    "momentum": lambda w, made: evidence_of(
        made, world=w, lr=0.1, images=200, weights=momentum_weights(STEPS, 0.9)
    ),
}


@pytest.mark.parametrize("kind", ROUNDS)
def test_it_is_closer_than_both_ends_averaged(kind: str) -> None:
    path, ends = [], []
    for seed in range(10):
        made = skewed_steps(STEPS, BATCH, seed=seed, present=4)
        evidence = ROUNDS[kind](World(seed=seed, apart=0.5, wide=0.3), made)
        path.append(_error(_path(evidence).shares, made))
        ends.append(_error(_both_ends(evidence), made))
    assert sum(path) < sum(ends)
    if kind in ("untrained", "fast"):  # the client saturates within a few steps
        assert sum(path) < 0.8 * sum(ends)


def _shrunk(made: Tensor, lr: float) -> Evidence:
    """Features without noise, so that only the path itself can be wrong."""
    return evidence_of(made, world=World(apart=0.5, wide=1e-9), lr=lr, images=2)


def test_the_error_vanishes_with_the_length_of_the_path() -> None:
    made = skewed_steps(STEPS, BATCH, seed=3, present=4)
    errors = [_error(_path(_shrunk(made, lr)).shares, made) for lr in (0.3, 0.03, 0.003)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


@pytest.mark.parametrize("lr", [0.1, 10.0])
def test_one_step_is_exact_whatever_its_length(lr: float) -> None:
    made = skewed_steps(1, BATCH, seed=3, present=4)
    found = _path(_shrunk(made, lr))
    assert _error(found.shares, made) < 1e-6
    assert found.diagnostics["point_weights"] == [1.0]
    assert found.counts is not None
    assert torch.equal(found.counts, made[0])


def test_the_weights_of_the_points_are_those_the_client_spent_there() -> None:
    """S from the client's own places gives the update; path finds about the same S by itself."""
    made = skewed_steps(STEPS, BATCH, seed=2, present=4)
    evidence = _shrunk(made, 0.3)
    truth = made.sum(0).double() / made.sum()
    expected = truth - evidence.signal  # P̄, by the identity
    weights = torch.tensor(_path(evidence).diagnostics["point_weights"], dtype=torch.float64)
    confidence = torch.stack([class_confidence(seen) for seen in evidence[INTERPOLATION].outputs])
    found = torch.einsum("s,n,snj->j", weights, truth, confidence)
    even = torch.einsum("n,snj->j", truth, confidence[[0, 2]]) / 2
    assert float((found - expected).norm()) < 0.5 * float((even - expected).norm())


def _relabelled(seen: Outputs, order: Tensor) -> Outputs:
    back = order.argsort()
    return Outputs(seen.embeddings, seen.logits[:, back], order[seen.labels])


def test_the_order_of_the_classes_does_not_matter() -> None:
    evidence, order = _trained(World(seed=4)), torch.tensor([3, 5, 0, 1, 4, 2])
    assert evidence.update.bias is not None
    back = order.argsort()
    moved = replace(evidence.update, bias=evidence.update.bias[back])
    plain = evidence[INTERPOLATION]
    outputs = tuple(_relabelled(seen, order) for seen in plain.outputs)
    renamed = replace(evidence, update=moved)
    renamed = renamed.with_observed(INTERPOLATION, Interpolation(plain.points, outputs))
    other = _path(renamed)
    torch.testing.assert_close(other.shares, _path(evidence).shares[back], rtol=0, atol=1e-7)


def test_the_schemes_own_weights_are_used() -> None:
    made = skewed_steps(STEPS, BATCH, seed=1, present=4)
    slow = evidence_of(made, lr=0.3, images=100, weights=momentum_weights(STEPS, 0.9))
    plain = replace(slow, weights=plain_weights(STEPS), lr=0.3 * float(slow.weights[-1].mean()))
    torch.testing.assert_close(plain.signal, slow.signal)
    centre = [
        sum(w * s for w, s in zip(_path(e).diagnostics["point_weights"], (0, 0.5, 1), strict=True))
        for e in (slow, plain)
    ]
    assert centre[0] < centre[1] - 0.02  # γ counts early gradients most, and begins slowly


def test_the_answer_says_how_it_came_about() -> None:
    evidence = _trained(World())
    found = _path(evidence)
    assert found.status is Status.SOLVED
    assert sum(found.diagnostics["point_weights"]) == pytest.approx(1)
    assert found.diagnostics["residual"] < 0.2
    assert found.diagnostics["condition"] > 1
    assert found.counts is not None
    assert int(found.counts.sum()) == STEPS * BATCH
