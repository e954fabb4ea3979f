"""What unequal step weights cost, against rounds drawn at random."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlu_cli.numerics.weighting import expected_loss

SHARES = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0], dtype=torch.float64)


def _iacc_lost(weights: Tensor, sizes: list[int], labels: Tensor) -> float:
    """1 - iAcc of the weighted shares of one round whose labels, in order, are `labels`."""
    steps = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    each = (weights / weights.sum() / torch.tensor(sizes))[steps]
    hot = torch.nn.functional.one_hot(labels, len(SHARES)).double()
    return float((each @ hot - hot.mean(0)).abs().sum()) / 2


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize(
    ("weights", "sizes"),
    [([1.0, 1.0], [64, 8]), ([0.3, 0.6, 0.9], [64, 64, 64]), ([1.0, 2.0, 4.0], [64, 64, 20])],
)
def test_it_is_the_mean_over_random_rounds(
    weights: list[float], sizes: list[int], passes: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    rho, all_sizes = torch.tensor(weights * passes, dtype=torch.float64), sizes * passes
    if passes > 1:  # later passes count more, too
        rho = rho * torch.arange(1, passes + 1).repeat_interleave(len(weights))
    samples = round(sum(sizes))
    lost = []
    for _ in range(1500):
        if passes == 1:
            labels = torch.multinomial(SHARES, samples, True, generator=generator)
        else:
            held = torch.repeat_interleave(torch.arange(5), (SHARES * samples).round().long())
            held = torch.cat([held, held.new_zeros(samples)])[:samples]
            labels = torch.cat(
                [held[torch.randperm(samples, generator=generator)] for _ in range(passes)]
            )
        lost.append(_iacc_lost(rho, all_sizes, labels))
    expected = expected_loss(rho, all_sizes, SHARES, passes)
    assert expected == pytest.approx(sum(lost) / len(lost), rel=0.1)
    assert expected > 0.01


@pytest.mark.parametrize("passes", [1, 2])
def test_equal_weights_of_equal_batches_cost_nothing(passes: int) -> None:
    weights = torch.full((4,), 0.1, dtype=torch.float64)
    assert expected_loss(weights, [32] * 4, SHARES, passes) == pytest.approx(0, abs=1e-9)
    sizes = [32, 16, 8, 8]
    fair = torch.tensor(sizes, dtype=torch.float64)
    assert expected_loss(fair, sizes, SHARES) == pytest.approx(0, abs=1e-9)


def test_one_class_alone_cannot_be_misread() -> None:
    alone = torch.tensor([0.0, 1.0, 0.0])
    assert expected_loss(torch.tensor([1.0, 9.0]), [64, 1], alone) == 0
