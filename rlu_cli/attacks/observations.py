"""Observations that a method can request besides the plain evidence: keys and types.

`evidence.observations` computes each of them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rlu_cli.types import (
    Interpolation,
    Observation,
    Outputs,
    VirtualPopulation,
    VirtualTrial,
)

# Outputs of both models on images without content; labels: 0 black, 1 white, 2 random.
DUMMIES: Observation[tuple[Outputs, Outputs]] = Observation(
    "dummies", "outputs on black, white and random images"
)
INTERPOLATION: Observation[Interpolation] = Observation(
    "interpolation", "outputs at points between the two checkpoints"
)
# Label shares (N,) → the interpolation under batch statistics of the auxiliary images, weighted to
# these shares; None if the model cannot be evaluated this way.
REEVALUATION: Observation[Callable[[Tensor], Interpolation | None]] = Observation(
    "reevaluation", "the interpolation under the auxiliary images' own batch statistics"
)
# β such that the global model fits auxiliary images weighted by p_y^β as well as its training
# images; None if neither --train-accuracy nor --train-loss is given.
TILT: Observation[float | None] = Observation(
    "generalization gap", "how much better the model fits its training images"
)
# (N, N): row c is Δb + h of a virtual client that holds class c alone.
CLASS_UPDATES: Observation[Tensor] = Observation(
    "class updates", "updates of virtual clients of a single class", trains=True
)
VIRTUAL_POPULATION: Observation[VirtualPopulation] = Observation(
    "virtual population", "updates of virtual clients with mixed, known labels", trains=True
)
# Virtual clients with known labels, each as evidence of its own from images it was not trained on.
# None if --effort allows too few.
VIRTUAL_TRIALS: Observation[tuple[VirtualTrial, ...]] = Observation(
    "virtual trials", "virtual clients on which methods are compared, if --effort allows"
)
