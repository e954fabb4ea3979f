"""The first file is not the model that the client started from."""

from __future__ import annotations

from rlu_cli.audit.explanations.clues import Clues
from rlu_cli.audit.explanations.explanation import PROOF, Explanation
from rlu_cli.evidence.batchnorm_statistics import norm_layers

_ADVICE = "give the global model that the client started its round from"
_PER_COSINE = 40.0
_EXPECTED = 0.6  # cosine that right updates of untrained models without BatchNorm exceed


def other_global(clues: Clues) -> Explanation | None:
    """The two files are of different trainings, or the round did not begin at the first one.

    gain  the proof where the weights of most layers are turned, or where BatchNorm counters stood
          still while their statistics moved; else that of a cosine with a virtual client's update
          that is too small
    """
    if clues.turned:
        return Explanation(
            "other global",
            PROOF,
            f"the weights of the two files have a median cosine of {clues.turn:.2f}: they come "
            "from different initial weights or different trainings",
            _ADVICE,
        )
    if clues.pair.steps == 0 and _statistics_moved(clues):
        return Explanation(
            "other global",
            PROOF,
            "BatchNorm counters are the same in both files although their statistics differ: the "
            "first file is probably the global model after aggregation",
            _ADVICE,
        )
    if clues.fit is None:
        return None
    expected = 0.0 if norm_layers(clues.model) else _EXPECTED * (1 - clues.learned)
    return Explanation(
        "other global",
        _PER_COSINE * max(expected - clues.fit.cosine, 0.0),
        "the update is not what training from the first file does, in either direction (cosine "
        f"{clues.fit.cosine:.2f}): it may be the global model of another round, or that from after "
        "aggregation",
        _ADVICE,
    )


def _statistics_moved(clues: Clues) -> bool:
    before, after = (checkpoint.state for checkpoint in clues.pair)
    names = [name for name in before if name.endswith("running_mean")]
    return any(bool((before[name].double() - after[name].double()).any()) for name in names)
