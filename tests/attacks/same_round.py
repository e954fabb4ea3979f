"""One round in other words: classes renamed, numbers narrowed, another scheme's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlu_cli.attacks.observations import (
    CLASS_UPDATES,
    DUMMIES,
    INTERPOLATION,
    VIRTUAL_POPULATION,
)
from rlu_cli.types import (
    Evidence,
    GradientFreeOffset,
    Head,
    Observation,
    Outputs,
    VirtualPopulation,
)

T = TypeVar("T")


def relabelled(evidence: Evidence, order: Tensor) -> Evidence:
    """The same round with class order[i] called i; the kinds of dummy images stay."""
    position = torch.argsort(order)

    def outputs(seen: Outputs) -> Outputs:
        return Outputs(seen.embeddings, seen.logits[:, order], position[seen.labels])

    plain = without_observed(evidence, DUMMIES)  # their labels are kinds, not classes
    renamed = _changed(plain, lambda tensor: tensor[order], outputs)
    if DUMMIES in evidence.observed:
        before, after = evidence[DUMMIES]
        renamed = renamed.with_observed(DUMMIES, (_columns(before, order), _columns(after, order)))
    renamed = changed_where_observed(renamed, CLASS_UPDATES, lambda rows: rows[order][:, order])
    # In what order the figures of a population come is nobody's business.
    return changed_where_observed(
        renamed,
        VIRTUAL_POPULATION,
        lambda population: replace(population, shares=population.shares[:, order]),
    )


def in_float32(evidence: Evidence) -> Evidence:
    """The same round as checkpoints and models in float32 show it."""
    narrow = _changed(evidence, Tensor.float, _narrowed)
    return changed_where_observed(narrow, CLASS_UPDATES, Tensor.float)


def through_another_scheme(
    evidence: Evidence, weights: Tensor, offset: GradientFreeOffset | None
) -> Evidence:
    """The same mean gradient, made into an update by a scheme of other weights and offset."""
    rho = float(weights[-1].sum())
    factor, update = rho / float(evidence.weights[-1].sum()), evidence.gradient
    update = update * (-evidence.lr * rho)
    other = replace(
        evidence,
        update=update if offset is None else update - offset[-1],
        weights=weights,
        offset=offset,
    )
    other = changed_where_observed(other, CLASS_UPDATES, lambda rows: rows * factor)
    return changed_where_observed(
        other, VIRTUAL_POPULATION, lambda population: _moved(population, factor, offset)
    )


def with_other_outputs(evidence: Evidence, *, seed: int, start: bool) -> Evidence:
    """The same update beside models that make something else of every image.

    start  at both ends of the round; else at its end alone
    """
    interpolation = evidence[INTERPOLATION]
    first, *rest = (_random(seen, seed + index) for index, seen in enumerate(interpolation.outputs))
    first = first if start else evidence.before
    other = replace(evidence, before=first, after=_random(evidence.after, seed + len(rest)))
    return other.with_observed(INTERPOLATION, replace(interpolation, outputs=(first, *rest)))


def without_observed(evidence: Evidence, *observations: Observation[Any]) -> Evidence:
    """The same round where some things were not observed."""
    kept = {key: value for key, value in evidence.observed.items() if key not in observations}
    return replace(evidence, observed=kept)


def changed_where_observed(
    evidence: Evidence, observation: Observation[T], change: Callable[[T], T]
) -> Evidence:
    """The round with one observation changed; the round itself where that was not observed."""
    if observation not in evidence.observed:
        return evidence
    return evidence.with_observed(observation, change(evidence[observation]))


def _changed(
    evidence: Evidence,
    change: Callable[[Tensor], Tensor],
    outputs: Callable[[Outputs], Outputs],
) -> Evidence:
    """Every Head through `change` and every Outputs through `outputs`."""

    def head(seen: Head) -> Head:
        return Head(change(seen.weight), None if seen.bias is None else change(seen.bias))

    offset = evidence.offset
    other = replace(
        evidence,
        update=head(evidence.update),
        origin=head(evidence.origin),
        offset=offset and replace(offset, directions=tuple(map(head, offset.directions))),
        before=outputs(evidence.before),
        after=outputs(evidence.after),
    )
    other = changed_where_observed(
        other, DUMMIES, lambda dummies: (outputs(dummies[0]), outputs(dummies[1]))
    )
    return changed_where_observed(
        other,
        INTERPOLATION,
        lambda interpolation: replace(
            interpolation, outputs=tuple(map(outputs, interpolation.outputs))
        ),
    )


def _moved(
    population: VirtualPopulation, factor: float, offset: GradientFreeOffset | None
) -> VirtualPopulation:
    """What all the clients hand in under a scheme of another weight and offset."""
    by = torch.zeros_like(population.observed)
    if offset is not None:
        moved = offset[-1]
        assert moved.bias is not None
        by = torch.cat([moved.weight.sum(1), moved.bias])[: len(by)]
    return replace(
        population, rows=factor * population.rows - by, observed=factor * population.observed - by
    )


def _columns(seen: Outputs, order: Tensor) -> Outputs:
    return replace(seen, logits=seen.logits[:, order])


def _narrowed(seen: Outputs) -> Outputs:
    return Outputs(seen.embeddings.float(), seen.logits.float(), seen.labels)


def _random(seen: Outputs, seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.rand(seen.embeddings.shape, generator=generator, dtype=torch.float64)
    logits = torch.randn(seen.logits.shape, generator=generator, dtype=torch.float64)
    return Outputs(embeddings, logits, seen.labels)
