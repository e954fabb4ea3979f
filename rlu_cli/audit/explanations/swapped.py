"""The two files were given in the wrong order."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from rlu_cli.audit.explanations.clues import Clues, Fit, better_fit, compared, opposite
from rlu_cli.audit.explanations.explanation import MARGIN, PROOF, Explanation
from rlu_cli.audit.explanations.scale import expected
from rlu_cli.checkpoints import counter_changes
from rlu_cli.types import Outputs

_DIRECTIONS, _DIRECTIONS_TRAINED = 45.0, 38.0
_FEW = 100.0  # images at which the angle counts half: it varies with the images of few
_PER_EVENNESS = 40.0
_ADVICE = "exchange --global and --local"
_REVERSED = {  # an update that was subtracted the other way round
    "delta": "the file holds global minus client: give --update-kind minus-delta",
    "minus-delta": "the file holds client minus global: give --update-kind delta",
}


def swapped(clues: Clues) -> Explanation | None:
    """θ_client is where the round began: counters that fall, or an update against the gradient.

    gain  the proof by counters; else that of the angle between the update and a virtual client's,
          from the second file backwards instead of from the first forwards, and of how much more
          evenly the second file's model spreads its predictions: a client's labels are skewed.
          Where these suffice, also the drop of the misfit of length, which a wrong learning rate
          would explain too
    """
    advice = _REVERSED.get(clues.case.value("update_kind"), _ADVICE)
    changes = counter_changes(clues.pair.before, clues.pair.after)
    if changes and max(changes) < 0:
        return Explanation(
            "swapped",
            PROOF,
            f"BatchNorm counters fall by {-max(changes):g} from the first file to the second: the "
            "round ran from the second to the first",
            advice,
        )
    if any(changes) or clues.fit is None:
        return None
    shares = clues.shares_at(-1.0)
    backwards = clues.replica(shares, start=clues.pair.after)
    other = compared(opposite(clues.update), backwards, shares)
    evenness = _evenness(clues.evidence.after) - _evenness(clues.evidence.before)
    directions = _DIRECTIONS + clues.learned * (_DIRECTIONS_TRAINED - _DIRECTIONS)
    directions *= clues.images / (clues.images + _FEW)
    gain = better_fit(clues.fit, other, directions) + _PER_EVENNESS * evenness
    if gain >= MARGIN:
        gain += max(_better_length(clues, clues.fit, other), 0.0)
    return Explanation(
        "swapped",
        gain,
        "training from the second file leads to the first (cosine of the updates "
        f"{other.cosine:.2f}) rather than the other way round ({clues.fit.cosine:.2f})",
        advice,
    )


def _better_length(clues: Clues, given: Fit, other: Fit) -> float:
    """Drop of the misfit of length where the round is run backwards."""
    lengths = replace(expected(clues, given), directions=0.0)
    return lengths.misfit(given) - lengths.misfit(other)


def _evenness(outputs: Outputs) -> float:
    """Entropy of the mean probabilities over that of equal ones, 0 to 1."""
    mean = outputs.probabilities.mean(0)
    return float(-torch.xlogy(mean, mean).sum()) / math.log(len(mean))
