"""Earlier rounds of a client: for schemes with memory, and for a joint estimate.

The layout of the folder is in docs/history.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlu_cli.checkpoints import open_checkpoint, read_head
from rlu_cli.errors import InputError, printable
from rlu_cli.schemes import Round, derived_server_value
from rlu_cli.types import Checkpoint, Head

_ROUND = re.compile(r"r(\d{1,6})")
_FORMATS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_MAX_JSON = 2**24


@dataclass(frozen=True)
class RoundHistory:
    """The state of a client and the server before the round under study.

    past    the client's own rounds, output layers only, oldest first
    server  the server's value at the start of the round under study; None for none
    notes   assumptions made while reading, in sentences
    """

    past: tuple[Round, ...] = ()
    server: Head | None = None
    notes: tuple[str, ...] = ()


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


@dataclass
class _Reader:
    """Reads rounds and collects all missing files, so that one error can list them."""

    folder: Path
    client: str
    layer: str
    rate: float
    max_bytes: int
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lacks(self, folder: Path, stem: str) -> None:
        """Record a missing file, by its full path if it lies outside the history."""
        inside = folder.resolve().parent == self.folder.resolve()
        self.missing.append(f"{folder.name if inside else printable(folder)}/{stem}.pt")

    def head(self, folder: Path, stem: str) -> Head | None:
        """The output layer in the file of that stem; None if it is missing, which is recorded."""
        file = _file(folder, stem)
        if file is None:
            self.lacks(folder, stem)
            return None
        return read_head(open_checkpoint(file, max_bytes=self.max_bytes).state, self.layer)


def read_history(
    folder: Path,
    local: Path,
    current: Checkpoint,
    layer: str,
    *,
    rate: float,
    needs_server: bool,
    max_bytes: int,
) -> RoundHistory:
    """Read the rounds before that of `local` in which the client took part.

    folder        HISTORY/r000, r001, … each with global.pt, the client's file, maybe round.json
    local         the client's file under study; its stem names the client in every round
    current       the global checkpoint under study
    layer         name of the output layer
    rate          Σ_τ η_τ of rounds whose round.json does not give it
    needs_server  whether the scheme has a server value (server.pt); it is derived if missing for
                  a round after one in which every client took part
    max_bytes     size limit of a checkpoint

    Raises InputError E231 that lists every missing file.
    """
    check_history(folder)
    reader = _Reader(folder, local.stem, layer, rate, max_bytes)
    rounds = _earlier(folder, local)
    for number in _gaps(folder, local):
        reader.missing.append(f"r{number:03d}/global.pt")
    _raise_missing(reader)
    records = [_record(path) for path in rounds]
    globals_ = [reader.head(path, "global") for path in rounds]
    globals_.append(read_head(current.state, layer))
    rates = [_rate(reader, path, record) for path, record in zip(rounds, records, strict=True)]
    own = [_took_part(r, path, local.stem) for r, path in zip(records, rounds, strict=True)]
    servers: list[Head | None] = [None] * (len(rounds) + 1)
    if needs_server:
        servers = _server_values(reader, rounds, records, globals_, rates, own, local.parent)
    past = []
    for number, path in enumerate(rounds):
        if not own[number]:
            continue
        end = reader.head(path, local.stem)
        past.append((globals_[number], end, globals_[number + 1], rates[number], servers[number]))
    _raise_missing(reader)
    done = tuple(Round(*values) for values in past)
    return RoundHistory(done, servers[-1], tuple(reader.notes))


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


def last_file(folder: Path, local: Path) -> Path | None:
    """The client's file from the last earlier round in which it took part; None for none."""
    for path in reversed(_earlier(folder, local)):
        if _took_part(_record(path), path, local.stem):
            return _file(path, local.stem)
    return None


def earlier_folders(folder: Path, local: Path) -> list[Path]:
    """Folders of the rounds before that of `local`, in order. Raises InputError E231."""
    check_history(folder)
    return _earlier(folder, local)


