"""Torch's checkpoints from before 1.6: five pickles in a row, then the storages' bytes."""

from __future__ import annotations

import io
import pickletools
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
_LIST_STEPS = frozenset(
    {"PROTO", "EMPTY_LIST", "MARK", "BINUNICODE", "SHORT_BINSTRING", "BINPUT", "LONG_BINPUT"}
    | {"APPEND", "APPENDS", "STOP"}
)


def read(source: Source) -> Any:
    """The object in a legacy file, loaded after its pickles and its sizes have been checked."""
    stream = io.BytesIO(source.read(0, MAX_PICKLE_BYTES))
    _magic, version, _system, content = (scan(source, stream) for _ in range(4))
    if version.value != _PROTOCOL:
        raise corrupt(source, f"its protocol is {printable(version.value)}, not {_PROTOCOL}")
    keys = _keys(source, stream)
    if not keys.issuperset(stored.key for stored in content.storages):
        raise corrupt(source, "it leaves out some of its tensors' bytes")
    _check_storages(source, content.storages, source.size - stream.tell())
    return load(source)


def _keys(source: Source, stream: io.BytesIO) -> set[str]:
    """Storage keys in the last pickle, a plain list.

    torch reads no bytes for a storage that is not listed: its tensor would expose uninitialised
    memory of this process.
    """
    start = stream.tell()
    scan(source, stream)
    steps = list(pickletools.genops(stream.getbuffer()[start : stream.tell()].tobytes()))
    if not _LIST_STEPS.issuperset(opcode.name for opcode, _, _ in steps):
        raise malformed(source, "its list of storages is not a plain list of names")
    return {arg for _, arg, _ in steps if isinstance(arg, str)}


def _check_storages(source: Source, storages: list[Stored], remaining: int) -> None:
    """Check that the declared storages fit into the `remaining` bytes before torch allocates."""
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
