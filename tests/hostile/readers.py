"""Every reader of files that others made, as a function of the bytes of one file."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from rlu_cli.case.round_folders import round_record
from rlu_cli.case.truth import load_truth
from rlu_cli.checkpoints import open_attributes, open_checkpoint
from rlu_cli.datasets import read_images
from rlu_cli.errors import RluError
from rlu_cli.runs import choose, open_run
from rlu_cli.settings.files import file_layers
from rlu_cli.settings.layers import resolve
from rlu_cli.settings.specs import ATTACK

MAX_BYTES = 2**26  # of a checkpoint and its tensors
Reader = Callable[[Path, bytes], object]  # (empty folder, bytes) → what was read

_ONES = struct.pack("<16f", *[1.0] * 16)
_PARTS = (Path(__file__).parent / "parts" / "__0_0.distcp").read_bytes()


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _checkpoint(folder: Path, data: bytes) -> object:
    return open_checkpoint(_file(folder, "c.pt", data), max_bytes=MAX_BYTES)


def _pickle(folder: Path, data: bytes) -> object:
    """A pickle with one storage beside it, in an unpacked torch file: no archive hides it."""
    _file(folder, "data/0", _ONES)
    _file(folder, "data.pkl", data)
    return open_checkpoint(folder, max_bytes=MAX_BYTES)


def _metadata(folder: Path, data: bytes) -> object:
    _file(folder, "__0_0.distcp", _PARTS)
    _file(folder, ".metadata", data)
    return open_checkpoint(folder, max_bytes=MAX_BYTES)


def _index(folder: Path, data: bytes) -> object:
    header = b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    _file(folder, "model-1.safetensors", struct.pack("<Q", len(header)) + header + _ONES[:16])
    _file(folder, "model.safetensors.index.json", data)
    return open_checkpoint(folder, max_bytes=MAX_BYTES)


def _image(folder: Path, data: bytes) -> object:
    _file(folder, "cat/0.png", data)
    (folder / "dog").mkdir()
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / "dog" / "0.png")
    return read_images(folder, size=2)


def _cifar(folder: Path, data: bytes) -> object:
    _file(folder, "test_batch", data)
    _file(folder, "batches.meta", data)
    return read_images(folder)


def _settings(folder: Path, data: bytes) -> object:
    _file(folder, "rlu.toml", data)
    beside, own = file_layers([folder / "c.pt"], folder.parent)
    return resolve([*beside, *own], ATTACK)


def _round(folder: Path, data: bytes) -> object:
    _file(folder, "round.json", data)
    return round_record(folder)


def _run(name: str, *more: str) -> Reader:
    """A run folder in which this file is the settings, and these are its checkpoints."""

    def read(folder: Path, data: bytes) -> object:
        _file(folder, name, data)
        for other in more:
            _file(folder, other, b"{}")
        return choose(open_run(folder), before=folder / "g.pt").values

    return read


READERS: dict[str, Reader] = {
    "checkpoint": _checkpoint,
    "pickle": _pickle,
    "distributed": _metadata,
    "index": _index,
    "arguments": lambda folder, data: open_attributes(
        _file(folder, "training_args.bin", data), max_bytes=MAX_BYTES
    ),
    "image": _image,
    "image-archive": lambda folder, data: read_images(_file(folder, "aux.npz", data)),
    "cifar": _cifar,
    "svhn": lambda folder, data: read_images(_file(folder, "test_32x32.mat", data)),
    "truth": lambda folder, data: load_truth(_file(folder, "t.json", data), ("a", "b"), None),
    "settings": _settings,
    "round": _round,
    "flower": _run("pyproject.toml", "r001/c1.pt"),
    "nvflare": _run("site-1/config_fed_client.json", "r001/site-1.pt"),
    "trainer": _run("checkpoint-2/trainer_state.json", "checkpoint-1/trainer_state.json"),
    "yaml": _run(
        "fedml_config.yaml", "r001/c1.pt", "version_0/step=1.ckpt", "version_0/hparams.yaml"
    ),
}


def read_with(name: str, folder: Path, data: bytes) -> object:
    """What a reader makes of these bytes, in a folder that is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return READERS[name](folder, data)


READ, SKIPPED = "read", "skipped"


def outcome(name: str, folder: Path, data: bytes) -> str:
    """The code with which a reader refuses these bytes, or READ; any other end is the caller's.

    SKIPPED for one image that was left out of the others.
    """
    try:
        found = read_with(name, folder, data)
    except RluError as refused:
        if "\x1b" in str(refused):
            raise
        return refused.code
    return SKIPPED if getattr(found, "skipped", ()) else READ
