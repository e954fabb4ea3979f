"""Where lost labels went."""

from __future__ import annotations

import pytest
import torch

from rlu_cli.experiments.split import split_error


def test_nothing_is_lost_by_the_truth() -> None:
    labels = [[3, 1], [1, 3]]
    split = split_error(torch.tensor([0.5, 0.5]), torch.tensor([4, 4]), torch.ones(2), labels)
    assert (split.error, split.weights, split.rounding) == (0, 0, 0)


def test_weights_of_the_steps_alone() -> None:
    """The first step's labels count three times as much: 3/4 · 1 against 1/2."""
    split = split_error(
        torch.tensor([0.75, 0.25]), torch.tensor([6, 2]), torch.tensor([3.0, 1.0]), [[4, 0], [0, 4]]
    )
    assert split.error == pytest.approx(0)
    assert split.weights == pytest.approx(0.25)
    assert split.rounding == pytest.approx(0)


def test_the_parts_bound_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        per_step = torch.randint(1, 9, (3, 5), generator=generator)
        shares = torch.rand(5, generator=generator)
        counts = torch.randint(0, 9, (5,), generator=generator) + 1
        rho = torch.rand(3, generator=generator) + 0.1
        split = split_error(shares / shares.sum(), counts, rho, per_step.tolist())
        found, true = counts / counts.sum(), per_step.sum(0) / per_step.sum()
        lost = float((found - true).abs().sum()) / 2
        assert lost <= split.error + split.weights + split.rounding + 1e-6
