"""How a class is named to a reader."""

from __future__ import annotations

from rlu_cli.errors import printable


def label(index: int, name: str, limit: int = 40) -> str:
    """How a class is displayed: its index, and its name if that differs."""
    return str(index) if name == str(index) else f"{index} {printable(name, limit)}"
