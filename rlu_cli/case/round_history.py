"""Earlier rounds of a client: for schemes with memory, and for a joint estimate.

The layout of the folder is in docs/history.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlu_cli.case.round_folders import (
    check_history,
    earlier_rounds_of,
    file_of,
    missing_rounds,
    positive_number,
    round_record,
    took_part,
)
from rlu_cli.checkpoints import (
    Layout,
    named_by,
    named_in,
    open_checkpoint,
    read_head,
)
from rlu_cli.errors import InputError, printable
from rlu_cli.schemes import Round, derived_server_value
from rlu_cli.types import Checkpoint, Head

_SHOWN = 1000


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


@dataclass
class _Reader:
    """Reads rounds and collects all missing files, so that one error can list them."""

    folder: Path
    client: str
    layer: str
    rate: float
    max_bytes: int
    layout: Layout
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lacks(self, folder: Path, stem: str) -> None:
        """Record a missing file, by its full path if it lies outside the history."""
        inside = folder.resolve().parent == self.folder.resolve()
        self.missing.append(f"{folder.name if inside else printable(folder)}/{stem}.pt")

    def head(self, folder: Path, stem: str) -> Head | None:
        """The output layer in the file of that stem; None if it is missing, which is recorded."""
        file = file_of(folder, stem)
        if file is None:
            self.lacks(folder, stem)
            return None
        opened = open_checkpoint(file, max_bytes=self.max_bytes)
        if not opened.named:
            opened = named_by(opened, self.layout) or opened
        return read_head(opened.state, named_in(opened.state, self.layer))


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
    reader = _Reader(folder, local.stem, layer, rate, max_bytes, current.state)
    rounds = earlier_rounds_of(folder, local)
    for number in missing_rounds(folder, local):
        reader.missing.append(f"r{number:03d}/global.pt")
    _raise_missing(reader)
    records = [round_record(path) for path in rounds]
    globals_ = [reader.head(path, "global") for path in rounds]
    globals_.append(read_head(current.state, layer))
    rates = [_rate(reader, path, record) for path, record in zip(rounds, records, strict=True)]
    own = [took_part(r, path, local.stem) for r, path in zip(records, rounds, strict=True)]
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


def _rate(reader: _Reader, folder: Path, record: dict[str, Any]) -> float:
    """Σ_τ η_τ of a round: from its round.json, or lr · steps, or that of the round under study."""
    lr, steps, rate = (positive_number(record.get(name)) for name in ("lr", "steps", "rate"))
    if rate is not None:
        return rate
    if lr is not None and steps is not None:
        return lr * steps
    reader.notes.append(
        f"{folder.name}: learning rate missing, assumed the same as in the round under study"
    )
    return reader.rate


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
    first = reader.head(folders[0], "server") if file_of(folders[0], "server") else None
    values: list[Head | None] = [first]
    for number, folder in enumerate(folders[1:]):
        start, after = globals_[number], globals_[number + 1]
        if file_of(folder, "server") is not None:
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
        more = len(reader.missing) - _SHOWN
        raise InputError(
            "E231",
            f"files are missing from the history in {printable(reader.folder)}",
            facts=[
                (
                    "missing",
                    ", ".join(reader.missing[:_SHOWN]) + (f"  ({more:,} more)" if more > 0 else ""),
                )
            ],
            why="under this scheme, a client's update depends on its earlier rounds",
            hint="add them (docs/history.md describes each); a round without the client needs its "
            "global.pt and a round.json that does not list the client",
        )
