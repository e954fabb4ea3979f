"""Folders as Hugging Face writes them: one file of weights, or several with an index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlu_cli.checkpoints import safetensors_file, torch_zip
from rlu_cli.checkpoints.folder import Folder, FolderFormat
from rlu_cli.checkpoints.safetensors_file import natural
from rlu_cli.checkpoints.source import Content, Source, corrupt, malformed
from rlu_cli.checkpoints.unwrap import plain_items
from rlu_cli.errors import printable

_INDEX = ".index.json"

# Files of weights, in the order in which transformers looks for them: the reader of each.
_WEIGHTS: dict[str, Callable[[Source], Content]] = {
    "model.safetensors": safetensors_file.read,
    "pytorch_model.bin": torch_zip.read,
    "diffusion_pytorch_model.safetensors": safetensors_file.read,
}


def matches(path: Path) -> bool:
    return any((path / name).is_file() for one in _WEIGHTS for name in (one, one + _INDEX))


def read(folder: Folder) -> Content:
    """The weights by name, in the order of the file, or in natural order where there are several.

    Raises InputError E202 for an index that does not fit its files, and as the files' formats do.
    """
    for name, reader in _WEIGHTS.items():
        if folder.size_of(name) is not None:
            return reader(folder.keep(name))
        if folder.size_of(name + _INDEX) is not None:
            return _sharded(folder, name + _INDEX, reader)
    raise corrupt(folder.source, "its weights are no regular file")


def _sharded(folder: Folder, index: str, reader: Callable[[Source], Content]) -> Content:
    table = folder.json(index)
    places = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise corrupt(folder.keep(index), "it does not map names to files")
    if index in places.values():
        raise malformed(folder.keep(index), "the index names itself as a file of weights")
    objects: dict[str, None] = {}
    held: dict[str, dict[str, Any]] = {}
    for name in sorted(set(places.values()), key=natural):
        content = reader(folder.keep(name))
        held[name] = plain_items(content.value) if isinstance(content.value, dict) else {}
        objects |= dict.fromkeys(content.objects)
    for name, place in places.items():
        if name not in held[place]:
            shown = printable(name, 80)
            raise corrupt(folder.keep(place), f"it lacks {shown}, which the index puts there")
    return Content({n: held[places[n]][n] for n in sorted(places, key=natural)}, tuple(objects))


FORMAT = FolderFormat(matches=matches, read=read)
