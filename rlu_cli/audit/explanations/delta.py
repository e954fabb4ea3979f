"""The client's update was given in place of a model: as the global one, or called weights."""

from __future__ import annotations

import math

from rlu_cli.audit.explanations.clues import Clues
from rlu_cli.audit.explanations.explanation import PROOF, Explanation

_SHORT = 0.35  # length of a model over the other's, below which it is no model of the same kind

_FIRST = ("first", "exchange --global and --local, or give the model the client started from")
_SECOND = ("second", "give --update-kind delta")


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
    which, advice = _SECOND if after < before else _FIRST
    return Explanation(
        "delta",
        PROOF + longer / max(shorter, 1e-12),
        f"the weights in the {which} file are {shorter / longer:.1%} as long as those in the "
        "other, as if it held an update and not a model",
        advice,
    )
