"""Verdict on a finding: reliable, rough or unreliable, with the most likely cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlu_cli.audit.credibility import Credibility
from rlu_cli.audit.explanations import Explanation
from rlu_cli.types import Recovery

RELIABLE, ROUGH, UNRELIABLE = "reliable", "rough", "unreliable"
# Expected iAcc of a reliable answer, and the lower bound of its interval; and how far from a
# uniform guess to 1 an answer must be expected to lie, unless it is expected to be reliable.
_EXPECTED, _AT_LEAST = 0.9, 0.8
_LEAST_GAIN = 0.3
_LONG = 1.0  # time constants of the client's adaptation
_NOISY = 0.3  # noise over signal, of an entry
_DISCREPANT = 0.05  # τ²: like images from fewer than 20 independent draws
_FEW_IMAGES = 20
_GAP = 0.75  # error ratio below which the gap dominates


@dataclass(frozen=True)
class Verdict:
    """What a report says first.

    level   "reliable", "rough" or "unreliable"
    cause   the one most likely cause, as a sentence; None for a reliable answer
    advice  what to do about it; None for a reliable answer
    redacted  replaces the cause in a redacted report; None if the cause says nothing on the client
    """

    level: str
    cause: str | None = None
    advice: str | None = None
    redacted: str | None = None


@dataclass(frozen=True)
class Circumstances:
    """What may be the cause of an inaccurate answer.

    mistaken    a mistake that explains the update better than the settings; None for none
    images      least number of auxiliary images of a class
    folds       time constants of the client's adaptation (`attacks.noise_model.Round`)
    separates   whether the global model separates the classes
    noise       standard deviation of noise added to the update, over the size of its signal
    """

    mistaken: Explanation | None
    images: int
    folds: float
    separates: bool
    noise: float = 0.0


def verdict(recovery: Recovery, known: Credibility | None, circumstances: Circumstances) -> Verdict:
    """The verdict on an answer.

    known  credibility of the answer; None if nothing is known of its error
    """
    if circumstances.mistaken is not None:
        mistake = circumstances.mistaken
        hidden = mistake.redacted().sentence if mistake.private else None
        return Verdict(UNRELIABLE, mistake.sentence, mistake.advice, hidden)
    cause = _cause(recovery.diagnostics, circumstances)
    if not recovery.status.ok:
        known_cause = cause if circumstances.noise > _NOISY else (recovery.status.value, cause[1])
        return Verdict(UNRELIABLE, *known_cause)
    if known is None:
        return Verdict(
            ROUGH,
            "the error of this method is not known for this case",
            "give labelled images of the client's kind with --aux, or use --method auto",
        )
    expected, low, _ = known.expected_iacc
    if expected >= _EXPECTED and low >= _AT_LEAST:
        return Verdict(RELIABLE)
    if expected < _EXPECTED and known.gain < _LEAST_GAIN:
        return Verdict(UNRELIABLE, *cause)
    return Verdict(ROUGH, *cause)


def _cause(diagnostics: Mapping[str, Any], case: Circumstances) -> tuple[str, str]:
    """The most likely cause of a large error, and what to do about it."""
    discrepancy = diagnostics.get("noise", {}).get("discrepancy", 0.0)
    ratio = diagnostics.get("error_ratio") or 1.0
    causes = (
        (
            case.noise > _NOISY,
            f"noise was added to the update, {case.noise:.1f} times as large as its signal",
            "attack several rounds of the client with --history, if you have them",
        ),
        (
            case.folds > _LONG,
            "the round is so long that the client has adapted to its labels: its update shows "
            "little more than the last batches",
            "attack an update of fewer steps or a smaller rate, or try --effort thorough",
        ),
        (
            discrepancy > _DISCREPANT,
            "the auxiliary images differ from the client's",
            "give images like the client's with --aux",
        ),
        (
            case.images < _FEW_IMAGES,
            f"there are only {case.images} auxiliary images of a class",
            "give more images with --aux",
        ),
        (
            case.separates and ratio < _GAP,
            "the model was trained on the client's images, and fits them better than the server's",
            "give --train-accuracy or --train-loss, or more images with --aux",
        ),
    )
    general = (
        "the update does not single out the labels",
        "give more images with --aux, and check lr, steps and optimizer",
    )
    return next(((text, advice) for holds, text, advice in causes if holds), general)
