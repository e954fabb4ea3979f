"""One explanation of what does not fit, and how much better it fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

MARGIN = 10.0  # gain from which an explanation is reported; calibrated on right runs
PROOF = 1e3  # gain of what the files leave no doubt about


@dataclass(frozen=True)
class Explanation:
    """A mistake that fits the evidence better than the given settings do.

    name      of the mistake, in a few words
    gain      by which it beats the settings, in units of -2 log likelihood; `PROOF` and more where
              the files leave no doubt
    sentence  what is seen and what it means, without a full stop
    advice    what to do, without a full stop
    private   whether sentence and advice name classes, which a redacted report does not
    """

    name: str
    gain: float
    sentence: str
    advice: str
    private: bool = False

    def redacted(self) -> Explanation:
        """The explanation without what says something about the client's classes."""
        if not self.private:
            return self
        return replace(
            self, sentence=f"likely mistake: {self.name}", advice=f"check the {self.name}"
        )
