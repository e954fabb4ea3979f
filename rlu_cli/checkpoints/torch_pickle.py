"""Shared by the torch formats: follow a pickle, and read its tensors' bytes when wanted."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from rlu_cli.checkpoints.pickle_machine import Scan, ScanLimit
from rlu_cli.checkpoints.pickle_scan import scan_pickle
from rlu_cli.checkpoints.pickle_values import Fetch, Stored
from rlu_cli.checkpoints.source import Source, cause, corrupt, malformed, too_large
from rlu_cli.errors import printable

Place = Callable[[Stored], int]  # offset of a storage's bytes in the file


def follow(source: Source, stream: io.BytesIO, fetch: Fetch) -> Scan:
    """Follow one pickle of `stream`; InputError E202 if it cannot be, E204 if none saves it so."""
    try:
        found = scan_pickle(stream, fetch)
    except ScanLimit as limit:
        raise malformed(source, str(limit)) from limit
    except Exception as error:
        raise corrupt(source, f"its pickle cannot be followed: {cause(error)}") from error
    if found.misuse:
        raise malformed(source, printable(found.misuse))
    return found


def check_total(source: Source, storages: Iterable[Stored]) -> int:
    """Bytes of all storages; raises InputError E205 if they exceed the size limit."""
    total = sum(stored.nbytes for stored in storages)
    if total > source.max_bytes:
        raise too_large(source, f"its tensors take {total:,} bytes")
    return total


def fetcher(source: Source, place: Place) -> Fetch:
    """Reads each storage once, from where `place` says that it is."""
    read: dict[str, Tensor] = {}

    def fetch(stored: Stored) -> Tensor:
        if stored.key not in read:
            read[stored.key] = _bytes(source, place(stored), stored.nbytes)
        return read[stored.key]

    return fetch


def _bytes(source: Source, offset: int, count: int) -> Tensor:
    data = bytearray(source.read(offset, count))
    if len(data) != count:
        raise corrupt(source, f"{count:,} bytes of a tensor are missing")
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
