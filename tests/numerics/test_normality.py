"""Normality figures: scipy's on any sample, and near nothing on a normal one."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from rlu_cli.numerics.normality import describe_normality

SAMPLES = {
    "normal": lambda g: torch.randn(400, generator=g) * 3 - 7,
    "one-sided": lambda g: -torch.rand(301, generator=g).log(),
    "two heaps": lambda g: torch.randn(200, generator=g) + 8 * torch.arange(200).remainder(2),
    "few": lambda g: torch.randn(2, generator=g),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_figures_are_scipys(kind: str) -> None:
    sample = SAMPLES[kind](torch.Generator().manual_seed(5)).double()
    found, values = describe_normality(sample), sample.numpy()
    assert found.mean == pytest.approx(values.mean())
    assert found.sd == pytest.approx(values.std())
    assert found.skewness == pytest.approx(stats.skew(values), abs=1e-9)
    assert found.kurtosis == pytest.approx(stats.kurtosis(values), abs=1e-9)
    fitted = stats.norm(values.mean(), values.std())
    expected = stats.kstest(values, fitted.cdf).statistic
    assert found.distance == pytest.approx(expected)


def test_what_is_not_normal_is_farther_than_chance() -> None:
    generator = torch.Generator().manual_seed(1)
    normal, skewed = (SAMPLES[kind](generator) for kind in ("normal", "one-sided"))
    assert describe_normality(normal).distance < 0.89 / math.sqrt(len(normal))
    assert describe_normality(skewed).distance > 0.89 / math.sqrt(len(skewed))


@pytest.mark.parametrize("count", [1, 50])
def test_equal_values_give_finite_figures(count: int) -> None:
    found = describe_normality(torch.full((count,), 2.5))
    assert (found.mean, found.skewness, found.distance) == (2.5, 0.0, 0.5)
    assert found.sd > 0


def test_scale_and_place_change_nothing_but_mean_and_spread() -> None:
    sample = SAMPLES["one-sided"](torch.Generator().manual_seed(2)).double()
    plain, moved = describe_normality(sample), describe_normality(4 * sample - 9)
    assert moved.mean == pytest.approx(4 * plain.mean - 9)
    assert moved.sd == pytest.approx(4 * plain.sd)
    for name in ("skewness", "kurtosis", "distance"):
        assert getattr(moved, name) == pytest.approx(getattr(plain, name))
