"""Explanations of what does not fit: one file for each kind of mistake.

Each scores one hypothesis against the evidence. To add one, add a file and a line in
`EXPLANATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rlu_cli.audit.explanations.adam import adam
from rlu_cli.audit.explanations.class_order import class_order
from rlu_cli.audit.explanations.clues import Clues
from rlu_cli.audit.explanations.delta import delta
from rlu_cli.audit.explanations.explanation import MARGIN, PROOF, Explanation
from rlu_cli.audit.explanations.frozen import frozen_body
from rlu_cli.audit.explanations.image_kind import image_kind
from rlu_cli.audit.explanations.inputs import image_size, input_scaling
from rlu_cli.audit.explanations.label_smoothing import label_smoothing
from rlu_cli.audit.explanations.other_global import other_global
from rlu_cli.audit.explanations.scale import scale
from rlu_cli.audit.explanations.swapped import swapped
from rlu_cli.audit.explanations.weight_decay import weight_decay
from rlu_cli.case.build import Case
from rlu_cli.errors import RluError
from rlu_cli.evidence.forward import ForwardConfig
from rlu_cli.types import Evidence, ProgressCallback

__all__ = ["EXPLANATIONS", "Clues", "Explanation", "explain", "explanations"]

# The cheap and certain ones first; those that train a virtual client last.
EXPLANATIONS: dict[str, Callable[[Clues], Explanation | None]] = {
    "delta": delta,
    "frozen body": frozen_body,
    "weight decay": weight_decay,
    "adam": adam,
    "class order": class_order,
    "input scaling": input_scaling,
    "image size": image_size,
    "other images": image_kind,
    "swapped": swapped,
    "other global": other_global,
    "scale": scale,
    "label smoothing": label_smoothing,
}


def explanations(clues: Clues) -> list[Explanation]:
    """All explanations that could be scored, best first."""
    found: list[Explanation] = []
    for score in EXPLANATIONS.values():
        one = _scored(score, clues)
        if one is not None:
            found.append(one)
        if one is not None and one.gain >= PROOF:
            break  # there is no need to train virtual clients
    return sorted(found, key=lambda one: -one.gain)


def _scored(one: Callable[[Clues], Explanation | None], clues: Clues) -> Explanation | None:
    """One explanation; None where its virtual client diverges or the model cannot train."""
    try:
        return one(clues)
    except RluError:
        return None


def explain(
    case: Case,
    model: nn.Module,
    config: ForwardConfig,
    evidence: Evidence,
    progress: ProgressCallback = lambda text: None,
) -> Explanation | None:
    """The best explanation that beats the given settings by the margin; None if none does."""
    best = next(iter(explanations(Clues(case, model, config, evidence, progress))), None)
    return best if best is not None and best.gain >= MARGIN else None
