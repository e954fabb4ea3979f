"""How each observation that a method can request is computed: one function per key.

To add an observation, add its key to `attacks.observations`, and one function and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlu_cli.attacks.observations import (
    CLASS_UPDATES,
    DUMMIES,
    INTERPOLATION,
    REEVALUATION,
    TILT,
    VIRTUAL_POPULATION,
    VIRTUAL_TRIALS,
)
from rlu_cli.attacks.rlu import RLU
from rlu_cli.case.auxiliary import dummy_auxiliary
from rlu_cli.case.build import Case
from rlu_cli.evidence.forward import ForwardConfig, evaluate_pair, with_bias
from rlu_cli.evidence.generalization_gap import generalization_gap
from rlu_cli.evidence.interpolation import (
    evaluate_along_interpolation,
    reevaluate_with_aux_statistics,
)
from rlu_cli.evidence.virtual_client import class_updates
from rlu_cli.evidence.virtual_population import compare
from rlu_cli.evidence.virtual_trials import trials
from rlu_cli.types import (
    Evidence,
    Interpolation,
    Observation,
    Outputs,
    ProgressCallback,
    VirtualPopulation,
    VirtualTrial,
)

VIRTUAL_CLIENTS = 64  # of a virtual population, by default
FEWEST_TRIALS, MOST_TRIALS = 3, 8  # virtual trials
# Cost of a virtual trial, in forward passes: of an image trained on, and of an auxiliary image, as
# half of these are evaluated at five points. `standard` may cost ten times the two passes.
_OF_TRAINING, _OF_OBSERVING, _TIMES = 3.0, 2.5, 10.0
_PER_CLASS = 3  # virtual clients per class: fewer do not determine the emulator's slope


@dataclass(frozen=True)
class Scene:
    """The inputs of an observation.

    case      the pair of checkpoints, the images, the settings
    model     the selected architecture
    config    forward config of the model
    evidence  evidence shared by all methods, without observations
    progress  progress callback
    """

    case: Case
    model: nn.Module
    config: ForwardConfig
    evidence: Evidence
    progress: ProgressCallback


def _dummies(scene: Scene) -> tuple[Outputs, Outputs]:
    case = scene.case
    images = dummy_auxiliary(case.auxiliary, case.value("seed"))
    return evaluate_pair(scene.model, case.pair, images, scene.config)


def _interpolation(scene: Scene) -> Interpolation:
    case, evidence = scene.case, scene.evidence
    return evaluate_along_interpolation(
        scene.model,
        case.pair,
        case.auxiliary,
        scene.config,
        steps=evidence.steps,
        ends=(evidence.before, evidence.after),
    )


def _reevaluation(scene: Scene) -> Callable[[Tensor], Interpolation | None]:
    case, steps = scene.case, scene.evidence.steps
    images = (case.pair, case.auxiliary, scene.config)
    return partial(reevaluate_with_aux_statistics, scene.model, *images, steps=steps)


def _tilt(scene: Scene) -> float | None:
    case = scene.case
    gap = generalization_gap(
        scene.model,
        case.pair.before,
        case.auxiliary,
        scene.config,
        accuracy=case.value("train_accuracy"),
        loss=case.value("train_loss"),
    )
    return None if gap is None else gap.exponent


def _class_updates(scene: Scene) -> Tensor:
    case, evidence = scene.case, scene.evidence
    trained = class_updates(
        scene.model,
        case.pair.before,
        case.auxiliary,
        case.training,
        scene.config,
        progress=scene.progress,
    )
    if not evidence.biased:  # derive the bias update from the weights, as for the client
        trained = [replace(head, bias=None) for head in trained]
    rows = [with_bias(head, evidence.before, evidence.after).bias for head in trained]
    return torch.stack([row for row in rows if row is not None])


def _virtual_population(scene: Scene) -> VirtualPopulation:
    case = scene.case
    fewest = max(VIRTUAL_CLIENTS, _PER_CLASS * scene.evidence.classes)
    return compare(
        scene.model,
        case.pair,
        case.auxiliary,
        case.training,
        scene.config,
        max(case.value("virtual_clients") or 0, fewest),
        progress=scene.progress,
    )


def _virtual_trials(scene: Scene) -> tuple[VirtualTrial, ...]:
    """Virtual clients as many as `--effort` allows; none if the images do not suffice."""
    case, count = scene.case, affordable_trials(scene)
    if count < FEWEST_TRIALS or case.remembers or not case.training.lr_known:
        return ()
    near = RLU()(scene.evidence).shares
    images = scene.model, case, scene.config
    return trials(*images, near, count, progress=scene.progress)


def affordable_trials(scene: Scene) -> int:
    """Virtual trials whose cost is ten times that of the two passes over the auxiliary images."""
    case, images = scene.case, len(scene.case.auxiliary.images)
    effort = case.value("effort")
    if effort == "thorough":
        return MOST_TRIALS
    if effort != "standard":
        return 0
    trained = case.plan.total or case.plan.steps * scene.config.batch
    each = _OF_TRAINING * trained + _OF_OBSERVING * images
    return min(MOST_TRIALS, int(_TIMES * 2 * images / each))


OBSERVATIONS: dict[Observation[Any], Callable[[Scene], Any]] = {
    DUMMIES: _dummies,
    INTERPOLATION: _interpolation,
    REEVALUATION: _reevaluation,
    TILT: _tilt,
    CLASS_UPDATES: _class_updates,
    VIRTUAL_POPULATION: _virtual_population,
    VIRTUAL_TRIALS: _virtual_trials,
}


def observe(scene: Scene, needs: Collection[Observation[Any]]) -> Evidence:
    """The evidence with the observations in `needs` added, in the order of `OBSERVATIONS`."""
    evidence = scene.evidence
    for need, function in OBSERVATIONS.items():
        if need in needs:
            evidence = evidence.with_observed(need, function(scene))
    return evidence
