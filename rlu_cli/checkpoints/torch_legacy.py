"""Torch's checkpoints from before 1.6: five pickles in a row, then the storages' bytes."""

from __future__ import annotations

import io

from rlu_cli.checkpoints.pickle_machine import Scan
from rlu_cli.checkpoints.pickle_values import Stored
from rlu_cli.checkpoints.source import (
    Content,
    Format,
    Source,
    corrupt,
    holds_code,
    listed,
    malformed,
)
from rlu_cli.checkpoints.torch_pickle import check_total, fetcher, follow
from rlu_cli.checkpoints.torch_zip import check_byteorder
from rlu_cli.errors import printable

# Pickle of torch's magic number 0x1950a86a20f9469cfc6c, behind the protocol's two bytes.
_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")
_PROTOCOL = 1001
_COUNT_BYTES = 8
_MAX_PICKLES = 2**28


def read(source: Source) -> Content:
    """What a legacy file holds; its pickles and sizes are checked before a tensor is read."""
    offsets: dict[str, int] = {}

    def stored_at(stored: Stored) -> int:
        return offsets[stored.key]

    stream = io.BytesIO(source.read(0, _MAX_PICKLES))
    fetch = fetcher(source, stored_at)
    magic, version, system, content, keys = (follow(source, stream, fetch) for _ in range(5))
    for plain in (magic, version, system, keys):
        if plain.foreign:
            needs = listed(list(plain.foreign))
            raise holds_code(source, "its header contains Python objects", needs=needs)
    if version.value != _PROTOCOL:
        shown = printable(version.value) if isinstance(version.value, int | str) else "unknown"
        raise corrupt(source, f"its protocol is {shown}, not {_PROTOCOL}")
    if isinstance(system.value, dict) and system.value.get("little_endian") is False:
        check_byteorder(source, b"big")
    if content.storages:
        offsets.update(_offsets(source, _in_order(source, keys, content), stream.tell()))
    return Content(content.value, tuple(content.foreign))


def _in_order(source: Source, keys: Scan, content: Scan) -> list[Stored]:
    """The storages in the order of the last pickle, a plain list of their keys.

    torch reads no bytes for a storage that is not listed: its tensor would expose uninitialised
    memory of this process.
    """
    names = keys.value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise malformed(source, "its list of storages is not a plain list of names")
    if len(set(names)) != len(names):
        raise malformed(source, "its list of storages names one twice")
    if not set(names) >= set(content.storages):
        raise corrupt(source, "it leaves out some of its tensors' bytes")
    if not set(names) <= set(content.storages):
        raise corrupt(source, "it lists storages of no tensor")
    return [content.storages[name] for name in names]


def _offsets(source: Source, storages: list[Stored], start: int) -> dict[str, int]:
    """Where each storage's bytes are: behind its number of elements, one after another."""
    check_total(source, storages)
    declared = sum(stored.nbytes + _COUNT_BYTES for stored in storages)
    if declared > source.size - start:
        held = source.size - start
        raise corrupt(source, f"its tensors take {declared:,} bytes, the file has {held:,}")
    offsets = {}
    for stored in storages:
        count = int.from_bytes(source.read(start, _COUNT_BYTES), "little", signed=True)
        if count * stored.dtype.itemsize != stored.nbytes:
            shown = printable(stored.key, 80)
            raise corrupt(source, f"storage {shown} has {count:,} elements, its pickle differs")
        offsets[stored.key] = start + _COUNT_BYTES
        start += _COUNT_BYTES + stored.nbytes
    return offsets


FORMAT = Format(
    matches=lambda opening: opening[:1] == b"\x80" and opening[2:].startswith(_MAGIC),
    read=read,
)
