"""Safetensors: a length, a JSON header, then the tensors' bytes; the format cannot hold code."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from typing import Any

import torch

from rlu_cli.checkpoints.pickle_values import Stored, View
from rlu_cli.checkpoints.plain import MAX_TENSORS
from rlu_cli.checkpoints.source import Content, Format, Source, cause, corrupt, malformed
from rlu_cli.checkpoints.torch_pickle import fetcher
from rlu_cli.errors import InputError, printable

_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 16 * 2**20
_MAX_DIMS = 64
_METADATA = "__metadata__"
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class _Twice(ValueError):
    """A name that a JSON object gives twice."""


def read(source: Source) -> Content:
    """Tensors by name, as descriptions, in the natural order of their names.

    The format sorts its names and does not store the order of the layers; natural order, "fc2"
    before "fc10", is the closest approximation. Raises InputError E202, or E204 for more tensors or
    dimensions than any model has.
    """
    start, header = _header(source)
    entries = {name: entry for name, entry in header.items() if name != _METADATA}
    if len(entries) > MAX_TENSORS:
        raise malformed(source, f"it holds {len(entries):,} tensors, more than any model")
    places: dict[str, int] = {}
    fetch = fetcher(source, lambda stored: places[stored.key])
    views: dict[str, View] = {}
    for name, entry in entries.items():
        dtype, shape, begin, end = _entry(source, name, entry)
        places[name] = start + begin
        views[name] = View(
            Stored(name, end - begin, dtype), 0, shape, _strides(shape), dtype, fetch
        )
    _check_tiling(source, places, views, start)
    return Content({name: views[name] for name in sorted(views, key=natural)})


def _header(source: Source) -> tuple[int, dict[str, Any]]:
    """Offset of the first tensor's bytes, and the header; its length is checked first."""
    opening = source.read(0, _LENGTH.size)
    (length,) = _LENGTH.unpack(opening.ljust(_LENGTH.size, b"\0"))
    if length > source.size - _LENGTH.size:
        raise corrupt(
            source, f"its header claims {length:,} bytes of a file that has {source.size:,}"
        )
    if length > _MAX_HEADER:
        raise malformed(source, f"its header alone has {length:,} bytes")
    try:
        text = source.read(_LENGTH.size, length)
        header = json.loads(text, object_pairs_hook=_unique, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise corrupt(source, f"its header is not what it should be: {cause(error)}") from error
    if not isinstance(header, dict):
        raise corrupt(source, "its header is no table of tensors")
    return _LENGTH.size + length, header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise _Twice("a name stands in it twice")
    return table


def _whole(digits: str) -> int:
    """A number of at most nineteen digits: longer ones take quadratic time, and count nothing."""
    if len(digits) > 19:
        raise ValueError("a number in it is too long")
    return int(digits)


def _entry(source: Source, name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """Type, shape and range of bytes of one tensor. Raises InputError E202, E204."""
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [begin, end]}:
            if len(shape) > _MAX_DIMS:
                raise malformed(source, f"{printable(name, 80)} has {len(shape):,} dimensions")
            numbers = [*shape, begin, end]
            if kind in _TYPES and all(type(n) is int and n >= 0 for n in numbers):
                if end - begin != math.prod(shape) * _TYPES[kind].itemsize:
                    raise corrupt(
                        source, f"the bytes of {printable(name, 80)} do not fit its shape"
                    )
                return _TYPES[kind], tuple(shape), begin, end
    raise _odd(source, name)


def _odd(source: Source, name: str) -> InputError:
    return corrupt(source, f"its header describes {printable(name, 80)} in an unknown way")


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Of a dense tensor in the order of its axes."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _check_tiling(
    source: Source, places: dict[str, int], views: dict[str, View], start: int
) -> None:
    """Check that the tensors follow one another from the header to the end of the file."""
    end = start
    for name in sorted(places, key=lambda name: (places[name], views[name].storage.nbytes)):
        if places[name] != end:
            raise corrupt(source, f"the bytes of {printable(name, 80)} do not follow the others'")
        end += views[name].storage.nbytes
    if end != source.size:
        raise corrupt(source, f"its tensors take {end:,} bytes, the file has {source.size:,}")


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that compares the numbers in names by value."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", name)
    return [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in parts]


FORMAT = Format(matches=lambda opening: opening[8:9] == b"{", read=read)
