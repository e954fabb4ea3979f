"""Atomic writes: a file is written under a temporary name, then renamed."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from rlu_cli.simulator.client import State

PARTIAL = ".partial"


def write_whole(file: Path, content: bytes | memoryview) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}{PARTIAL}")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except OSError:  # a full disk: what was begun would take more of it
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_whole(file, (json.dumps(content) + "\n").encode())


def write_state(file: Path, state: State) -> None:
    # Through a buffer: torch writes the file's own name into the archive, and would write the
    # temporary one.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(file, buffer.getbuffer())


def read_json(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_state(file: Path) -> State | None:
    """A state that this run wrote; None when it is missing or damaged."""
    try:
        state: State = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None
    return state
