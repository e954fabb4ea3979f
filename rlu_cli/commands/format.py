"""The format a command was asked for, so that an error is shown in it too."""

from __future__ import annotations

from contextvars import ContextVar

chosen_format: ContextVar[str] = ContextVar("chosen_format", default="table")
