"""Weights from unit impulses: the triangle of plain SGD, and linearity for any settings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlu_cli.schemes.recursion import Recursion, offset_weights, path, step_weights

STEPS = 5

CLIENTS = st.builds(
    Recursion,
    lr=st.tuples(*[st.floats(0.001, 0.5)] * STEPS),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    nesterov=st.booleans(),
    decay=st.sampled_from([0.0, 0.01]),
    pull=st.sampled_from([0.0, 0.5]),
)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("lr", [0.01, 1.0])
def test_plain_sgd_counts_every_gradient_so_far_once(steps: int, lr: float) -> None:
    expected = torch.tril(torch.ones(steps + 1, steps, dtype=torch.float64), diagonal=-1)
    assert torch.equal(expected[-1], torch.ones(steps, dtype=torch.float64))
    assert torch.allclose(step_weights(Recursion(lr=(lr,) * steps)), expected, atol=1e-12)


@given(client=CLIENTS, seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_weights_and_offset_give_every_position_for_arbitrary_gradients(
    client: Recursion, seed: int
) -> None:
    """The scheme identity: θ^τ - θ_global = -lr Σ_i w[τ, i] ∇^i - offset[τ]."""
    generator = torch.Generator().manual_seed(seed)
    origin, constant, velocity, *gradients = torch.randn(
        3 + STEPS, 4, generator=generator, dtype=torch.float64
    )
    weights = step_weights(client)
    offset = offset_weights(client) @ torch.stack([origin, constant, velocity])
    expected = origin - client.lr[0] * weights @ torch.stack(gradients) - offset
    found = torch.stack(list(path(client, origin, gradients, constant, velocity)))
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@given(client=CLIENTS)
@settings(deadline=None)
def test_a_state_knows_only_the_gradients_before_it(client: Recursion) -> None:
    assert not step_weights(client).triu().any()
