"""One round told in other words: classes renamed, numbers narrowed, another scheme's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.types import Drift, Ensemble, Evidence, Head, Outputs


def relabelled(evidence: Evidence, order: Tensor) -> Evidence:
    """The same round with class order[i] called i; the kinds of dummy images stay."""
    position, virtual, dummies = torch.argsort(order), evidence.virtual, evidence.dummies
    ensemble = evidence.ensemble

    def outputs(seen: Outputs) -> Outputs:
        return Outputs(seen.embeddings, seen.logits[:, order], position[seen.labels])

    renamed = _told(replace(evidence, dummies=None), lambda tensor: tensor[order], outputs)
    return replace(
        renamed,
        dummies=dummies and (_columns(dummies[0], order), _columns(dummies[1], order)),
        virtual=None if virtual is None else virtual[order][:, order],
        # In what order their figures come is nobody's business.
        ensemble=ensemble and replace(ensemble, shares=ensemble.shares[:, order]),
    )


def in_float32(evidence: Evidence) -> Evidence:
    """The same round as checkpoints and models in float32 show it."""
    virtual = evidence.virtual
    narrow = _told(evidence, Tensor.float, _narrowed)
    return replace(narrow, virtual=None if virtual is None else virtual.float())


def through_another_scheme(evidence: Evidence, weights: Tensor, drift: Drift | None) -> Evidence:
    """The same mean gradient, made into an update by a scheme of other weights and drift."""
    rho, virtual = float(weights[-1].sum()), evidence.virtual
    factor, update = rho / float(evidence.weights[-1].sum()), evidence.gradient
    update = update * (-evidence.lr * rho)
    return replace(
        evidence,
        update=update if drift is None else update - drift[-1],
        weights=weights,
        drift=drift,
        virtual=None if virtual is None else virtual * factor,
        ensemble=evidence.ensemble and _moved(evidence.ensemble, factor, drift),
    )


def with_other_outputs(evidence: Evidence, *, seed: int, start: bool) -> Evidence:
    """The same update beside models that make something else of every image.

    start  at both ends of the round; else at its end alone
    """
    line = evidence.line
    assert line is not None
    first, *rest = (_random(seen, seed + index) for index, seen in enumerate(line.outputs))
    first = first if start else evidence.before
    return replace(
        evidence,
        before=first,
        after=_random(evidence.after, seed + len(rest)),
        line=replace(line, outputs=(first, *rest)),
    )


def _told(
    evidence: Evidence,
    change: Callable[[Tensor], Tensor],
    outputs: Callable[[Outputs], Outputs],
) -> Evidence:
    """Every Head through `change` and every Outputs through `outputs`."""

    def head(seen: Head) -> Head:
        return Head(change(seen.weight), None if seen.bias is None else change(seen.bias))

    drift, dummies, line = evidence.drift, evidence.dummies, evidence.line
    return replace(
        evidence,
        update=head(evidence.update),
        origin=head(evidence.origin),
        drift=drift and replace(drift, directions=tuple(map(head, drift.directions))),
        before=outputs(evidence.before),
        after=outputs(evidence.after),
        dummies=dummies and (outputs(dummies[0]), outputs(dummies[1])),
        line=line and replace(line, outputs=tuple(map(outputs, line.outputs))),
    )


def _moved(ensemble: Ensemble, factor: float, drift: Drift | None) -> Ensemble:
    """What all the clients hand in under a scheme of another weight and drift."""
    by = torch.zeros_like(ensemble.observed)
    if drift is not None:
        moved = drift[-1]
        assert moved.bias is not None
        by = torch.cat([moved.weight.sum(1), moved.bias])[: len(by)]
    return replace(
        ensemble, rows=factor * ensemble.rows - by, observed=factor * ensemble.observed - by
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
