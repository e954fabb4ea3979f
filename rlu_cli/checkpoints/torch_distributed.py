"""Folders of torch.distributed.checkpoint: a pickle that says which bytes of which file are what.

The pickle is followed by the machine that reads all others. Each part of a tensor is a torch zip.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlu_cli.checkpoints import torch_zip
from rlu_cli.checkpoints.folder import Folder, FolderFormat
from rlu_cli.checkpoints.pickle_globals import DTYPES
from rlu_cli.checkpoints.pickle_values import (
    Deferred,
    Global,
    Leaf,
    Opaque,
    Stored,
    Tuple,
    Unplain,
    View,
    entries,
)
from rlu_cli.checkpoints.source import Content, Source, corrupt, malformed
from rlu_cli.checkpoints.torch_pickle import follow
from rlu_cli.errors import InputError, printable

_MAX_PARTS = 50_000
_MAX_READ = 5_000
_METADATA = ".metadata"
_OWN = ("torch.distributed.checkpoint.", "pathlib.", "torch.serialization._get_layout")
_WAY_OUT = (
    "convert it where it was written: python -m torch.distributed.checkpoint.format_utils "
    "dcp_to_torch FOLDER c.pt"
)


@dataclass(frozen=True)
class _Part:
    """One part of a tensor: where it begins in the tensor, and where its bytes are."""

    offset: tuple[int, ...]
    file: str
    start: int
    length: int


def read(folder: Folder) -> Content:
    """The tensors of the folder in the nested dicts that were saved; other values are left out.

    Raises InputError E202 for a folder that does not fit its metadata or is compressed, E204 for
    one that refers to more bytes than its files have, E205.
    """
    source = folder.keep(_METADATA)
    stream = io.BytesIO(source.read(0, source.size))
    found = follow(source, stream, _no_storage)
    attributes = _attributes(found.value, "Metadata")
    if attributes is None:
        raise _unreadable(source, "its metadata is not that of torch.distributed.checkpoint")
    described = entries(attributes.get("state_dict_metadata")) or {}
    parts = _parts(source, entries(attributes.get("storage_data")) or {})
    _check_total(folder, parts)
    reader = _Reader(folder)
    leaves = {
        name: _tensor(reader, name, held, parts.get(name, []))
        for name, one in described.items()
        if isinstance(name, str) and (held := _attributes(one, "TensorStorageMetadata"))
    }
    objects = tuple(name for name in found.foreign if not name.startswith(_OWN))
    return Content(_nested(leaves, entries(attributes.get("planner_data")) or {}), objects)


def _no_storage(stored: Stored) -> Tensor:
    raise ValueError("metadata holds no tensors")


def _unreadable(source: Source, why: str) -> InputError:
    return InputError("E202", f"cannot read {source.name}", why=why, hint=_WAY_OUT)


def _attributes(value: Any, name: str) -> dict[Any, Any] | None:
    """The attributes of an object of that class; None of others."""
    if not isinstance(value, Opaque) or not value.name.startswith("torch.distributed.checkpoint."):
        return None
    state = value.state
    return state if value.name.endswith(f".{name}") and isinstance(state, dict) else None


def _parts(source: Source, storage_data: Mapping[Any, Any]) -> dict[str, list[_Part]]:
    """The parts of each tensor, by its name."""
    parts: dict[str, list[_Part]] = {}
    for key, value in storage_data.items():
        index, info = _attributes(key, "MetadataIndex"), _attributes(value, "_StorageInfo")
        if index is None or info is None:
            raise _unreadable(source, "its metadata has an index of another kind")
        if info.get("transform_descriptors"):
            raise _unreadable(source, "its files are compressed or otherwise transformed")
        name, file = index.get("fqn"), info.get("relative_path")
        numbers = (info.get("offset"), info.get("length"))
        if not (isinstance(name, str) and isinstance(file, str) and all(map(_is_size, numbers))):
            raise _unreadable(source, "its metadata has an entry without a place")
        offset = _sizes(index.get("offset"))
        parts.setdefault(name, []).append(_Part(offset, file, *numbers))  # type: ignore[arg-type]
    return parts


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _sizes(value: Any) -> tuple[int, ...]:
    """A torch.Size as numbers; empty for None."""
    items = value.items if isinstance(value, Tuple) else ()
    return tuple(item for item in items if _is_size(item))


def _check_total(folder: Folder, parts: Mapping[str, list[_Part]]) -> None:
    every = [part for some in parts.values() for part in some]
    if len(every) > _MAX_PARTS:
        raise malformed(
            folder.source, f"its tensors have {len(every):,} parts, more than any model"
        )
    for name in dict.fromkeys(part.file for part in every):
        folder.keep(name)
    claimed = sum(part.length for part in every)
    if claimed > folder.spent:
        raise malformed(
            folder.source, f"it refers to {claimed:,} bytes, its files have {folder.spent:,}"
        )


@dataclass
class _Reader:
    """Reads parts from the folder's files, and counts them."""

    folder: Folder
    count: int = 0

    def part(self, part: _Part, shown: str) -> View:
        """One part as a tensor. Raises InputError E202 where there is none, E204 for too many."""
        source = self.folder.keep(part.file)
        self.count += 1
        if self.count > _MAX_READ:
            raise malformed(source, f"its tensors have more than {_MAX_READ:,} parts")
        if part.start + part.length > source.size:
            raise corrupt(source, f"it ends before {shown} does")
        data = source.read(part.start, part.length)
        inner = Source(source.path, io.BytesIO(data), len(data), source.max_bytes)
        value = torch_zip.read(inner).value
        if not isinstance(value, View) or math.prod(value.shape) > value.held:
            raise corrupt(source, f"where {shown} should be is no plain tensor")
        return value


