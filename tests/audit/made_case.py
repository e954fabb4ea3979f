"""Cases and evidence written down number by number: a layer of three classes, two wide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlu_cli.audit.finding import CaseFinding, MethodFinding
from rlu_cli.case.build import Case
from rlu_cli.case.hypotheses import ModelHypothesis
from rlu_cli.case.round_history import RoundHistory
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.local_training.description import describe_local_training
from rlu_cli.schemes import step_weights
from rlu_cli.settings.layers import flag_layer, resolve
from rlu_cli.settings.specs import ATTACK
from rlu_cli.types import Auxiliary, Checkpoint, Evidence, Head, Outputs, Recovery, Setting, Status

NAMES = ("kitten", "puppy", "ostrich")
WEIGHT = [[0.2, -0.1], [-0.2, 0.1], [0.0, 0.0]]
BIAS = [0.2, -0.2, 0.0]
MOVED = Head(torch.tensor(WEIGHT), torch.tensor(BIAS))

Rows = Sequence[Sequence[float]]


def images(names: Sequence[str] = NAMES, source: str = "made up") -> Auxiliary:
    """One image a class; with the source "none", noise that stands for every class."""
    count = len(names)
    labels = torch.arange(count) if source != "none" else torch.full((count,), -1)
    return Auxiliary(torch.zeros(count, 3, 8, 8), labels, tuple(names), source, "")


def checkpoint(
    head: Head, *, narrow: str | None = None, counter: int | None = None, name: str = "c.pt"
) -> Checkpoint:
    state: dict[str, Tensor] = {"fc.weight": head.weight}
    if head.bias is not None:
        state["fc.bias"] = head.bias
    if counter is not None:
        state["bn.num_batches_tracked"] = torch.tensor(counter)
    return Checkpoint(Path(name), name, "in memory", state, narrow=narrow)


def case_of(
    start: Head | None = None,
    moved: Head = MOVED,
    *,
    narrow: str | None = None,
    counted: int | None = None,
    auxiliary: Auxiliary | None = None,
    truth: Sequence[int] | None = None,
    notes: tuple[str, ...] = (),
    velocity: Head | None = None,
    **flags: Any,
) -> Case:
    """A case whose client moved the output layer from `start` by `moved`.

    counted  steps that a BatchNorm counter shows; None for a model without one
    flags    settings; without any, one step of four images at a rate of 0.5
    """
    before = Head(torch.ones(3, 2), torch.ones(3)) if start is None else start
    given = {"lr": 0.5, "epochs": 1, "batch_size": 4, **flags}
    settings = resolve([flag_layer(given)], ATTACK)
    pair = CheckpointPair(
        checkpoint(before, narrow=narrow, counter=None if counted is None else 5, name="g.pt"),
        checkpoint(before + moved, narrow=narrow, counter=None if counted is None else 5 + counted),
        "fc",
    )
    return Case(
        pair=pair,
        layer="fc",
        settings=settings,
        training=describe_local_training({n: s.value for n, s in settings.items()}.get),
        history=RoundHistory(),
        velocity=velocity,
        hypotheses=(ModelHypothesis("lenet5", {}, "none"),),
        auxiliary=images() if auxiliary is None else auxiliary,
        truth=None if truth is None else torch.tensor(truth),
        truth_path=None,
        notes=notes,
    )


def outputs(logits: Rows, embeddings: Rows = ((1.0, -0.5),) * 3) -> Outputs:
    """What a model makes of one image of each class."""
    return Outputs(torch.tensor(embeddings), torch.tensor(logits), torch.arange(len(logits)))


UNSURE = outputs([[0.0, 0.0, 0.0]] * 3)
SURE = outputs([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])


def evidence_of(
    case: Case, *, before: Outputs = UNSURE, after: Outputs = UNSURE, update: Head = MOVED
) -> Evidence:
    """The evidence of a case, as if both models had made these of the images."""
    return Evidence(
        update=update,
        weights=step_weights(case.training.recursion),
        offset=None,
        batch_sizes=case.plan.batch_sizes,
        lr=0.5,
        before=before,
        after=after,
        origin=case.pair.heads[0],
        biased=case.pair.heads[0].bias is not None,
    )


def recovered(
    shares: Sequence[float],
    *,
    status: Status = Status.COMPUTED,
    covariance: Tensor | None = None,
    unconstrained: Sequence[float] | None = None,
    lr: tuple[float, float] | None = None,
    **figures: Any,
) -> Recovery:
    """An answer of these shares, without counts."""
    return Recovery(
        shares=torch.tensor(shares, dtype=torch.float64),
        counts=None,
        status=status,
        diagnostics=figures,
        unconstrained=None
        if unconstrained is None
        else torch.tensor(unconstrained, dtype=torch.float64),
        covariance=covariance,
        lr=lr,
    )


def independent(deviation: float, classes: int = 3) -> Tensor:
    """Covariance of errors of one size, as independent as shares that sum to 1 can be."""
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return deviation**2 * centred


def told_together(one: int, other: int, split: float, rest: float = 1e-3) -> Tensor:
    """Covariance of an error in how a sum splits between two of three classes."""
    direction = torch.zeros(3, dtype=torch.float64)
    direction[one], direction[other] = 1, -1
    return split**2 * torch.outer(direction, direction) + independent(rest)


def found(
    recovery: Recovery | None,
    method: str = "rlu",
    *,
    chosen: str | None = None,
    refused: str | None = None,
) -> MethodFinding:
    """What a method found, without score or warnings."""
    return MethodFinding(method, recovery, None, (), refused, chosen)


def finding_of(
    case: Case, *methods: MethodFinding, settings: dict[str, Setting] | None = None
) -> CaseFinding:
    """What came of a case, as if these methods had been run."""
    return CaseFinding(
        case=case,
        settings=case.settings if settings is None else settings,
        device=torch.device("cpu"),
        hypotheses=case.hypotheses,
        evidence_width=2,
        biased=True,
        diagnostics={},
        assumptions=(),
        warnings=(),
        methods=methods,
        floor=None,
    )
