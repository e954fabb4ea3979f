"""Numpy's `.npz`: a zip archive of arrays, named, or numbered in the order of the parameters."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from zipfile import ZipFile, ZipInfo

from rlu_cli.checkpoints.npy import read_array
from rlu_cli.checkpoints.pickle_values import Array
from rlu_cli.checkpoints.source import (
    Content,
    Format,
    Source,
    cause,
    corrupt,
    malformed,
    too_large,
)
from rlu_cli.errors import printable

_LOCAL = struct.Struct("<4s5H3L2H")
_NUMBERED = re.compile(r"arr_(0|[1-9][0-9]{0,6})")
_MAX_ARRAYS = 10_000
_MAX_DIRECTORY = 8 * 2**20
_ALWAYS_UNPACKED = 512 * 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNREADABLE = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    struct.error,
    ValueError,
    EOFError,
    zlib.error,
    OSError,  # an offset before the file
)


def matches(opening: bytes) -> bool:
    """A zip archive whose first entry is an array."""
    if not opening.startswith(b"PK\x03\x04") or len(opening) < _LOCAL.size:
        return False
    length = _LOCAL.unpack(opening[: _LOCAL.size])[-2]
    return opening[_LOCAL.size : _LOCAL.size + length].endswith(b".npy")


def read(source: Source) -> Content:
    """Arrays by name, or a list of them where `numpy.savez(file, *arrays)` numbered them.

    Raises InputError E202, E203 for arrays of objects, E204 for an archive that would unpack to far
    more than its size, E205.
    """
    try:
        with ZipFile(source.file) as archive:
            entries = archive.infolist()
            _check(source, archive, entries)
            arrays = {_name(entry): _array(source, archive, entry) for entry in entries}
    except _UNREADABLE as error:
        raise corrupt(source, cause(error)) from error
    numbers = [_NUMBERED.fullmatch(name) for name in arrays]
    if arrays and {int(n[1]) for n in numbers if n} == set(range(len(arrays))):
        return Content([arrays[f"arr_{number}"] for number in range(len(arrays))])
    return Content(arrays)


def _name(entry: ZipInfo) -> str:
    return entry.filename.removesuffix(".npy")


def _check(source: Source, archive: ZipFile, entries: Sequence[ZipInfo]) -> None:
    if len(entries) > _MAX_ARRAYS or source.size - archive.start_dir > _MAX_DIRECTORY:
        raise malformed(source, f"it holds {len(entries):,} arrays, more than any model")
    if len({entry.filename for entry in entries}) != len(entries):
        raise malformed(source, "it holds two arrays of one name")
    for entry in entries:
        shown = printable(entry.filename, 80)
        if not entry.filename.endswith(".npy") or entry.compress_type not in _METHODS:
            raise malformed(source, f"its entry {shown} is not one that numpy writes")
    total = sum(entry.file_size for entry in entries)
    if total > source.max_bytes:
        raise too_large(source, f"its arrays take {total:,} bytes")
    if total > source.size + _ALWAYS_UNPACKED:
        raise malformed(
            source, f"it would unpack to {total:,} bytes; numpy.savez writes it uncompressed"
        )


def _array(source: Source, archive: ZipFile, entry: ZipInfo) -> Array:
    with archive.open(entry) as stream:
        name = printable(_name(entry), 80)
        return read_array(stream, entry.file_size, name, source)  # type: ignore[arg-type]


FORMAT = Format(matches=matches, read=read)
