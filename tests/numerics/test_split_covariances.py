"""Covariances from halves: right along the directions in which a sample happens to vary little."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlu_cli.numerics.class_covariances import class_covariances
from rlu_cli.numerics.split_covariances import SplitCovariances, split_covariances


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


def test_in_the_directions_where_it_is_smallest_it_is_not_too_small() -> None:
    """χ² per degree of freedom of new values, along the directions trusted the most."""
    width, classes = 60, 4
    values, labels, importance = case(20, classes, width)
    shares = torch.full((classes,), 1 / classes, dtype=torch.float64)
    fresh = normal(4000, width, seed=9) @ turned(width)
    chi = {}
    for name, found in (
        ("whole", class_covariances(values, labels, importance)),
        ("split", split(values, labels, importance)),
    ):
        sizes, vectors = torch.linalg.eigh(found.mixed(shares))
        along = (fresh @ vectors[:, : width // 3]).square().mean(0) / sizes[: width // 3]
        chi[name] = float(along.mean())
    assert chi["whole"] > 1.3
    assert chi["split"] == pytest.approx(1, abs=0.2)


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
