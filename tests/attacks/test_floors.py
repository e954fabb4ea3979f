"""The floors: guesses that look at no update."""

from __future__ import annotations

import torch
from hand_made import one_embedding, round_of, uniform
from linear_client import World, evidence_of

from rlu_cli.attacks import ATTACKS, UNIFORM
from rlu_cli.attacks.floors import prior
from rlu_cli.attacks.floors import uniform as uniform_guess
from rlu_cli.audit.scoring import uniform_floor


def test_the_uniform_guess_spreads_the_labels_and_the_rest_by_class_order() -> None:
    found = uniform_guess(round_of(one_embedding([-0.7, 0.1, 0.3, 0.3]), batches=[4, 6]))
    assert found.counts is not None
    assert found.counts.tolist() == [3, 3, 2, 2]
    assert found.shares.tolist() == [0.25] * 4
    assert found.status.ok


def test_the_uniform_guess_is_the_floor_that_scores_are_held_against() -> None:
    truth = torch.tensor([7, 2, 1])
    found = uniform_guess(round_of(one_embedding([-0.7, 0.3, 0.4]), batches=[10]))
    assert found.counts is not None
    assert int(torch.minimum(found.counts, truth).sum()) / 10 == uniform_floor(truth).iacc


def test_the_prior_follows_the_auxiliary_images() -> None:
    shown = uniform(3, labels=[0, 0, 0, 1])
    found = prior(round_of(one_embedding([0.5, 0.5, -1.0]), batches=[8], before=shown))
    assert found.counts is not None
    assert found.counts.tolist() == [6, 2, 0]
    assert found.shares.tolist() == [0.75, 0.25, 0.0]


def test_floors_do_not_look_at_the_update() -> None:
    world = World(classes=4)
    rounds = [
        evidence_of(torch.tensor([counts]), world=world, images=5)
        for counts in ([12, 0, 0, 0], [0, 4, 4, 4])
    ]
    for name in (UNIFORM, "prior"):
        one, other = (ATTACKS[name].attack(evidence) for evidence in rounds)
        assert torch.equal(one.shares, other.shares)
