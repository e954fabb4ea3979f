"""Shared by both torch formats: check the scanned pickle, then use torch's weights-only loader."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch

from rlu_cli.checkpoints.pickle_machine import Scan, ScanLimit
from rlu_cli.checkpoints.pickle_scan import scan_pickle
from rlu_cli.checkpoints.source import (
    Source,
    cause,
    corrupt,
    holds_code,
    listed,
    malformed,
    not_plain,
    too_large,
)
from rlu_cli.errors import InputError, printable


def scan(source: Source, stream: io.BytesIO) -> Scan:
    """Scan one pickle of `stream`; raises InputError E202, E203, E204 or E206 if it is refused."""
    try:
        found = scan_pickle(stream)
    except ScanLimit as limit:
        raise malformed(source, str(limit)) from limit
    except Exception as error:
        raise corrupt(source, f"its pickle cannot be followed: {cause(error)}") from error
    _refuse(source, found)
    return found


def _refuse(source: Source, found: Scan) -> None:
    if found.foreign:
        what = "it contains Python objects, not only tensors"
        raise holds_code(source, what, it="them", needs=listed(list(found.foreign)))
    if found.unplain:
        what = f"it holds {' and '.join(found.unplain)}"
        raise not_plain(source, what, "save dense floating-point tensors on the CPU")
    if found.misuse:
        raise malformed(source, printable(found.misuse))
    if found.protocol > 3:
        raise InputError(
            "E202",
            f"cannot read {source.name}: its pickle protocol {found.protocol} is not one that "
            "torch loads safely",
            hint="save it without pickle_protocol=…, which gives protocol 2",
        )


def check_total(source: Source, sizes: dict[str, int]) -> None:
    """Raises InputError E205 if the declared storages, in bytes by key, exceed the size limit."""
    total = sum(sizes.values())
    if total > source.max_bytes:
        raise too_large(source, f"its tensors take {total:,} bytes")


def load(source: Source) -> Any:
    """The object in `source`, by torch's weights-only loader; any exception becomes E202."""
    source.file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickle protocol, deprecated storages
            return torch.load(source.file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise corrupt(source, f"torch cannot load it: {cause(error)}") from error
