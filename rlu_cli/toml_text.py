"""TOML from files that others made, without names that nest for ever."""

from __future__ import annotations

import re
import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_PARTS = 32  # of a dotted name: the parser takes the square of their number in time and memory
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"?|' + r"'[^'\n]*'?")  # closed or not
_PIECES = re.compile(r"[\n=,\[\]{}]")


def parse_toml(text: str) -> dict[str, Any]:
    """The table in a TOML text.

    Raises ValueError for what is no TOML and for names of over 32 parts, RecursionError for deep
    nesting.
    """
    plain = _QUOTED.sub("q", text)
    if any(piece.count(".") >= _MAX_PARTS for piece in _PIECES.split(plain)):
        raise ValueError(f"a name of over {_MAX_PARTS} parts")
    return tomllib.loads(text.replace("\r\n", "\n"))
