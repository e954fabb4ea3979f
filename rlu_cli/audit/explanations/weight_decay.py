"""Weight decay that was not said, from the sums over the classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlu_cli.audit.explanations.clues import Clues
from rlu_cli.audit.explanations.explanation import Explanation
from rlu_cli.types import Head

_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, None: 2.0**-24}
_ABOVE_ROUNDING = 4.0  # times the rounding of the files that a sum must have
_FEWEST = 8  # sums


def weight_decay(clues: Clues) -> Explanation | None:
    """Σ_c Δθ_c = -κ Σ_c θ_c for every column of the output layer, with one κ = η w Σρ.

    The gradients of softmax cross-entropy sum to zero over the classes, so only decay moves the
    sums, and in proportion to themselves.

    gain  D log(‖y‖² / ‖y - κ x‖²) - log D of the D sums y of the update on those x of the weights
    """
    evidence = clues.evidence
    observed, origin = column_sums(evidence.learned), -column_sums(evidence.origin)
    if len(observed) < _FEWEST or float(observed.norm()) < rounding_of_sums(clues):
        return None
    kappa = float(observed @ origin / (origin @ origin))
    left = (observed - kappa * origin).square().sum().clamp_min(1e-300)
    gain = len(observed) * math.log(float(observed.square().sum() / left)) - math.log(len(observed))
    if not 0 < kappa < 1:
        return None
    recursion = clues.case.training.recursion
    decay = -math.log1p(-kappa) / (evidence.lr * float(evidence.weights[-1].sum()))
    more = "more " if recursion.decay else ""
    return Explanation(
        "weight decay",
        gain,
        f"the sums of the update over the classes are those of {more}weight decay, about "
        f"{decay:.2g}",
        f"give --weight-decay {recursion.decay + decay:.2g}",
    )


def column_sums(head: Head) -> Tensor:
    """Sums over the classes of every column of the weights, and of the bias: (L + 1,) float64."""
    columns = head.weight.double().cpu().sum(0)
    if head.bias is None:
        return columns
    return torch.cat([columns, head.bias.double().cpu().sum()[None]])


def rounding_of_sums(clues: Clues) -> float:
    """Length of the sums of the update that the rounding of the files alone may cause."""
    narrow = next((c.narrow for c in clues.pair if c.narrow), None)
    first, second = (head.weight.double() for head in clues.pair.heads)
    return (
        _ABOVE_ROUNDING * _ROUNDING[narrow] * float((first.square() + second.square()).sum().sqrt())
    )
