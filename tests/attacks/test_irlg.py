"""iRLG: exact where a class's gradient gives its embedding away, near elsewhere."""

from __future__ import annotations

import pytest
import torch
from hand_made import head, numbers, one_embedding, pulled, round_of
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_client import World, evidence_of, skewed_steps

from rlu_cli.attacks.irlg import irlg
from rlu_cli.types import Head, Recovery

UNSURE = [0.5, 0.3, 0.2]
EMBEDDING = numbers([1, 2])  # of every image


def _counts(found: Recovery) -> list[int]:
    assert found.counts is not None
    return found.counts.tolist()


def _origin(probabilities: list[float] | torch.Tensor) -> Head:
    """A head that thinks `probabilities` of EMBEDDING, by its weights alone: W e = log p."""
    logits = numbers(probabilities).log()
    return Head(torch.outer(logits, EMBEDDING) / 5, None)


def test_exact_where_all_images_have_one_embedding() -> None:
    """n = (2, 7, 1): G_b = p - n/10 = (.3, -.4, .1), and every ê_c = G_W[c]/G_b[c] = (1, 2).

    The system is then Σ_c k_c = 10 and 10 p_i - k_i = 10 G_b[i].
    """
    gradient = head([[0.3, 0.6], [-0.4, -0.8], [0.1, 0.2]], [0.3, -0.4, 0.1])
    found = irlg(round_of(gradient, batches=[10], origin=_origin(UNSURE)))
    assert torch.allclose(found.shares, numbers([0.2, 0.7, 0.1]))
    assert _counts(found) == [2, 7, 1]


def test_a_class_whose_bias_did_not_move_takes_the_others_embedding() -> None:
    """n = (2, 1, 1)/4 of p = (1/2, 1/3, 1/6): G_b = (0, 1/12, -1/12), and 0/0 for ê_0."""
    gradient = head([[0, 0], [1 / 12, 1 / 6], [-1 / 12, -1 / 6]], [0, 1 / 12, -1 / 12])
    found = irlg(round_of(gradient, batches=[4], origin=_origin([1 / 2, 1 / 3, 1 / 6])))
    assert _counts(found) == [2, 1, 1]


def test_the_layer_s_own_bias_joins_its_weights() -> None:
    """W = 0: the confidence is softmax(b), whatever the embeddings."""
    origin = head(torch.zeros(3, 2), numbers(UNSURE).log())
    gradient = head([[3, -1], [0, 5], [-2, 2]], [0.3, -0.4, 0.1])
    assert _counts(irlg(round_of(gradient, batches=[10], origin=origin))) == [2, 7, 1]


@given(
    counts=st.lists(st.integers(0, 60), min_size=2, max_size=7).filter(any),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_exact_for_any_counts_where_all_images_have_one_embedding(
    counts: list[int], data: st.DataObject
) -> None:
    classes = len(counts)
    weights = data.draw(st.lists(st.floats(0.05, 1), min_size=classes, max_size=classes))
    confident = numbers(weights) / sum(weights)
    gradient = one_embedding(pulled(counts, confident), EMBEDDING)
    found = irlg(round_of(gradient, batches=[sum(counts)], origin=_origin(confident)))
    assert _counts(found) == counts


def test_exact_where_classes_differ_and_no_image_is_taken_for_another_class() -> None:
    """Embeddings (1, 0) of class 0 and (0, 1) of class 1; class 2, absent, takes all the doubt.

    W = ln 3 on the diagonal, ln 1 for class 2 and -1000 elsewhere: p = (3/4, 0, 1/4) of class 0,
    (0, 3/4, 1/4) of class 1. n = (6, 2)/8: G_b = (-3/16, -1/16, 1/4), the rows of G_W being
    (-3/16, 0), (0, -1/16) and (3/16, 1/16): ê_0 and ê_1 come out right, and class 2, whose ê is a
    mixture of both, has no labels to weigh it with.
    """
    weight = numbers([[3.0, 1e-300], [1e-300, 3.0], [1.0, 1.0]]).log().clamp_min(-1000)
    gradient = head([[-3 / 16, 0], [0, -1 / 16], [3 / 16, 1 / 16]], [-3 / 16, -1 / 16, 1 / 4])
    found = irlg(round_of(gradient, batches=[8], origin=Head(weight, None)))
    assert _counts(found) == [6, 2, 0]


def test_what_rounding_leaves_goes_to_the_largest_remainder() -> None:
    """Shares (.24, .38, .38) of 10 are floored to (2, 3, 3), two short: .8 and .8 get them."""
    shares = numbers([0.24, 0.38, 0.38])
    bias = numbers(UNSURE) - shares
    found = irlg(round_of(one_embedding(bias, EMBEDDING), batches=[10], origin=_origin(UNSURE)))
    assert torch.allclose(found.shares, shares)
    assert _counts(found) == [2, 4, 4]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_within_a_label_of_an_untrained_client_whose_embeddings_vary(
    seed: int, biased: bool
) -> None:
    """An implied embedding mixes in those of other classes: near while no G_b is near zero."""
    per_step = skewed_steps(1, 64, seed=seed, present=4)
    world = World(seed=seed, apart=0.02, wide=0.02)
    evidence = evidence_of(per_step, world=world, biased=biased, images=10)
    found = irlg(evidence)
    assert evidence.gradient.bias is not None
    assert evidence.gradient.bias.abs().min() > 0.01
    assert found.counts is not None
    assert (found.counts - per_step[0]).abs().max() <= 1


def test_a_bias_gradient_near_zero_makes_an_embedding_of_nothing() -> None:
    """Class 5 has G_b = -.001, its even share: ê_5 is hundreds of times too long."""
    world = World(seed=3, apart=0.02, wide=0.02)
    per_step = skewed_steps(1, 64, seed=3, present=4)
    evidence = evidence_of(per_step, world=world, images=10)
    assert evidence.gradient.bias is not None
    assert evidence.gradient.bias[5].abs() < 0.002
    found = irlg(evidence)
    assert found.counts is not None
    assert int(found.counts.sum()) == 64
    assert 1 < (found.counts - per_step[0]).abs().max() < 10
