"""Round folders, r000, r001, …, wherever they lie in a run (docs/history.md, docs/runs.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlu_cli.errors import printable
from rlu_cli.runs.folder import RunFolder
from rlu_cli.runs.names import COMMON, settings_in
from rlu_cli.runs.run import Exchange
from rlu_cli.types import Setting

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz")
_ROUND = re.compile(r"r(\d{1,6})")
_GLOBAL, _SERVER = "global", "server"


def rounds_in(folder: RunFolder) -> tuple[Exchange, ...]:
    """Every client in every round folder, with what its round.json tells."""
    held: dict[str, dict[str, str]] = {}
    for file in folder.ending(*SUFFIXES):
        place, _, name = file.rpartition("/")
        if _ROUND.fullmatch(place.rpartition("/")[2]):
            held.setdefault(place, {}).setdefault(name.rpartition(".")[0], file)
    found = []
    for place, files in held.items():
        match = _ROUND.fullmatch(place.rpartition("/")[2])
        assert match is not None
        start = files.get(_GLOBAL)
        record = f"{place}/round.json"
        told = folder.json(record) if record in folder.files else {}
        found += [
            Exchange(
                int(match[1]),
                client,
                None if start is None else folder.file(start),
                folder.file(file),
                _told(told, client, record),
            )
            for client, file in files.items()
            if client not in (_GLOBAL, _SERVER)
        ]
    return in_order(found)


def in_order(found: list[Exchange]) -> tuple[Exchange, ...]:
    return tuple(sorted(found, key=lambda one: (one.round, natural(one.client))))


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts numbers in names by their value."""
    parts = re.findall(r"\d+|\D+", name[:200])
    return tuple((0, int(p), "") if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts)


def _told(record: Mapping[str, Any], client: str, place: str) -> dict[str, Setting]:
    """Settings in round.json: the round's `lr`, the run's `config`, `samples` of each client."""
    config = record.get("config")
    found = settings_in(config, f"{place}: config", COMMON) if isinstance(config, dict) else {}
    found |= settings_in({"lr": record.get("lr")}, f"{place}:")
    samples = record.get("samples")
    if isinstance(samples, dict) and isinstance(samples.get(client), int):
        source = printable(f"{place}: samples {client}")
        found["samples"] = Setting(samples[client], source)
    return found
