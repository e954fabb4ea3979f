"""The files of one run: their paths, whether they are complete, reading and writing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlu_cli.simulator.client import LocalRound, State
from rlu_cli.simulator.files import read_json, read_state, write_json, write_state

NOTES = ("pretrain", "privacy")  # entries of run.json that are known only after training


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    settings  all that the results depend on; a folder with other settings is not resumed
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
        """Write the global model that a round starts from; the server's value is written first."""
        if server is not None:
            write_state(self.server_file(number), server)
        write_state(self.global_file(number), state)

    def read_server(self, number: int) -> State | None:
        return read_state(self.server_file(number))

    def read_client(self, number: int, client: int) -> State | None:
        """The client's state, None unless it and its truth are both complete and agree."""
        if not self._is_truth(read_json(self.truth_file(number, client))):
            return None
        return read_state(self.client_file(number, client))

    def _is_truth(self, truth: dict[str, Any] | None) -> bool:
        """Whether a truth file is whole: these classes, and counts that are the steps' sum."""
        if truth is None or truth.get("classes") != list(self.classes):
            return False
        counts, steps = truth.get("counts"), truth.get("per_step")
        if not isinstance(counts, list) or not isinstance(steps, list) or not steps:
            return False
        rows = [counts, *steps]
        whole = all(
            isinstance(row, list)
            and len(row) == len(self.classes)
            and all(type(n) is int and n >= 0 for n in row)
            for row in rows
        )
        return whole and [sum(column) for column in zip(*steps, strict=True)] == counts

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
        """Accuracy in round.json of the global model the round started from; None if missing."""
        record = read_json(self.round_folder(number) / "round.json")
        value = None if record is None else record.get(name)
        return None if value is None else float(value)

    def write_round(self, number: int, record: Mapping[str, Any]) -> None:
        """Write round.json (docs/history.md): the clients on disk, then the facts of `record`."""
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
        """One of `NOTES` in run.json; None if it is missing."""
        return (read_json(self.path / "run.json") or {}).get(name)

    def note(self, name: str, value: Any) -> None:
        """Add one of `NOTES` to run.json."""
        record = read_json(self.path / "run.json") or {}
        write_json(self.path / "run.json", {**record, name: value})


def settings_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings, independent of their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
