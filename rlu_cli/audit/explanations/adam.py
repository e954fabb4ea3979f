"""Adam that was not said: every element moves by about the learning rate in each step."""

from __future__ import annotations

import math
from statistics import pstdev

from rlu_cli.audit.explanations.clues import Clues
from rlu_cli.audit.explanations.explanation import Explanation

_BROKEN = 0.01  # relative sum over the classes of Adam's updates, at least
_LIMIT = 1.5  # largest element over η m
_FEWEST = 16  # elements of a tensor
_SPREAD = 0.25  # of the log of the largest element between tensors


def adam(clues: Clues) -> Explanation | None:
    """max |Δθ| of every tensor is nearly the same, η m at most; no sums over classes are zero.

    gain  D log(σ'² / σ²) of D tensors whose log largest element has the standard deviation σ, with
          σ' that of the tensors' gradients of plain SGD
    """
    if clues.case.training.optimizer != "sgd" or relative_sum(clues) < _BROKEN:
        return None
    largest = [
        math.log(float(value.abs().max()))
        for value in clues.update.values()
        if value.numel() >= _FEWEST and bool(value.any())
    ]
    if len(largest) < 3:
        return None
    spread = pstdev(largest)
    gain = len(largest) * 2 * math.log(_SPREAD / max(spread, 0.05))
    most = math.exp(max(largest))
    rate = most / clues.evidence.steps
    return Explanation(
        "adam",
        gain,
        "the largest step of every layer is nearly the same and the sums over the classes are not "
        f"zero, as with Adam at a learning rate of about {rate:.2g}",
        f"give --optimizer adam, and check --lr ({clues.evidence.lr:g})",
    )


def relative_sum(clues: Clues) -> float:
    """Σ_l |Σ_c ΔW_cl| / Σ |ΔW_cl|: 0 if every column of the update sums to zero."""
    weight = clues.evidence.learned.weight.double()
    return float(weight.sum(0).abs().sum() / weight.abs().sum())
