"""A simulated federation on disk: the only part of the simulator that touches files it writes.

RUN/rlu.toml, RUN/run.json, RUN/aux/CLASS/*.png and, for round 0,
RUN/r000/{global.pt, c3.pt, c3.truth.json, round.json}. Every file is written under a temporary
name in its own folder and then renamed, so that a file that is there is complete.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rlu_cli import __version__
from rlu_cli.errors import UsageError, printable
from rlu_cli.simulator.client import LocalRound, State
from rlu_cli.simulator.files import (
    PARTIAL,
    read_json,
    read_state,
    write_json,
    write_state,
    write_whole,
)
from rlu_cli.simulator.pool import Holding

WRITTEN = (
    "run.json",
    "rlu.toml",
    "aux/*/[0-9][0-9][0-9][0-9][0-9].png",
    "r[0-9]*/round.json",
    "r[0-9]*/global.pt",
    "r[0-9]*/c[0-9]*.pt",
    "r[0-9]*/c[0-9]*.truth.json",
)


@dataclass(frozen=True)
class RunFolder:
    """Where one run's files are, and which of them are complete.

    settings  all that the results depend on; a folder of other settings is not resumed
    classes   class names, in index order
    """

    path: Path
    settings: Mapping[str, Any]
    classes: tuple[str, ...]

    @property
    def auxiliary(self) -> Path:
        return self.path / "aux"

    def global_file(self, number: int) -> Path:
        return self.path / f"r{number:03d}" / "global.pt"

    def client_file(self, number: int, client: int) -> Path:
        return self.path / f"r{number:03d}" / f"c{client}.pt"

    def truth_file(self, number: int, client: int) -> Path:
        return self.path / f"r{number:03d}" / f"c{client}.truth.json"

    def read_global(self, number: int) -> State | None:
        return read_state(self.global_file(number))

    def require_global(self, number: int) -> State:
        state = self.read_global(number)
        assert state is not None, "a round starts only when its global model is written"
        return state

    def write_global(self, number: int, state: State) -> None:
        write_state(self.global_file(number), state)

    def read_client(self, number: int, client: int) -> State | None:
        """The client's state, None unless it and its truth are both complete."""
        if read_json(self.truth_file(number, client)) is None:
            return None
        return read_state(self.client_file(number, client))

    def require_client(self, number: int, client: int) -> State:
        state = self.read_client(number, client)
        assert state is not None, "averaging starts only when every client is written"
        return state

    def write_client(self, number: int, client: int, result: LocalRound) -> None:
        truth = {
            "counts": result.per_step.sum(axis=0).tolist(),
            "per_step": result.per_step.tolist(),
            "classes": list(self.classes),
        }
        write_state(self.client_file(number, client), result.state)
        write_json(self.truth_file(number, client), truth)

    def recorded_accuracy(self, number: int) -> float | None:
        """What round.json says of the accuracy of the global model the round started from."""
        record = read_json(self.path / f"r{number:03d}" / "round.json")
        return float(record["accuracy"]) if record is not None else None

    def write_round(self, number: int, accuracy: float) -> None:
        folder = self.path / f"r{number:03d}"
        clients = sorted(int(p.name[1:].split(".")[0]) for p in folder.glob("c*.truth.json"))
        record = {
            "round": number,
            "clients": clients,
            "accuracy": accuracy,
            "settings": dict(self.settings),
            "settings_sha256": settings_hash(self.settings),
        }
        write_json(folder / "round.json", record)


def open_run(
    path: Path, settings: Mapping[str, Any], classes: tuple[str, ...], *, force: bool = False
) -> RunFolder:
    """Start a run in an empty folder, or go on with one of the same settings.

    force  delete the files of an earlier run of other settings; nothing else is ever deleted
    Raises UsageError E106 for a folder that holds anything else.
    """
    _make(path)
    earlier = read_json(path / "run.json")
    begun = path / f".run.json{PARTIAL}"
    if earlier is None and any(entry != begun for entry in path.iterdir()):
        raise _occupied(path, "it is not empty and is no run of rlu simulate", "an empty folder")
    if earlier is not None and earlier.get("settings_sha256") != settings_hash(settings):
        if not force:
            raise _occupied(path, _difference(earlier, settings), "another folder, or --force")
        _delete_run(path)
    _delete_partial(path)
    return RunFolder(path, settings, classes)


def write_description(
    run: RunFolder, toml: Mapping[str, Any], holding: Holding, record: Mapping[str, Any]
) -> None:
    """What does not change from round to round: run.json, rlu.toml and the auxiliary images.

    toml    the flat table that `rlu attack` finds beside the checkpoints
    record  further facts for run.json, such as the partition
    """
    digest = settings_hash(run.settings)
    facts = {"version": __version__, "settings": dict(run.settings), "settings_sha256": digest}
    write_json(run.path / "run.json", {**facts, **record})
    write_whole(run.path / "rlu.toml", _as_toml(toml).encode())
    numbers = np.zeros(len(run.classes), dtype=np.int64)
    for image, label in zip(holding.aux_images, holding.aux_labels, strict=True):
        file = run.auxiliary / run.classes[label] / f"{numbers[label]:05d}.png"
        numbers[label] += 1
        if not file.exists():
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="PNG")
            write_whole(file, buffer.getvalue())


def settings_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings, whatever the order they are listed in."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _difference(earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    before = earlier.get("settings")
    before = before if isinstance(before, dict) else {}
    changed = [
        f"{name} {printable(before.get(name), 40)} → {printable(value, 40)}"
        for name, value in settings.items()
        if before.get(name) != value
    ]
    return "it holds a run of other settings: " + "; ".join(changed)


def _occupied(path: Path, why: str, instead: str) -> UsageError:
    return UsageError(
        "E106", f"refused to write into {printable(path)}", why=why, hint=f"take {instead}"
    )


def _delete_run(path: Path) -> None:
    """Delete what a run wrote, run.json last, and the folders that this leaves empty."""
    home = path.resolve()
    found = [file for pattern in WRITTEN[::-1] for file in path.glob(pattern)]
    # A linked folder leads to files of somebody else.
    files = [file for file in found if file.parent.resolve().is_relative_to(home)]
    for file in files:
        file.unlink()
    for folder in sorted({f.parent for f in files} | {path / "aux"}, reverse=True):
        if folder != path and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _delete_partial(path: Path) -> None:
    """Delete what a killed run left half-written."""
    for folder in ("", "aux/*/", "r[0-9]*/"):
        for file in path.glob(f"{folder}.*{PARTIAL}"):
            file.unlink()


def _as_toml(table: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in table.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {_toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    # JSON's numbers, booleans and strings are TOML's, but for the one character it leaves bare
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _occupied(path, printable(error), "a folder that can be made") from error
