"""Adam that was not said: every element moves by about the learning rate in each step."""

from __future__ import annotations

import torch

from rlu_cli.audit.explanations.clues import Clues
from rlu_cli.audit.explanations.explanation import PROOF, Explanation

_BROKEN = 0.05  # relative sum over the classes of Adam's updates, at least; about 0.5 was seen
_ALIKE = 0.5  # lower quartile over the tensors of their largest element, over the largest of all
_STEPS = (0.2, 1.3)  # that over η m, where the given rate is Adam's
_FEWEST = 16  # elements of a tensor


def adam(clues: Clues) -> Explanation | None:
    """max |Δθ| is nearly the same in most tensors, about η m; sums over classes are not zero.

    Adam divides each gradient by its running size, so that every element of every tensor moves by
    about η in the first step and by no more in the others. Noise is as even, but not of that size.

    gain  the proof: plain SGD leaves the sums at zero, and its largest elements differ by decades
    """
    if clues.case.training.optimizer != "sgd" or relative_sum(clues) < _BROKEN:
        return None
    if clues.turned:
        return None
    largest = torch.tensor(
        [float(value.abs().max()) for value in clues.update.values() if value.numel() >= _FEWEST]
    )
    if len(largest) < 2 or float(largest.quantile(0.25)) < _ALIKE * float(largest.max()):
        return None
    rate = float(largest.max()) / clues.evidence.steps
    if not _STEPS[0] < rate / clues.evidence.lr < _STEPS[1]:
        return None
    return Explanation(
        "adam",
        PROOF,
        "the largest change of an element is nearly the same in all layers and the sums over the "
        f"classes are not zero, as with Adam at a learning rate of at least {rate:.2g}",
        "give --optimizer adam",
    )


def relative_sum(clues: Clues) -> float:
    """Σ_l |Σ_c ΔW_cl| / Σ |ΔW_cl|: 0 if every column of the update sums to zero."""
    weight = clues.evidence.learned.weight.double()
    return float(weight.sum(0).abs().sum() / weight.abs().sum())
