"""Rounds written down number by number: a mean gradient, and what the model makes of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from linear_client import plain_weights
from torch import Tensor

from rlu_cli.attacks.observations import CLASS_UPDATES, DUMMIES
from rlu_cli.types import Evidence, Head, Observation, Outputs

Numbers = Sequence[float] | Tensor
Rows = Sequence[Sequence[float]] | Tensor
LR = 0.5


def numbers(values: Numbers | Rows) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def seen(
    probabilities: Numbers | Rows,
    *,
    embeddings: Rows = ((1.0, 1.0),),
    labels: Sequence[int] | None = None,
) -> Outputs:
    """Outputs of images of which the model thinks `probabilities`.

    One row of probabilities or embeddings is that of every image; without labels there is one image
    of each class.
    """
    confident = numbers(probabilities)
    classes = confident.shape[-1]
    kinds = torch.arange(classes) if labels is None else torch.tensor(labels)
    return Outputs(
        embeddings=numbers(embeddings).expand(len(kinds), -1),
        logits=confident.log().expand(len(kinds), classes),
        labels=kinds,
    )


def uniform(
    classes: int, *, embeddings: Rows = ((1.0, 1.0),), labels: Sequence[int] | None = None
) -> Outputs:
    return seen([1 / classes] * classes, embeddings=embeddings, labels=labels)


def round_of(
    gradient: Head,
    *,
    batches: Sequence[int] | None,
    before: Outputs | None = None,
    after: Outputs | None = None,
    steps: int = 1,
    origin: Head | None = None,
    dummies: tuple[Outputs, Outputs] | None = None,
    class_updates: Rows | None = None,
) -> Evidence:
    """Evidence of plain SGD steps whose mean gradient is given.

    batches  |B| of each step; None where it is not known, of `steps` steps
    before   as if the model told no class from another when left out, `after` as `before`
    """
    classes = len(gradient.weight)
    steps = steps if batches is None else len(batches)
    start = uniform(classes) if before is None else before
    observed: dict[Observation[Any], Any] = {}
    if dummies is not None:
        observed[DUMMIES] = dummies
    if class_updates is not None:
        observed[CLASS_UPDATES] = numbers(class_updates)
    return Evidence(
        update=gradient * (-LR * steps),
        weights=plain_weights(steps),
        offset=None,
        batch_sizes=None if batches is None else tuple(batches),
        lr=LR,
        before=start,
        after=start if after is None else after,
        origin=Head(torch.zeros_like(gradient.weight), None) if origin is None else origin,
        observed=observed,
    )


def head(weight: Rows, bias: Numbers) -> Head:
    return Head(numbers(weight), numbers(bias))


def one_embedding(bias: Numbers, embedding: Numbers = (1.0, 1.0)) -> Head:
    """The mean gradient where every input of the layer is `embedding`: G_W = G_b eᵀ."""
    return Head(torch.outer(numbers(bias), numbers(embedding)), numbers(bias))


def pulled(counts: Sequence[int], probabilities: Numbers) -> Tensor:
    """G_b = p - n/K of a model that thinks p of every image."""
    labels = numbers([float(count) for count in counts])
    return numbers(probabilities) - labels / labels.sum()
