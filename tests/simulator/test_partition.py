"""The Dirichlet partition (Eqs. 93, 94): complete, disjoint, and as uneven as asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlu_cli.errors import InputError
from rlu_cli.simulator.partition import MAX_REDRAWS, partition


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=40, max_size=120),
    clients=st.integers(1, 5),
    alpha=st.floats(0.3, 50),
    seed=st.integers(0, 1000),
)
def test_every_image_has_one_owner_and_every_client_enough(
    labels: list[int], clients: int, alpha: float, seed: int
) -> None:
    minimum = 4
    shares = partition(np.array(labels), clients, alpha, minimum, seed)
    owned = np.concatenate(shares.owned)
    assert np.array_equal(np.sort(owned), np.arange(len(labels)))
    assert min(len(own) for own in shares.owned) >= minimum
    counts = shares.counts(np.array(labels), 6)
    assert np.array_equal(counts.sum(axis=0), np.bincount(labels, minlength=6))


def test_class_shares_vary_as_the_dirichlet_says() -> None:
    """Var p_k = (1/K)(1 - 1/K) / (Kα + 1), over many classes and clients."""
    classes, clients, each = 400, 5, 200
    labels = np.repeat(np.arange(classes), each)
    for alpha in (0.1, 1.0, 20.0):
        shares = partition(labels, clients, alpha, 1, seed=0).counts(labels, classes) / each
        expected = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
        assert shares.var() == pytest.approx(expected, rel=0.15)


def test_redraws_are_counted() -> None:
    labels = np.repeat(np.arange(3), 30)
    redraws = [partition(labels, 4, 0.3, 12, seed).redraws for seed in range(20)]
    assert max(redraws) > 0
    assert all(partition(labels, 4, 0.3, 1, s).redraws <= r for s, r in enumerate(redraws))


def test_the_seed_fixes_the_partition() -> None:
    labels = np.repeat(np.arange(4), 25)
    first, again, other = (partition(labels, 3, 0.5, 5, seed).owned for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_too_few_images_is_an_error() -> None:
    with pytest.raises(InputError, match="cannot give") as caught:
        partition(np.zeros(20, dtype=np.int64), 3, 0.5, 10, seed=0)
    assert caught.value.code == "E240"


def test_it_gives_up_after_the_last_redraw() -> None:
    """One class and a tiny α: one client owns nearly all, again and again."""
    with pytest.raises(InputError, match=f"after {MAX_REDRAWS} redraws") as caught:
        partition(np.zeros(100, dtype=np.int64), 5, 1e-3, 20, seed=0)
    assert caught.value.code == "E240"
