"""Label smoothing that was not said."""

from __future__ import annotations

from dataclasses import replace

from rlu_cli.audit.explanations.clues import Clues, better_fit
from rlu_cli.audit.explanations.explanation import Explanation

_EPSILON = 0.1
_DIRECTIONS = 15.0


def label_smoothing(clues: Clues) -> Explanation | None:
    """ε = 0.1: a virtual client with it moves more along the client's update than one without.

    gain  the difference of the cosines, in calibrated units
    """
    if clues.fit is None or clues.case.training.smoothing or not clues.learned:
        return None
    training = replace(clues.case.training, smoothing=_EPSILON)
    found = clues.fit_to(clues.fit.shares, training)
    return Explanation(
        "label smoothing",
        better_fit(clues.fit, found, _DIRECTIONS),
        f"a client with label smoothing {_EPSILON} moves more like this one (cosine "
        f"{found.cosine:.3f} instead of {clues.fit.cosine:.3f})",
        f"give --label-smoothing {_EPSILON}",
    )
