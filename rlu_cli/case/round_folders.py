"""The folder of a history: one sub-folder per round, and what each one holds (docs/history.md)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlu_cli.errors import InputError, printable
from rlu_cli.regular_files import read_regular

_ROUND = re.compile(r"r(\d{1,6})")
_FORMATS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz")
_MAX_JSON = 2**22


@dataclass(frozen=True)
class PastRound:
    """A round the client took part in before the one under study.

    name   of its folder
    start  path of the global checkpoint
    end    path of the client's checkpoint
    lr     learning rate of the first step; None if missing from round.json
    steps  local steps of the client; None if missing from round.json
    """

    name: str
    start: Path
    end: Path
    lr: float | None
    steps: float | None


def earlier_folders(folder: Path, local: Path) -> list[Path]:
    """Folders of the rounds before that of `local`, in order. Raises InputError E231."""
    check_history(folder)
    return earlier_rounds_of(folder, local)


def open_round(path: Path, local: Path) -> PastRound | None:
    """One earlier round of the client whose file under study is `local`.

    None if the client took no part. Raises InputError E231 for a missing file or an unreadable
    round.json.
    """
    try:
        record = round_record(path)
        present = took_part(record, path, local.stem)
        start, end = file_of(path, "global"), file_of(path, local.stem)
    except OSError as problem:
        raise InputError(
            "E231",
            f"cannot read the folder {printable(path)}",
            why=printable(problem.strerror),
            hint="check its permissions",
        ) from None
    if not present:
        return None
    if start is None or end is None:
        missing = "global" if start is None else local.stem
        raise InputError(
            "E231",
            f"{printable(path.name)}/{printable(missing)}.pt is missing",
            hint="add it (docs/history.md)",
        )
    lr, steps = (positive_number(record.get(name)) for name in ("lr", "steps"))
    return PastRound(path.name, start, end, lr, steps)


def round_name(folder: Path, local: Path) -> str | None:
    """The name of the round folder in the history that contains `local`; None if none does."""
    home = local.resolve().parent
    return home.name if _ROUND.fullmatch(home.name) and home.parent == folder.resolve() else None


def last_file(folder: Path, local: Path) -> Path | None:
    """The client's file from the last earlier round in which it took part; None for none."""
    for path in reversed(earlier_rounds_of(folder, local)):
        if took_part(round_record(path), path, local.stem):
            return file_of(path, local.stem)
    return None


def earlier_rounds_of(folder: Path, local: Path) -> list[Path]:
    """Round folders in order, up to but without the one that contains `local`."""
    numbered, limit = _numbered(folder, local)
    return [numbered[number] for number in sorted(numbered) if number < limit]


def missing_rounds(folder: Path, local: Path) -> list[int]:
    """Numbers of rounds without a folder; numbering starts at 0, or at 1 if r000 is missing."""
    numbered, limit = _numbered(folder, local)
    first = 0 if 0 in numbered or not numbered else 1
    return [number for number in range(first, limit) if number not in numbered]


def _numbered(folder: Path, local: Path) -> tuple[dict[int, Path], int]:
    """Round folders by number, and the number of the round under study.

    That is one more than the last if `local` lies outside the history.
    """
    numbered = {
        int(match[1]): path
        for path in folder.iterdir()
        if path.is_dir() and (match := _ROUND.fullmatch(path.name))
    }
    here = _ROUND.fullmatch(local.resolve().parent.name)
    inside = here is not None and local.resolve().parent.parent == folder.resolve()
    limit = int(here[1]) if here is not None and inside else max(numbered, default=-1) + 1
    return numbered, limit


def file_of(folder: Path, stem: str) -> Path | None:
    return next((p for s in _FORMATS if (p := folder / f"{stem}{s}").is_file()), None)


def round_record(folder: Path) -> dict[str, Any]:
    path = folder / "round.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_regular(path, _MAX_JSON))
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(
            "E231",
            f"cannot read {printable(path)}",
            why=printable(problem),
            hint="repair it or remove it (docs/history.md)",
        ) from None
    return content if isinstance(content, dict) else {}


def took_part(record: dict[str, Any], folder: Path, client: str) -> bool:
    """Whether round.json lists the client or, without a list, whether its file exists."""
    listed = record.get("clients")
    if not isinstance(listed, list):
        return file_of(folder, client) is not None
    names = {str(name) for name in listed}
    return client in names or client.removeprefix("c") in names


def positive_number(value: Any) -> float | None:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain and 0 < value < 1e9 else None


def check_history(folder: Path) -> None:
    """Raise InputError E231 if there is no such folder."""
    try:
        there = folder.is_dir()
    except OSError:  # a name too long
        there = False
    if not there:
        raise InputError(
            "E231",
            f"no history at {printable(folder)}",
            hint="give a folder with one sub-folder per round, r000, r001, … (docs/history.md)",
        )