def open_round(path: Path, local: Path) -> PastRound | None:
    """One earlier round of the client whose file under study is `local`.

    None if the client took no part. Raises InputError E231 for a missing file or an unreadable
    round.json.
    """
    try:
        record = _record(path)
        took_part = _took_part(record, path, local.stem)
        start, end = _file(path, "global"), _file(path, local.stem)
    except OSError as problem:
        raise InputError(
            "E231",
            f"cannot read the folder {printable(path)}",
            why=printable(problem.strerror),
            hint="check its permissions",
        ) from None
    if not took_part:
        return None
    if start is None or end is None:
        missing = "global" if start is None else local.stem
        raise InputError(
            "E231",
            f"{printable(path.name)}/{printable(missing)}.pt is missing",
            hint="add it (docs/history.md)",
        )
    lr, steps = (_number(record.get(name)) for name in ("lr", "steps"))
    return PastRound(path.name, start, end, lr, steps)


def round_name(folder: Path, local: Path) -> str | None:
    """The name of the round folder in the history that contains `local`; None if none does."""
    home = local.resolve().parent
    return home.name if _ROUND.fullmatch(home.name) and home.parent == folder.resolve() else None


def _earlier(folder: Path, local: Path) -> list[Path]:
    """Round folders in order, up to but without the one that contains `local`."""
    numbered, limit = _numbered(folder, local)
    return [numbered[number] for number in sorted(numbered) if number < limit]


def _gaps(folder: Path, local: Path) -> list[int]:
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


def _file(folder: Path, stem: str) -> Path | None:
    return next((p for s in _FORMATS if (p := folder / f"{stem}{s}").is_file()), None)


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "round.json"
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(
            "E231",
            f"cannot read {printable(path)}",
            why=printable(problem),
            hint="repair it or remove it (docs/history.md)",
        ) from None
    return content if isinstance(content, dict) else {}


def _took_part(record: dict[str, Any], folder: Path, client: str) -> bool:
    """Whether round.json lists the client or, without a list, whether its file exists."""
    listed = record.get("clients")
    if not isinstance(listed, list):
        return _file(folder, client) is not None
    names = {str(name) for name in listed}
    return client in names or client.removeprefix("c") in names


def _rate(reader: _Reader, folder: Path, record: dict[str, Any]) -> float:
    """Σ_τ η_τ of a round: from its round.json, or lr · steps, or that of the round under study."""
    lr, steps, rate = (_number(record.get(name)) for name in ("lr", "steps", "rate"))
    if rate is not None:
        return rate
    if lr is not None and steps is not None:
        return lr * steps
    reader.notes.append(
        f"{folder.name}: learning rate missing, assumed the same as in the round under study"
    )
    return reader.rate


def _number(value: Any) -> float | None:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain and 0 < value < 1e9 else None


def _server_values(
    reader: _Reader,
    rounds: Sequence[Path],
    records: Sequence[dict[str, Any]],
    globals_: Sequence[Head | None],
    rates: Sequence[float],
    own: Sequence[bool],
    current: Path,
) -> list[Head | None]:
    """The server's value at the start of each round and of the round under study.

    own      per round, whether the client took part; only then is a missing value an error
    current  folder of the round under study
    """
    folders = [*rounds, current]
    first = reader.head(folders[0], "server") if _file(folders[0], "server") else None
    values: list[Head | None] = [first]
    for number, folder in enumerate(folders[1:]):
        start, after = globals_[number], globals_[number + 1]
        if _file(folder, "server") is not None:
            values.append(reader.head(folder, "server"))
        elif _all_took_part(records[number]) and start is not None and after is not None:
            values.append(derived_server_value(start, after, rates[number]))
        else:
            if [*own, True][number + 1]:
                reader.lacks(folder, "server")
            values.append(None)
    return values


def _all_took_part(record: dict[str, Any]) -> bool:
    """Whether all clients took part, according to round.json."""
    listed, everyone = record.get("clients"), record.get("total_clients")
    return isinstance(listed, list) and isinstance(everyone, int) and len(listed) == everyone


def _raise_missing(reader: _Reader) -> None:
    """Raise InputError E231 that lists every missing file, if there is any."""
    if reader.missing:
        raise InputError(
            "E231",
            f"files are missing from the history in {printable(reader.folder)}",
            facts=[("missing", ", ".join(reader.missing))],
            why="under this scheme, a client's update depends on its earlier rounds",
            hint="add them (docs/history.md describes each); a round without the client needs its "
            "global.pt and a round.json that does not list the client",
        )
