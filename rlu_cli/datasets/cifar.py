"""CIFAR-10 and CIFAR-100 as published for Python: a folder of pickled batches, never unpickled."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlu_cli.datasets.labelled import (
    LabelledImages,
    choose_split,
    files_sha256,
    in_content_order,
    resized,
)
from rlu_cli.datasets.plain_pickle import read_pickled
from rlu_cli.errors import InputError, printable

MAX_FILE_BYTES = 2**29
MAX_CLASSES = 1000
SIDE = 32


@dataclass(frozen=True)
class _Edition:
    """folder: as in the archive; labels, names: keys in a batch and in the meta file."""

    folder: str
    meta: str
    labels: str
    names: str
    splits: Mapping[str, tuple[str, ...]]


EDITIONS = (
    _Edition(
        folder="cifar-10-batches-py",
        meta="batches.meta",
        labels="labels",
        names="label_names",
        splits={"test": ("test_batch",), "train": tuple(f"data_batch_{n}" for n in range(1, 6))},
    ),
    _Edition(
        folder="cifar-100-python",
        meta="meta",
        labels="fine_labels",
        names="fine_label_names",
        splits={"test": ("test",), "train": ("train",)},
    ),
)


def recognises(path: Path) -> bool:
    return bool(_found(path))


def read(path: Path, *, size: int | None = None, split: str | None = None) -> LabelledImages:
    """Read one split of the folder of batches, or of the one such folder in `path`.

    Raises InputError E203 if a batch holds Python objects, E201, E202 or E205 if it is missing,
    corrupt or too large, E220 if its contents are inconsistent.
    """
    (home, edition), *others = _found(path)
    if others:
        raise InputError(
            "E220",
            f"{printable(path)} holds both {edition.folder} and {others[0][1].folder}",
            hint="name one of the two folders",
        )
    there = tuple(name for name, files in edition.splits.items() if _is_pickle(home / files[0]))
    taken = choose_split(there, split, str(path)) or there[0]
    digests: dict[str, str] = {}
    names = _names(home / edition.meta, edition.names, digests)
    batches = [
        _batch(home / file, edition.labels, len(names), digests) for file in edition.splits[taken]
    ]
    return in_content_order(
        LabelledImages(
            images=np.stack([resized(image, size) for images, _ in batches for image in images]),
            labels=np.concatenate([labels for _, labels in batches]),
            class_names=names,
            sha256=files_sha256(digests),
            split=taken,
        )
    )


def _found(path: Path) -> list[tuple[Path, _Edition]]:
    """The folders of batches that `path` is or holds."""
    return [
        (home, edition)
        for edition in EDITIONS
        for home in (path, path / edition.folder)
        if any(_is_pickle(home / files[0]) for files in edition.splits.values())
    ]


def _is_pickle(file: Path) -> bool:
    """By its first byte: a class folder or a list of file names may be called "train" too."""
    if not os.path.isfile(file):  # unlike Path.is_file, never raises
        return False
    try:
        with file.open("rb") as stream:
            return stream.read(1) == b"\x80"
    except OSError:
        return True  # reading it will say why


def _content(file: Path, digests: dict[str, str]) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InputError(
                "E205",
                f"refused {printable(file)}: over {MAX_FILE_BYTES:,} bytes",
                hint="unpack the data set's archive again; no CIFAR file is that large",
            )
        data = file.read_bytes()
    except OSError as problem:
        raise InputError(
            "E201",
            f"cannot read {printable(file)}",
            why=printable(problem.strerror or problem),
            hint="unpack the data set's archive again: this file belongs to it",
        ) from problem
    digests[file.name] = hashlib.sha256(data).hexdigest()
    return read_pickled(data, file)


def _bad(file: Path, why: str) -> InputError:
    return InputError(
        "E220",
        f"cannot use {printable(file)}: {why}",
        hint="unpack the data set's archive again, or give images and labels as an .npz",
    )


def _names(file: Path, key: str, digests: dict[str, str]) -> tuple[str, ...]:
    names = _content(file, digests).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise _bad(file, f"`{key}` is not a list of names")
    if not 0 < len(names) <= MAX_CLASSES:
        raise _bad(file, f"`{key}` has {len(names):,} names")
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in names)


def _batch(
    file: Path, key: str, classes: int, digests: dict[str, str]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 32, 32, 3) and labels (n,) of one file, which stores each image as a row, channels
    first.
    """
    content = _content(file, digests)
    rows, labels = content.get("data"), content.get(key)
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 3 * SIDE * SIDE:
        raise _bad(file, f"`data` is not n rows of {3 * SIDE * SIDE} bytes")
    if not isinstance(labels, list) or len(labels) != len(rows) or not labels:
        raise _bad(file, f"`{key}` is not one number for each of {len(rows):,} images")
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise _bad(file, f"`{key}` are not whole numbers from 0 to {classes - 1}")
    images = rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return images, np.asarray(labels, dtype=np.int64)
