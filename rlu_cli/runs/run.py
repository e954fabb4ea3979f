"""What is known about a run: who sent what in which round, and how the clients trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlu_cli.runs.folder import RunFolder
from rlu_cli.types import Setting


@dataclass(frozen=True)
class Exchange:
    """One client's part in one round.

    round   its number; of a trainer without rounds, the step at which the file was written
    client  its name; "" where the system has no clients
    before  the model it started from; None where the run did not keep it
    after   the model it sent
    values  settings of this round and client
    """

    round: int
    client: str
    before: Path | None
    after: Path
    values: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Code:
    """The run's own model code, which is not run unless the user asks for it.

    reference  PATH.py:NAME
    arguments  what it is called with
    source     where the run names it
    """

    reference: str
    arguments: Mapping[str, Any]
    source: str


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    system       name of the system
    exchanges    by round, then by client
    values       settings of all clients, each with its source
    full_passes  whether the system's epochs are passes over a client's samples
    model        what the run calls its architecture
    code         its own model code
    aux          auxiliary images in it
    notes        sentences for the report
    no_global    why the model that a client started from may be missing
    """

    path: Path
    system: str
    exchanges: tuple[Exchange, ...]
    values: Mapping[str, Setting] = field(default_factory=dict)
    full_passes: bool = True
    model: Setting | None = None
    code: Code | None = None
    aux: Path | None = None
    notes: tuple[str, ...] = ()
    no_global: str = "no file in it is a global model that a client started from"


@dataclass(frozen=True)
class System:
    """How the run folders of one system are recognised and read.

    matches  folder → whether it is one
    read     (folder, name of the system) → what is in it
    """

    matches: Callable[[RunFolder], bool]
    read: Callable[[RunFolder, str], Run]
