"""The client's update was given in place of its weights."""

from __future__ import annotations

import math

from rlu_cli.audit.explanations.clues import Clues
from rlu_cli.audit.explanations.explanation import PROOF, Explanation

_SHORT = 0.35  # length of a model over the other's, below which it is no model of the same kind


def delta(clues: Clues) -> Explanation | None:
    """θ_client is short beside θ_global and points nowhere near it: it is an update Δθ.

    gain  the proof, as no round shrinks every weight of a model so much
    """
    names = [name for name, value in clues.origin.items() if value.dim() > 1]
    if not names:
        return None
    before = math.sqrt(sum(float(clues.origin[name].square().sum()) for name in names))
    after = math.sqrt(sum(float(clues.end[name].square().sum()) for name in names))
    shorter, longer = sorted((before, after))
    if shorter > _SHORT * longer:
        return None
    which = "second" if after < before else "first"
    return Explanation(
        "delta",
        PROOF + longer / max(shorter, 1e-12),
        f"the weights in the {which} file are {shorter / longer:.1%} as long as those in the "
        "other, as if it held an update and not a model",
        "add it to the global model, and give the sum with --local",
    )
