"""Write the fuzzer's seeds: one small honest file for each form that a reader knows.

python tests/hostile/make_seeds.py
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "checkpoints")]

import run_folders as lay  # noqa: E402
from checkpoint_files import FakeStorage, fake, pickled  # noqa: E402

SEEDS = Path(__file__).parent / "seeds"
PARTS = Path(__file__).parent / "parts" / "__0_0.distcp"  # what the metadata describes
_STATE = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}


def _saved(content: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _arrays(save_: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    save_(buffer, *arrays, **named)
    return buffer.getvalue()


def _image(form: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (3, 2)).save(buffer, form)
    return buffer.getvalue()


def _matlab() -> bytes:
    """A MATLAB 5 file with X (32, 32, 3, 1) and y (1, 1), not compressed."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    def array(name: bytes, shape: tuple[int, ...], data: bytes) -> bytes:
        body = element(6, struct.pack("<II", 9, 0))
        body += element(5, struct.pack(f"<{len(shape)}i", *shape))
        return element(14, body + element(1, name) + element(2, data))

    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    return header + array(b"X", (32, 32, 3, 1), bytes(3072)) + array(b"y", (1, 1), b"\x0a")


def _trainer() -> dict[str, Any]:
    group = {"lr": 0.1, "momentum": 0.9, "params": [0]}
    state = {0: {"momentum_buffer": torch.ones(2, 3)}}
    return {"model": _STATE, "optimizer": {"state": state, "param_groups": [group]}, "epoch": 1}


def _distributed() -> tuple[bytes, bytes]:
    """The metadata and the one file of parts of a torch.distributed.checkpoint folder."""
    from torch.distributed import checkpoint

    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint.save({"model": _STATE}, checkpoint_id=name, no_dist=True)
        return (Path(name) / ".metadata").read_bytes(), (Path(name) / "__0_0.distcp").read_bytes()


def seeds() -> dict[str, dict[str, bytes]]:
    """Reader: {name of a seed: bytes}."""
    pixels, labels = np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1])
    batch = {
        b"data": np.zeros((2, 3072), np.uint8),
        b"labels": [0, 1],
        b"label_names": [b"a", b"b"],
    }
    view = {"w": fake(16, (4, 4), (4, 1)), "b": fake(16, (4,), (1,))}
    trainer = {"train_batch_size": 4, "max_steps": 2, "log_history": [{"step": 2}]}
    return {
        "checkpoint": {
            "zip": _saved(_STATE),
            "legacy": _saved(_STATE, _use_new_zipfile_serialization=False),
            "trainer": _saved(_trainer(), _use_new_zipfile_serialization=False),
            "safetensors": save(_STATE),
            "npz": _arrays(np.savez, np.ones((2, 3), np.float32), np.zeros(2, np.float32)),
            "npz-named": _arrays(np.savez, weight=np.ones((2, 3), np.float32)),
            "npy": _arrays(np.save, np.ones(6, np.float32)),
        },
        "pickle": {
            "state": pickled(view),
            "list": pickled([fake(16, (16,), (1,))]),
            "arrays": pickled({"w": np.ones((2, 2), np.float32), "n": np.float64(1)}),
            "objects": pickled({"model": view, "args": lay.hf_arguments(), "s": FakeStorage(16)}),
        },
        "distributed": {"metadata": _distributed()[0]},
        "index": {"index": json.dumps({"weight_map": {"w": "model-1.safetensors"}}).encode()},
        "arguments": {"arguments": _saved(lay.hf_arguments())},
        "image": {
            form.lower(): _image(form) for form in ("PNG", "JPEG", "BMP", "WEBP", "PPM", "GIF")
        }
        | {"palette": _image("PNG", "P"), "one-bit": _image("PNG", "1")},
        "image-archive": {"npz": _arrays(np.savez, images=pixels, labels=labels)},
        "cifar": {f"protocol-{n}": pickle.dumps(batch, n) for n in (2, 4)},
        "svhn": {"matlab": _matlab()},
        "truth": {
            "list": b"[1, 2]",
            "dict": b'{"a": 1, "b": 2}',
            "csv": b"class,count\na,1\nb,2\n",
        },
        "settings": {"toml": b'lr = 0.1\nbatch-size = 8\nmodel = "lenet5"\ntruth = "t.json"\n'},
        "round": {"round": b'{"clients": [1], "lr": 0.1, "steps": 2, "samples": {"c1": 5}}'},
        "flower": {"project": lay.FLOWER.encode()},
        "nvflare": {"client": json.dumps(lay.NVFLARE_CLIENT).encode()},
        "trainer": {"state": json.dumps(trainer).encode()},
        "yaml": {
            "fedml": lay.FEDML.encode(),
            "plato": lay.PLATO.encode(),
            "hparams": lay.HPARAMS.encode(),
        },
    }


def main() -> None:
    PARTS.parent.mkdir(exist_ok=True)
    PARTS.write_bytes(_distributed()[1])
    for reader, files in seeds().items():
        for name, data in files.items():
            path = SEEDS / reader / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    print(f"{sum(map(len, seeds().values()))} seeds in {SEEDS}")


if __name__ == "__main__":
    main()
