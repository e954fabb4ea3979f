"""Warnings on a result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FindingWarning:
    """One warning.

    code      stable identifier, such as "W301"
    text      warning, as a sentence
    redacted  replaces `text` in a redacted report; None if `text` says nothing on the client
    """

    code: str
    text: str
    redacted: str | None = None
