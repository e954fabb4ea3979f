"""What a method may ask to have observed besides the plain evidence: the keys, and their types.

`evidence.observations` has the function behind each key.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rlu_cli.types import Interpolation, Observation, Outputs, VirtualPopulation

# Both models' outputs on images without content; their labels tell the kind: 0 black, 1 white,
# 2 random.
DUMMIES: Observation[tuple[Outputs, Outputs]] = Observation(
    "dummies", "outputs on black, white and random images"
)
INTERPOLATION: Observation[Interpolation] = Observation(
    "interpolation", "outputs at points between the two checkpoints"
)
# Label shares (N,) → the interpolation under batch statistics of the auxiliary images, weighted to
# these shares; None where the model cannot be run so.
REEVALUATION: Observation[Callable[[Tensor], Interpolation | None]] = Observation(
    "reevaluation", "the interpolation under the auxiliary images' own batch statistics"
)
# β such that auxiliary images weighted by p_y^β look as well learned as the global model's training
# images; None where neither --train-accuracy nor --train-loss is given.
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
