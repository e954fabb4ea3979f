"""The files of one run: where they are, which are complete, and what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlu_cli.simulator.client import LocalRound, State
from rlu_cli.simulator.files import read_json, read_state, write_json, write_state

NOTES = ("pretrain", "privacy")  # entries of run.json that only running it tells


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

    def round_folder(self, number: int) -> Path:
        return self.path / f"r{number:03d}"

    def global_file(self, number: int) -> Path:
        return self.round_folder(number) / "global.pt"

    def server_file(self, number: int) -> Path:
        return self.round_folder(number) / "server.pt"

    def client_file(self, number: int, client: int) -> Path:
        return self.round_folder(number) / f"c{client}.pt"

    def truth_file(self, number: int, client: int) -> Path:
        return self.round_folder(number) / f"c{client}.truth.json"

    def read_global(self, number: int) -> State | None:
        return read_state(self.global_file(number))

    def require_global(self, number: int) -> State:
        state = self.read_global(number)
        assert state is not None, "a round starts only when its global model is written"
        return state

    def write_global(self, number: int, state: State, server: State | None = None) -> None:
        """Write the global model a round starts from, after the server's value of that round."""
        if server is not None:
            write_state(self.server_file(number), server)
        write_state(self.global_file(number), state)

    def read_server(self, number: int) -> State | None:
        return read_state(self.server_file(number))

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

    def recorded_accuracy(self, number: int, name: str = "accuracy") -> float | None:
        """What round.json says of an accuracy of the global model the round started from."""
        record = read_json(self.round_folder(number) / "round.json")
        value = None if record is None else record.get(name)
        return None if value is None else float(value)

    def write_round(self, number: int, record: Mapping[str, Any]) -> None:
        """round.json (docs/history.md): who is there, then the facts of `record`."""
        folder = self.round_folder(number)
        clients = sorted(int(p.name[1:].split(".")[0]) for p in folder.glob("c*.truth.json"))
        write_json(
            folder / "round.json",
            {
                "round": number,
                "clients": clients,
                **record,
                "settings": dict(self.settings),
                "settings_sha256": settings_hash(self.settings),
            },
        )

    def noted(self, name: str) -> Any:
        """What run.json says of one of `NOTES`; None for nothing."""
        return (read_json(self.path / "run.json") or {}).get(name)

    def note(self, name: str, value: Any) -> None:
        """Add to run.json what was not known when it was first written."""
        record = read_json(self.path / "run.json") or {}
        write_json(self.path / "run.json", {**record, name: value})


def settings_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings, whatever the order they are listed in."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
