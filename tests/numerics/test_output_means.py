"""Means over a model's outputs against the loops and the automatic gradients they stand for."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rlu_cli.numerics.output_means import (
    class_confidence,
    class_gradient_sums,
    class_means,
    embedding_sums,
    tilted,
)
from rlu_cli.types import Outputs

CLASSES, WIDTH = 4, 3
LABELS = (2, 0, 1, 3, 0, 0, 2, 1, 3, 3, 3)


def _outputs(*, seed: int = 0, dtype: torch.dtype = torch.float64) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(LABELS), WIDTH, generator=generator, dtype=torch.float64)
    logits = 2 * torch.randn(len(LABELS), CLASSES, generator=generator, dtype=torch.float64)
    return Outputs(embeddings.to(dtype), logits.to(dtype), torch.tensor(LABELS))


def _softmax(row: list[float]) -> list[float]:
    sizes = [math.exp(value) for value in row]
    return [size / sum(sizes) for size in sizes]


def _of_class(label: int) -> list[int]:
    return [index for index, other in enumerate(LABELS) if other == label]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_are_softmax_in_float64(dtype: torch.dtype) -> None:
    outputs = _outputs(dtype=dtype)
    found = outputs.probabilities
    assert found.dtype == torch.float64
    for row, logits in zip(found.tolist(), outputs.logits.tolist(), strict=True):
        assert row == pytest.approx(_softmax(logits))


def test_class_means_are_means_over_the_rows_of_each_class() -> None:
    values = _outputs().embeddings
    found = class_means(values, torch.tensor(LABELS), CLASSES)
    assert found.shape == (CLASSES, WIDTH)
    for label in range(CLASSES):
        rows = [values[index].tolist() for index in _of_class(label)]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        assert found[label].tolist() == pytest.approx(mean)


def test_a_class_without_images_has_a_row_of_zeros() -> None:
    found = class_means(torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 2]), 4)
    assert found.tolist() == [[1] * 3, [0] * 3, [1] * 3, [0] * 3]


def test_class_confidence_has_the_true_class_in_rows() -> None:
    outputs = _outputs()
    found = class_confidence(outputs)
    for label in range(CLASSES):
        rows = [_softmax(outputs.logits[index].tolist()) for index in _of_class(label)]
        for column in range(CLASSES):
            mean = sum(row[column] for row in rows) / len(rows)
            assert float(found[label, column]) == pytest.approx(mean)
    assert torch.allclose(found.sum(1), torch.ones(CLASSES, dtype=torch.float64))


def _twice(index: int) -> Outputs:
    """The same images with one of them there twice."""
    rows = [*range(len(LABELS)), index]
    some = _outputs()
    return Outputs(some.embeddings[rows], some.logits[rows], some.labels[rows])


@pytest.mark.parametrize("index", [0, 3, 7])
def test_an_image_of_weight_two_is_there_twice(index: int) -> None:
    some, twice = _outputs(), _twice(index)
    weights = torch.ones(len(LABELS), dtype=torch.float64)
    weights[index] = 2
    weights /= torch.zeros(CLASSES).double().index_add_(0, some.labels, weights)[some.labels]
    given = class_means(some.embeddings, some.labels, CLASSES, weights)
    assert torch.allclose(given, class_means(twice.embeddings, twice.labels, CLASSES))
    assert not torch.allclose(given, class_means(some.embeddings, some.labels, CLASSES))
    assert torch.allclose(class_confidence(some, weights), class_confidence(twice))


@pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0, 2.5])
def test_tilted_weights_are_powers_of_the_own_class_s_probability(exponent: float) -> None:
    outputs = _outputs()
    found = tilted(outputs, exponent)
    assert found.dtype == torch.float64
    for label in range(CLASSES):
        own = [_softmax(outputs.logits[index].tolist())[label] for index in _of_class(label)]
        powers = [p**exponent for p in own]
        expected = [power / sum(powers) for power in powers]
        assert found[_of_class(label)].tolist() == pytest.approx(expected)


def test_without_a_tilt_all_images_of_a_class_weigh_alike() -> None:
    outputs = _outputs()
    even = tilted(outputs, 0.0)
    expected = [1 / len(_of_class(label)) for label in LABELS]
    assert even.tolist() == pytest.approx(expected)
    assert torch.allclose(class_confidence(outputs, even), class_confidence(outputs))


def test_the_larger_the_tilt_the_surer_the_model_of_its_images() -> None:
    outputs = _outputs()
    sure = [class_confidence(outputs, tilted(outputs, b)).diagonal() for b in (0.0, 0.5, 2.0, 9.0)]
    assert all(bool((more > less).all()) for less, more in pairwise(sure))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 20.0])
def test_probabilities_of_nothing_give_finite_weights(exponent: float) -> None:
    outputs = _outputs()
    wrong = -500.0 * functional.one_hot(outputs.labels, CLASSES)
    found = tilted(Outputs(outputs.embeddings, wrong.double(), outputs.labels), exponent)
    sums = torch.zeros(CLASSES).double().index_add_(0, outputs.labels, found)
    assert torch.allclose(sums, torch.ones(CLASSES, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embedding_sums_are_one_an_image(dtype: torch.dtype) -> None:
    outputs = _outputs(dtype=dtype)
    found = embedding_sums(outputs)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([sum(row) for row in outputs.embeddings.tolist()])


def _row_sums_of_a_batch(outputs: Outputs, label: int) -> Tensor:
    """Σ_l of ∂/∂W of the mean cross-entropy over a batch of one class, by backward, (N,).

    The output layer is 0 on top of the logits seen, so that its gradient is that of the whole.
    """
    weight = torch.zeros(CLASSES, WIDTH, dtype=torch.float64, requires_grad=True)
    own = outputs.labels == label
    logits = outputs.logits[own] + outputs.embeddings[own] @ weight.T
    loss = functional.cross_entropy(logits, outputs.labels[own])
    (gradient,) = torch.autograd.grad(loss, weight)
    return gradient.sum(1)


@pytest.mark.parametrize("seed", range(3))
def test_class_gradient_sums_are_those_of_a_batch_of_one_class(seed: int) -> None:
    outputs = _outputs(seed=seed)
    found = class_gradient_sums(outputs)
    assert found.shape == (CLASSES, CLASSES)
    for label in range(CLASSES):
        assert torch.allclose(found[label], _row_sums_of_a_batch(outputs, label))
    assert torch.allclose(found.sum(1), torch.zeros(CLASSES, dtype=torch.float64), atol=1e-12)


def test_noise_that_stands_for_every_class_counts_once_for_each() -> None:
    """Its logits are repeated class by class, its embeddings kept once: as if repeated too."""
    some = _outputs()
    count = len(some.embeddings)
    kinds = torch.arange(CLASSES).repeat_interleave(count)
    noise = Outputs(some.embeddings, some.logits.repeat(CLASSES, 1), kinds)
    plain = Outputs(some.embeddings.repeat(CLASSES, 1), noise.logits, kinds)
    assert torch.equal(embedding_sums(noise), embedding_sums(plain))
    assert torch.allclose(class_gradient_sums(noise), class_gradient_sums(plain))
    own = class_confidence(noise)
    assert torch.allclose(own, own[0].expand(CLASSES, CLASSES))
