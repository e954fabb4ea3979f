"""What may be wrong with a result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FindingWarning:
    """One thing the user should know, with a code that stays.

    redacted  the same without a word on the client, where `text` names classes
    """

    code: str
    text: str
    redacted: str | None = None
