"""SVHN's cropped digits as published: `train_32x32.mat`, `test_32x32.mat`, MATLAB 5 files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlu_cli.datasets.labelled import (
    LabelledImages,
    choose_split,
    files_sha256,
    in_content_order,
    resized,
)
from rlu_cli.datasets.matlab import is_matlab, read_arrays
from rlu_cli.errors import InputError, printable
from rlu_cli.hashing import file_sha256

FILES = {"test": "test_32x32.mat", "train": "train_32x32.mat"}
SIDE = 32
DIGITS = 10


def recognises(path: Path) -> bool:
    return is_matlab(path) or bool(_splits(path))


def read(path: Path, *, size: int | None = None, split: str | None = None) -> LabelledImages:
    """Read `X` (32, 32, 3, n) uint8 and `y` (n, 1), in which 10 is the digit 0.

    path  one file, read whole, or a folder with one or both of them
    Raises InputError E220 with the reason when the variables differ from this, E202 when the file
    is corrupt, E204 or E205 when it is, or unpacks to, far more than SVHN.
    """
    file, taken = _file(path, split)
    images, labels = _images_and_digits(file)
    digest = file_sha256(file)
    return in_content_order(
        LabelledImages(
            images=np.stack([resized(image, size) for image in images]),
            labels=labels,
            class_names=tuple(str(digit) for digit in range(DIGITS)),
            sha256=files_sha256({file.name: digest}) if path.is_dir() else digest,
            split=taken,
        )
    )


def _file(path: Path, wanted: str | None) -> tuple[Path, str | None]:
    """The file to read and the split it is."""
    if path.is_dir():
        there = _splits(path)
        taken = choose_split(there, wanted, str(path)) or there[0]
        return path / FILES[taken], taken
    named = tuple(split for split, name in FILES.items() if name == path.name)
    return path, None if wanted is None else choose_split(named, wanted, str(path))


def _splits(path: Path) -> tuple[str, ...]:
    return tuple(split for split, name in FILES.items() if is_matlab(path / name))


def _bad(file: Path, why: str) -> InputError:
    return InputError(
        "E220",
        f"cannot use {printable(file)}: {why}",
        hint="needed: SVHN's cropped digits, `X` (32×32×3×n, uint8) and `y` (n labels from 1 to "
        "10), or images and labels as an .npz",
    )


def _images_and_digits(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 32, 32, 3) and digits (n,)."""
    arrays = read_arrays(file, ("X", "y"))
    if len(arrays) != 2:
        raise _bad(file, "it lacks `X` or `y`, or one is no array of real numbers")
    images, labels = arrays["X"], arrays["y"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (SIDE, SIDE, 3):
        raise _bad(file, f"`X` has shape {images.shape} and type {images.dtype}")
    if labels.size != images.shape[3] or not labels.size:
        raise _bad(file, f"`y` has shape {labels.shape} for {images.shape[3]} images")
    if not np.isin(labels, np.arange(1, DIGITS + 1)).all():
        raise _bad(file, f"`y` has labels that are not whole numbers from 1 to {DIGITS}")
    pixels = images.astype(np.uint8, copy=False).transpose(3, 0, 1, 2)
    return pixels, labels.reshape(-1).astype(np.int64) % DIGITS
