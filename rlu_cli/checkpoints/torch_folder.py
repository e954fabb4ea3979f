"""A torch checkpoint that was unpacked: the zip's entries as files, `data.pkl` beside `data/`."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from rlu_cli.checkpoints.folder import Folder, FolderFormat
from rlu_cli.checkpoints.pickle_values import Stored
from rlu_cli.checkpoints.source import Content, corrupt, holds_code, malformed
from rlu_cli.checkpoints.torch_pickle import follow
from rlu_cli.checkpoints.torch_zip import check_byteorder, check_storages
from rlu_cli.errors import printable

_PICKLE = "data.pkl"
_PROGRAM = ("constants.pkl", "code")


def read(folder: Folder) -> Content:
    """What the folder holds; its sizes are checked before a tensor is read.

    Raises InputError E202 to E205 as the zip would.
    """
    source = folder.keep(_PICKLE)
    if any((folder.path / name).exists() for name in _PROGRAM):
        raise holds_code(source, "it is a TorchScript archive, which holds a program")
    if folder.size_of("byteorder") is not None:
        check_byteorder(source, bytes(folder.bytes_of("byteorder")[:16]))
    tensors: dict[str, Tensor] = {}

    def fetch(stored: Stored) -> Tensor:
        if stored.key not in tensors:
            data = folder.bytes_of(f"data/{stored.key}")
            if len(data) != stored.nbytes:
                raise corrupt(source, f"storage {printable(stored.key, 80)} changed while read")
            empty = torch.empty(0, dtype=torch.uint8)
            tensors[stored.key] = torch.frombuffer(data, dtype=torch.uint8) if data else empty
        return tensors[stored.key]

    found = follow(source, io.BytesIO(source.read(0, source.size)), fetch)
    for key in found.storages:
        if "/" in key:
            raise malformed(source, f"its storage {printable(key, 80)} has a name with a folder")
    held = {key: folder.size_of(f"data/{key}") for key in found.storages}
    sizes = {key: size for key, size in held.items() if size is not None}
    check_storages(source, found, sizes)
    folder.spent += sum(sizes.values())
    return Content(found.value, tuple(found.foreign))


FORMAT = FolderFormat(matches=lambda path: (path / _PICKLE).is_file(), read=read)
