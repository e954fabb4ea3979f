"""Append-only file of results, one line per client, that survives a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Ledger:
    """An append-only file of JSON lines, each with its key.

    A last line truncated by a kill is ignored, and terminated before the next is written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found = dict(_read(file))

    def get(self, key: str) -> dict[str, Any] | None:
        """The result under `key`; None if there is none."""
        return self._found.get(key)

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """Append a result; it is on disk when this returns."""
        line = json.dumps({"key": key, **result})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab") as stream:
            start = b"\n" if _is_torn(self._file) else b""
            stream.write(start + line.encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._found[key] = json.loads(line)


def key_of(facts: Mapping[str, Any]) -> str:
    """Hash of everything that a result depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read(file: Path) -> list[tuple[str, dict[str, Any]]]:
    if not file.is_file():
        return []
    rows = []
    for line in file.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
            rows.append((str(row["key"]), row))
        except (ValueError, TypeError, KeyError):
            continue
    return rows


def _is_torn(file: Path) -> bool:
    """Whether the last line lacks its newline."""
    with file.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return False
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"
