"""Checkpoint files, good and hostile, made on the spot."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from rlu_cli.errors import InputError
from rlu_cli.types import Checkpoint

State = dict[str, torch.Tensor]
Refusal = Callable[..., InputError]  # of open_checkpoint with these arguments
Opened = Callable[[object], Checkpoint]  # this content, saved and opened

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


@dataclass
class FakeStorage:
    """Pickles as a storage of `numel` floats, whatever the file holds."""

    numel: Any
    key: str = "0"
    view: Any = None


@dataclass
class FakeTensor:
    """Pickles as a tensor with this shape and these strides, checked by nobody."""

    storage: FakeStorage
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __reduce__(self) -> Any:
        args: tuple[Any, ...] = (self.storage, 0, self.size, self.stride, False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, args


def fake(numel: Any, size: tuple[int, ...], stride: tuple[int, ...], key: str = "0") -> FakeTensor:
    return FakeTensor(FakeStorage(numel, key), size, stride)


class _Pickler(pickle.Pickler):
    legacy = False

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, FakeStorage):
            return None
        tail = (obj.view,) if self.legacy else ()
        return ("storage", torch.FloatStorage, obj.key, "cpu", obj.numel, *tail)


def pickled(content: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol=2)
    pickler.legacy = legacy
    pickler.dump(content)
    return buffer.getvalue()


def write_zip(path: Path, pickle_bytes: bytes, storages: Mapping[str, bytes], **entry: Any) -> Path:
    with zipfile.ZipFile(path, "w", **entry) as archive:
        archive.writestr("m/data.pkl", pickle_bytes)
        for key, data in storages.items():
            archive.writestr(f"m/data/{key}", data)
        archive.writestr("m/version", "3\n")
    return path


def write_legacy(path: Path, content: Any, keys: object, storages: bytes) -> Path:
    first: tuple[object, ...] = (MAGIC, PROTOCOL, {})
    parts = [pickle.dumps(part, protocol=2) for part in first]
    parts += [pickled(content, legacy=True), pickle.dumps(keys, protocol=2), storages]
    path.write_bytes(b"".join(parts))
    return path


def save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_npz(content: Any, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **{name: tensor.numpy() for name, tensor in content.items()})


SAVERS: dict[str, Callable[[Any, Path], None]] = {
    "torch-zip": save_zip,
    "torch-legacy": save_legacy,
    "safetensors": save_file,
    "npz": save_npz,
}
