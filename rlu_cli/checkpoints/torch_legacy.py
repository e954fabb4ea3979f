"""Torch's checkpoints from before 1.6: five pickles in a row, then the storages' bytes."""

from __future__ import annotations

import io
from typing import Any

from rlu_cli.checkpoints.pickle_machine import Stored
from rlu_cli.checkpoints.pickle_scan import MAX_PICKLE_BYTES
from rlu_cli.checkpoints.source import Format, Source, corrupt, malformed
from rlu_cli.checkpoints.torch_load import check_total, load, scan
from rlu_cli.errors import printable

# Pickle of torch's magic number 0x1950a86a20f9469cfc6c, behind the protocol's two bytes.
_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")
_PROTOCOL = 1001
_COUNT_BYTES = 8


def read(source: Source) -> Any:
    """The object in a legacy file, loaded after its pickles and its sizes have been checked."""
    stream = io.BytesIO(source.read(0, MAX_PICKLE_BYTES))
    _magic, version, _system, content, _keys = (scan(source, stream) for _ in range(5))
    if version.value != _PROTOCOL:
        raise corrupt(source, f"its protocol is {printable(version.value)}, not {_PROTOCOL}")
    _check_storages(source, content.storages, source.size - stream.tell())
    return load(source)


def _check_storages(source: Source, storages: list[Stored], remaining: int) -> None:
    """What is declared fits into the `remaining` bytes, before torch reserves memory for it."""
    sizes: dict[str, int] = {}
    for stored in storages:
        if sizes.setdefault(stored.key, stored.nbytes) != stored.nbytes:
            shown = printable(stored.key, 80)
            raise malformed(source, f"it declares two sizes for storage {shown}")
    check_total(source, sizes)
    declared = sum(sizes.values()) + _COUNT_BYTES * len(sizes)
    if declared > remaining:
        raise corrupt(source, f"its tensors take {declared:,} bytes, the file has {remaining:,}")


FORMAT = Format(
    matches=lambda opening: opening[:1] == b"\x80" and opening[2:].startswith(_MAGIC),
    read=read,
)
