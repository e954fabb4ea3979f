"""Covariances from halves: right along the directions in which a sample happens to vary little."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlu_cli.numerics.split_covariances import (
    SplitCovariances,
    _with_variances_of,
    split_covariances,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def case(each: int, classes: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Values of equal covariance, labels in mixed order, even importance."""
    labels = torch.arange(classes).repeat(each)
    values = normal(len(labels), width, seed=seed) @ turned(width) + labels[:, None]
    return values, labels, 1 / torch.bincount(labels).double()[labels]


def turned(width: int) -> Tensor:
    """A factor of the covariance: standard deviations 0.1 to 10, along no axis."""
    rotation = torch.linalg.qr(normal(width, width, seed=77))[0]
    return torch.diag(torch.logspace(-1, 1, width, dtype=torch.float64)) @ rotation


def split(values: Tensor, labels: Tensor, importance: Tensor) -> SplitCovariances:
    found = split_covariances(values, labels, importance, seed=0)
    assert found is not None
    return found


def test_its_axes_are_those_of_one_half_and_its_variances_those_of_the_other() -> None:
    first, second = (normal(200, 5, seed=seed) @ turned(5) for seed in (1, 2))
    one, other = (values.T @ values / 200 for values in (first, second))
    found = _with_variances_of(one, other)
    axes = torch.linalg.eigh(one).eigenvectors
    along = axes.T @ found @ axes
    torch.testing.assert_close(along.diagonal(), (second @ axes).square().mean(0))
    torch.testing.assert_close(along, torch.diag(along.diagonal()), atol=1e-9, rtol=0)
    assert float(found.trace()) == pytest.approx(float(other.trace()))


def test_of_many_images_it_is_the_covariance() -> None:
    values, labels, importance = case(2000, 3, 5)
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    expected = turned(5).T @ turned(5)
    torch.testing.assert_close(
        split(values, labels, importance).mixed(shares), expected, rtol=0.1, atol=1.5
    )


def test_it_is_symmetric_positive_and_linear_in_the_total_amount() -> None:
    values, labels, importance = case(16, 4, 30)
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    found = split(values, labels, importance)
    once, twice = found.mixed(shares), found.mixed(2 * shares)
    torch.testing.assert_close(once, once.T)
    torch.testing.assert_close(twice, 2 * once)
    assert float(torch.linalg.eigvalsh(once).min()) > 0


def test_too_few_images_of_one_class_are_not_split() -> None:
    values, labels, importance = case(16, 4, 5)
    kept = (labels != 2) | (torch.arange(len(labels)) >= 4)
    assert split_covariances(values, labels, importance, seed=0) is not None
    assert split_covariances(values[kept], labels[kept], importance[kept], seed=0) is None


def test_the_same_seed_splits_alike() -> None:
    arguments = case(16, 4, 8)
    shares = torch.full((4,), 0.25, dtype=torch.float64)
    one, again = (split_covariances(*arguments, seed=s) for s in (3, 3))
    other = split_covariances(*arguments, seed=4)
    assert one is not None
    assert again is not None
    assert other is not None
    assert torch.equal(one.mixed(shares), again.mixed(shares))
    assert not torch.equal(one.mixed(shares), other.mixed(shares))
