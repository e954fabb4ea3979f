"""Torch's zip checkpoints: an uncompressed archive of one pickle and one file for each storage.

Two programs can read one zip file differently. Only the layout that torch writes is therefore
accepted: entries in a row from the first byte, then one directory that ends with the file.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from zipfile import ZipFile, ZipInfo

from rlu_cli.checkpoints.pickle_machine import Scan
from rlu_cli.checkpoints.pickle_values import Stored
from rlu_cli.checkpoints.source import (
    Content,
    Format,
    Source,
    cause,
    corrupt,
    holds_code,
    malformed,
)
from rlu_cli.checkpoints.torch_pickle import check_total, fetcher, follow
from rlu_cli.errors import InputError, printable

_MAGIC = b"PK\x03\x04"
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_DIRECTORY = 8 * 2**20
_UNREADABLE = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError)
_ENCRYPTED = 0x1


def read(source: Source) -> Content:
    """What a torch zip holds; its layout and sizes are checked before a tensor is read."""
    try:
        start = _directory(source)
        with ZipFile(source.file) as archive:
            entries = archive.infolist()
    except _UNREADABLE as error:
        raise corrupt(source, cause(error)) from error
    top = _top_folder(source, entries)
    _check_program(source, entries, top)
    _check_names(source, entries)
    offsets = _check_extents(source, entries, start)
    held = {entry.filename: entry.file_size for entry in entries}
    _check_byteorder(source, offsets, held, top)

    def stored_at(stored: Stored) -> int:
        return offsets[f"{top}/data/{stored.key}"]

    pickle = source.read(offsets[f"{top}/data.pkl"], held[f"{top}/data.pkl"])
    found = follow(source, io.BytesIO(pickle), fetcher(source, stored_at))
    sizes = {name.removeprefix(f"{top}/data/"): size for name, size in held.items()}
    check_storages(source, found, sizes)
    return Content(found.value, tuple(found.foreign))


def check_storages(source: Source, found: Scan, sizes: Mapping[str, int]) -> None:
    """Check that each storage has exactly the bytes that the pickle declares.

    sizes  bytes held by each storage's key

    Raises InputError E202 if one is missing, E204 if one has another size.
    """
    for stored in found.storages.values():
        shown = printable(stored.key, 80)
        held = sizes.get(stored.key)
        if held is None:
            raise corrupt(source, f"storage {shown} is missing")
        if held != stored.nbytes:
            raise malformed(
                source, f"storage {shown} has {held:,} bytes, its pickle says {stored.nbytes:,}"
            )
    check_total(source, found.storages.values())


def check_byteorder(source: Source, order: bytes) -> None:
    """Raises InputError E202 for a file written on a machine of the other byte order."""
    if order.strip() == b"big":
        raise InputError(
            "E202",
            f"cannot read {source.name}: its numbers are big-endian",
            hint="save it again on a little-endian machine, or as safetensors",
        )


def _directory(source: Source) -> int:
    """Offset of the directory; the end records must follow it at once and end the file."""
    tail = source.read(max(0, source.size - _END.size - _LOCATOR.size - _END64.size), 1 << 8)
    if tail[-_END.size :][:4] != b"PK\x05\x06":
        raise corrupt(source, "it does not end with the directory of a zip archive")
    *_, size, start, comment = _END.unpack(tail[-_END.size :])
    end = source.size - _END.size
    if tail[-_END.size - _LOCATOR.size :][:4] == b"PK\x06\x07":
        end -= _LOCATOR.size + _END64.size
        *_, size, start = _END64.unpack(tail[: _END64.size])
    if comment or start + size != end:
        raise malformed(source, "there are bytes between or behind the parts of the archive")
    if size > _MAX_DIRECTORY:
        raise malformed(source, f"its directory alone has {size:,} bytes")
    return int(start)


def _top_folder(source: Source, entries: Sequence[ZipInfo]) -> str:
    """The folder that torch writes all entries into, found by its pickle."""
    tops = [e.filename.split("/")[0] for e in entries if e.filename.count("/") == 1
            and e.filename.endswith(("/data.pkl", "/constants.pkl"))]  # fmt: skip
    if tops:
        return tops[0]
    what = "a zip archive, but not a torch checkpoint"
    raise InputError(
        "E202",
        f"cannot read {source.name}: it is {what}",
        hint='save the tensors with torch.save(model.state_dict(), "model.pt") or as safetensors',
    )


def _check_names(source: Source, entries: Sequence[ZipInfo]) -> None:
    """Check that each name is plain and identifies one entry, also without case, as in torch."""
    seen: set[str] = set()
    for entry in entries:
        name, shown = entry.orig_filename, printable(entry.orig_filename, 80)
        if name.lower() in seen:
            raise malformed(source, f"it holds two entries named {shown}")
        if name.startswith("/") or ".." in name.split("/") or set(name) & {"\\", ":", "\0"}:
            raise malformed(source, f"its entry {shown} points outside the archive")
        if not name.partition("/")[2].isascii():
            raise malformed(source, f"its entry {shown} has a name that torch does not give")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise malformed(source, f"its entry {shown} is compressed")
        if entry.flag_bits & _ENCRYPTED:
            raise malformed(source, f"its entry {shown} is encrypted")
        seen.add(name.lower())


def _check_extents(source: Source, entries: Sequence[ZipInfo], directory: int) -> dict[str, int]:
    """Offsets of the entries' bytes, by name.

    Each must have its stated size, follow the previous one and end in the file.
    """
    end, offsets = 0, {}
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        shown = printable(entry.filename, 80)
        if entry.file_size != entry.compress_size:
            raise malformed(source, f"its entry {shown} claims to unpack to another size")
        if entry.header_offset < end or (end == 0 and entry.header_offset):
            raise malformed(source, f"its entry {shown} overlaps another")
        offsets[entry.filename] = _data_start(source, entry)
        end = offsets[entry.filename] + entry.file_size
        if end > directory:
            raise malformed(source, f"its entry {shown} claims more bytes than the file has")
    return offsets


def _data_start(source: Source, entry: ZipInfo) -> int:
    """Offset of an entry's bytes, from its local header."""
    opening = source.read(entry.header_offset, _LOCAL.size)
    header = _LOCAL.unpack(opening.ljust(_LOCAL.size, b"\0"))
    if header[0] != _MAGIC:
        raise corrupt(source, f"its entry {printable(entry.filename, 80)} has no header")
    return entry.header_offset + _LOCAL.size + int(header[-2]) + int(header[-1])


def _check_program(source: Source, entries: Sequence[ZipInfo], top: str) -> None:
    names = {entry.filename for entry in entries}
    code = any(name.startswith(f"{top}/code/") for name in names)
    if code or f"{top}/constants.pkl" in names:
        raise holds_code(source, "it is a TorchScript archive, which holds a program")
    if any(not name.startswith(f"{top}/") for name in names):
        raise malformed(source, "it holds entries outside the one folder that torch writes")


def _check_byteorder(
    source: Source, offsets: Mapping[str, int], held: Mapping[str, int], top: str
) -> None:
    name = f"{top}/byteorder"
    if name in held:
        check_byteorder(source, source.read(offsets[name], min(held[name], 16)))


FORMAT = Format(matches=lambda opening: opening.startswith(_MAGIC), read=read)
