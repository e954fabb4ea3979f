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

import pytest
import torch
from safetensors.torch import save_file

from rlu_cli.checkpoints import open_checkpoint
from rlu_cli.errors import InputError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


@dataclass
class FakeStorage:
    """Pickles as a storage of `numel` floats, whatever the file holds."""

    numel: Any
    key: str = "0"


@dataclass
class FakeTensor:
    """Pickles as a tensor with this shape and these strides, checked by nobody."""

    storage: FakeStorage
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __reduce__(self) -> Any:
        args = (self.storage, 0, self.size, self.stride, False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, args


def fake(numel: Any, size: tuple[int, ...], stride: tuple[int, ...], key: str = "0") -> FakeTensor:
    return FakeTensor(FakeStorage(numel, key), size, stride)


class _Pickler(pickle.Pickler):
    tail: tuple[Any, ...] = ()

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, FakeStorage):
            return None
        return ("storage", torch.FloatStorage, obj.key, "cpu", obj.numel, *self.tail)


def pickled(content: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol=2)
    pickler.tail = (None,) if legacy else ()
    pickler.dump(content)
    return buffer.getvalue()


def write_zip(path: Path, pickle_bytes: bytes, storages: Mapping[str, bytes], **entry: Any) -> Path:
    with zipfile.ZipFile(path, "w", **entry) as archive:
        archive.writestr("m/data.pkl", pickle_bytes)
        for key, data in storages.items():
            archive.writestr(f"m/data/{key}", data)
        archive.writestr("m/version", "3\n")
    return path


def write_legacy(path: Path, content: Any, keys: list[str], storages: bytes) -> Path:
    parts = [pickle.dumps(part, protocol=2) for part in (MAGIC, PROTOCOL, {})]
    parts += [pickled(content, legacy=True), pickle.dumps(keys, protocol=2), storages]
    path.write_bytes(b"".join(parts))
    return path


def save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


SAVERS: dict[str, Callable[[Any, Path], None]] = {
    "torch-zip": save_zip,
    "torch-legacy": save_legacy,
    "safetensors": save_file,
}


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = {"conv.weight": (2, 1, 3, 3), "conv.bias": (2,), "fc.weight": (3, 8), "fc.bias": (3,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**tensors, "bn.num_batches_tracked": torch.tensor(7)}


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., InputError]:
    """open_checkpoint(path) must end in an InputError: which."""

    def run(path: Path, **options: Any) -> InputError:
        with pytest.raises(InputError) as caught:
            open_checkpoint(path, **options)
        assert "\x1b" not in str(caught.value)
        return caught.value

    return run


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch must not see the file: every refusal comes from our own checks."""

    def load(*_: Any, **__: Any) -> None:
        pytest.fail("torch.load was called")

    monkeypatch.setattr(torch, "load", load)
