"""One client's round: its batches, its truth, and that both belong to the weights it hands in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlu_cli.errors import InputError
from rlu_cli.local_training.batch_order import draw_batches
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.simulator.client import LocalRound, copy_state, seeded, train_client
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.simulator.plan import Plan

CLASSES = 10


def _lenet_like(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    with seeded((seed,), torch.device("cpu")):
        return nn.Sequential(
            nn.Conv2d(3, 4, 5, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 7 * 7, 16),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(16, CLASSES),
        )


def _train(
    model: nn.Module, *, steps: int = 5, lr: float = 0.05, seed: tuple[int, ...] = (0, 0, 3)
) -> LocalRound:
    images, labels = draw_digits(6, seed=1)
    own = labels < 7  # three classes are absent
    return train_client(
        model,
        images[own],
        labels[own],
        Plan(epochs=steps, batch_size=8, lr=lr),
        classes=CLASSES,
        normalise=PRESETS["half"],
        seed=seed,
    )


def test_the_update_and_the_truth_satisfy_the_bias_identity() -> None:
    """K Δb / (η m) + Σ p = counts, with p from the very forward passes; and Σ_j Δb_j = 0."""
    model, steps, batch_size, lr = _lenet_like(), 5, 8, 0.05
    before = copy_state(model)
    seen: list[Tensor] = []
    model.register_forward_hook(lambda _m, _i, logits: seen.append(logits.detach().softmax(1)))
    result = _train(model, steps=steps, lr=lr)
    delta = (result.state["7.bias"] - before["7.bias"]).double()
    probability = torch.cat(seen).double().sum(0)
    total = steps * batch_size
    counts = torch.from_numpy(result.per_step.sum(0)).double()
    assert torch.allclose(total * delta / (lr * steps) + probability, counts, atol=1e-3)
    assert abs(float(delta.sum())) < 1e-6
    assert int(counts.sum()) == total
    assert counts[7:].sum() == 0


def test_every_step_takes_one_full_batch() -> None:
    result = _train(_lenet_like(), steps=9)
    assert result.per_step.shape == (9, CLASSES)
    assert result.per_step.sum(axis=1).tolist() == [8] * 9


@pytest.mark.parametrize("count", [8, 11, 40])
def test_a_client_goes_through_all_its_images_before_any_comes_again(count: int) -> None:
    steps = Plan(epochs=12, batch_size=8).steps
    order = np.concatenate(draw_batches(count, steps, np.random.default_rng(0)))
    assert len(order) == 96
    for start in range(0, len(order) - count + 1, count):
        assert sorted(order[start : start + count]) == list(range(count))
    used = np.bincount(order, minlength=count)
    assert used.max() - used.min() <= 1


def test_the_shuffle_changes_from_pass_to_pass() -> None:
    order = draw_batches(20, Plan(epochs=2, batch_size=20).steps, np.random.default_rng(0))
    assert order[0].tolist() != order[1].tolist()


def test_the_seed_alone_fixes_the_round_dropout_included() -> None:
    torch.manual_seed(1)
    first = _train(_lenet_like(dropout=0.5))
    torch.manual_seed(2)
    again = _train(_lenet_like(dropout=0.5))
    other = _train(_lenet_like(dropout=0.5), seed=(0, 0, 4))
    assert all(torch.equal(first.state[name], again.state[name]) for name in first.state)
    assert np.array_equal(first.per_step, again.per_step)
    assert not torch.equal(first.state["7.bias"], other.state["7.bias"])


def test_training_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    _train(_lenet_like(dropout=0.5), steps=1)
    assert torch.equal(torch.rand(4), expected)


def test_frozen_and_unused_parameters_stay() -> None:
    model = _lenet_like()
    next(model.parameters()).requires_grad_(False)
    model.register_parameter("idle", nn.Parameter(torch.ones(2)))
    before = copy_state(model)
    after = _train(model).state
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert torch.equal(before["idle"], after["idle"])
    assert not torch.equal(before["7.weight"], after["7.weight"])


def test_a_diverging_client_is_an_error() -> None:
    with pytest.raises(InputError, match="not finite") as caught:
        _train(_lenet_like(), lr=1e30)
    assert caught.value.code == "E207"