def _tensor(reader: _Reader, name: str, held: Mapping[Any, Any], parts: list[_Part]) -> Leaf:
    """A tensor by its metadata; its parts are read when it is wanted."""
    shape, dtype = _sizes(held.get("size")), _dtype(held.get("properties"))
    if dtype is None:
        return Unplain("of an unknown type")
    return Deferred(shape, dtype, lambda: _joined(reader, name, shape, dtype, parts))


def _dtype(properties: Any) -> torch.dtype | None:
    """The element type that a tensor's properties begin with."""
    state = properties.state if isinstance(properties, Opaque) else None
    first = state.items[0] if isinstance(state, Tuple) and state.items else None
    return DTYPES.get(first.name) if isinstance(first, Global) else None


def _joined(
    reader: _Reader, name: str, shape: tuple[int, ...], dtype: torch.dtype, parts: list[_Part]
) -> Tensor:
    """A tensor from parts that must tile it exactly."""
    source, shown = reader.folder.keep(_METADATA), printable(name, 80)
    leaves = [(part.offset, reader.part(part, shown)) for part in parts]
    if any(leaf.dtype != dtype or len(leaf.shape) != len(shape) for _, leaf in leaves):
        raise corrupt(source, f"a part of {shown} has another shape or type than the whole")
    if sum(math.prod(leaf.shape) for _, leaf in leaves) != math.prod(shape):
        raise corrupt(source, f"the parts of {shown} do not add up to its shape {shape}")
    if len(leaves) == 1 and leaves[0][1].shape == shape:
        return leaves[0][1].tensor()
    whole = torch.zeros(shape, dtype=dtype)
    filled = torch.zeros(shape, dtype=torch.bool)
    for offset, leaf in leaves:
        if len(offset) != len(shape):
            raise corrupt(source, f"a part of {shown} has no place in it")
        ends = [first + size for first, size in zip(offset, leaf.shape, strict=True)]
        place = tuple(slice(a, b) for a, b in zip(offset, ends, strict=True))
        if any(end > size for end, size in zip(ends, shape, strict=True)) or filled[place].any():
            raise corrupt(source, f"a part of {shown} lies outside of it or on another")
        whole[place] = leaf.tensor()
        filled[place] = True
    return whole


def _nested(leaves: Mapping[str, Leaf], paths: Mapping[Any, Any]) -> dict[str, Any]:
    """The nested dicts that were flattened when they were saved; names as they are without a path.

    The paths are the file's: only those that end in a tensor and cross no other are followed.
    """
    nested: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *above, last = _steps(paths.get(name)) or [name]
        place = nested
        for step in above:
            inner = place.setdefault(step, {})
            if not isinstance(inner, dict):
                break
            place = inner
        else:
            place.setdefault(last, leaf)
            continue
        nested.setdefault(name, leaf)
    return nested


def _steps(path: Any) -> list[str]:
    items = path.items if isinstance(path, Tuple) else ()
    return [str(item) for item in items if isinstance(item, str) or _is_size(item)]


FORMAT = FolderFormat(matches=lambda path: (path / _METADATA).is_file(), read=read)
