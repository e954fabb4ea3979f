"""Covariances within classes: how far few images are trusted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlu_cli.numerics.class_covariances import ClassCovariances, class_covariances


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def of_classes(each: int, classes: int = 4, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Values of classes that differ in mean, scale and correlation; labels in mixed order."""
    labels = torch.arange(classes).repeat(each)
    values = normal(len(labels), width, seed=seed)
    for label in range(classes):
        turned = values[labels == label] @ (normal(width, width, seed=50 + label) * (1 + label))
        values[labels == label] = turned + 3 * label
    return values, labels


def found_of(values: Tensor, labels: Tensor, importance: Tensor | None = None) -> ClassCovariances:
    even = 1 / torch.bincount(labels).double()[labels]
    return class_covariances(values, labels, even if importance is None else importance)


def own(found: ClassCovariances, label: int) -> Tensor:
    """W_n."""
    return found.mixed(torch.eye(len(found.means), dtype=torch.float64)[label])


@pytest.mark.parametrize("width", [6, 40])
def test_two_images_of_a_class_hardly_count_and_many_do(width: int) -> None:
    few = found_of(*of_classes(2, width=width))
    some = found_of(*of_classes(20, width=width))
    many = found_of(*of_classes(2000, width=width))
    assert float(few.shrinkage.min()) == 1
    assert float(many.shrinkage.max()) < 0.1
    assert float(few.shrinkage.mean()) > float(some.shrinkage.mean()) > float(many.shrinkage.mean())


def test_a_class_of_one_image_has_the_pooled_covariance() -> None:
    values, labels = of_classes(10)
    kept = (labels != 1) | (torch.arange(len(labels)) == 1)
    found = found_of(values[kept], labels[kept])
    assert float(found.shrinkage[1]) == 1
    torch.testing.assert_close(own(found, 1), found.pooled)
    assert bool(torch.isfinite(own(found, 0)).all())


def test_of_classes_that_are_alike_the_amounts_are_large() -> None:
    labels = torch.arange(5).repeat(10)
    found = found_of(normal(50, 30), labels)
    assert float(found.shrinkage.min()) > 0.5


@pytest.mark.parametrize("each", [2, 3, 10])
def test_the_covariances_are_unbiased(each: int) -> None:
    """Dividing by the number of images makes them (n - 1)/n of the truth."""
    labels = torch.arange(3).repeat_interleave(each)
    scales = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    sizes, pooled = [], []
    for seed in range(150):
        values = normal(len(labels), 8, seed=seed) * scales.repeat_interleave(each)[:, None]
        found = found_of(values, labels)
        alone = replace(found, shrinkage=torch.zeros(3, dtype=torch.float64))
        sizes.append(torch.stack([own(alone, label).trace() / 8 for label in range(3)]))
        pooled.append(found.pooled.trace() / 8)
    mean = torch.stack(sizes).mean(0)
    torch.testing.assert_close(mean, scales.square(), rtol=0.15, atol=0)
    assert float(torch.stack(pooled).mean()) == pytest.approx(14 / 3, rel=0.06)


@pytest.mark.parametrize("each", [3, 5, 20])
def test_the_amount_is_the_part_of_the_distance_that_is_noise(each: int) -> None:
    """On average over classes of one covariance, which is not the pooled one."""
    width, classes = 10, 200
    labels = torch.arange(classes).repeat_interleave(each)
    strong = torch.tensor([3.0] + [1.0] * (width - 1), dtype=torch.float64)
    odd = (labels % 2 == 1)[:, None]
    values = normal(len(labels), width) * torch.where(odd, strong, strong.flip(0))
    found = found_of(values, labels)
    truth = strong.square()
    spread = found.pooled.diagonal()
    standard = truth / spread
    noise = (standard.square().sum() + standard.sum() ** 2) / (each - 1)
    target = found.pooled / torch.outer(spread.sqrt(), spread.sqrt())
    distance = (torch.diag(standard) - target).square().sum()
    expected = float(noise / (noise + distance))
    assert float(found.shrinkage[1::2].mean()) == pytest.approx(expected, abs=0.12)


def test_many_images_give_the_covariance_of_their_class() -> None:
    values, labels = of_classes(3000)
    found = found_of(values, labels)
    for label in range(4):
        expected = values[labels == label].T.cov()
        error = (own(found, label) - expected).norm() / expected.norm()
        assert float(error) < 0.1, label


def test_mixed_is_the_sum_over_the_classes() -> None:
    """Σ_n a_n ((1 - ρ_n) S_n + ρ_n S), written out."""
    values, labels = of_classes(7)
    importance = torch.rand(len(labels), generator=torch.Generator().manual_seed(3)).double() + 0.2
    importance /= torch.zeros(4).double().index_add_(0, labels, importance)[labels]
    found = found_of(values, labels, importance)
    amounts = torch.tensor([0.5, 0.0, 1.5, 0.2], dtype=torch.float64)
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for label, amount in enumerate(amounts.tolist()):
        weights = importance[labels == label]
        rows = values[labels == label]
        mean = weights @ rows
        torch.testing.assert_close(found.means[label], mean)
        effective = 1 / float(weights.square().sum())
        assert float(found.effective[label]) == pytest.approx(effective)
        scatter = ((rows - mean) * weights[:, None]).T @ (rows - mean)
        unbiased = scatter * effective / (effective - 1)
        amount_shrunk = float(found.shrinkage[label])
        expected += amount * ((1 - amount_shrunk) * unbiased + amount_shrunk * found.pooled)
    torch.testing.assert_close(found.mixed(amounts), expected)


def test_the_pooled_covariance_can_be_inverted_with_fewer_images_than_rows() -> None:
    values, labels = of_classes(3, width=60)
    found = found_of(values, labels)
    assert float(torch.linalg.eigvalsh(found.pooled).min()) > 0
    centred = values - found.means[labels]
    unbiased = centred.square().mean(0) * 3 / 2
    torch.testing.assert_close(found.pooled.diagonal(), unbiased)


def test_rows_that_do_not_vary_have_no_covariance() -> None:
    values, labels = of_classes(10)
    values[:, 2] = 5.0
    found = found_of(values, labels)
    assert float(found.mixed(torch.ones(4, dtype=torch.float64))[2].abs().max()) < 1e-9
    assert bool(torch.isfinite(found.shrinkage).all())


def test_relabelled_classes_relabel_them() -> None:
    values, labels = of_classes(6)
    order = torch.tensor([2, 0, 3, 1])
    plain, turned = found_of(values, labels), found_of(values, order.argsort()[labels])
    torch.testing.assert_close(turned.shrinkage, plain.shrinkage[order])
    torch.testing.assert_close(turned.pooled, plain.pooled)
    for label in range(4):
        torch.testing.assert_close(own(turned, label), own(plain, int(order[label])))
