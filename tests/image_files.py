"""Labelled images written to disk for the readers' tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 6


def pixels(seed: int, *shape: int) -> NDArray[np.uint8]:
    """Random pixels (SIDE, SIDE, 3), or of another shape."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, shape or (SIDE, SIDE, 3), dtype=np.uint8)


def write_classes(
    root: Path, classes: Mapping[str, Sequence[NDArray[Any]]], suffix: str = "png"
) -> Path:
    """root/CLASS/00.png, … for every class."""
    for name, images in classes.items():
        folder = root / name
        folder.mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{index:02d}.{suffix}")
    return root


def two_classes(root: Path, each: int = 3) -> Path:
    return write_classes(
        root,
        {"cat": [pixels(n) for n in range(each)], "dog": [pixels(100 + n) for n in range(each)]},
    )


def write_npz(path: Path, **arrays: Any) -> Path:
    """Six images of two classes, unless `arrays` says otherwise; None leaves a column out."""
    columns = {
        "images": pixels(0, 6, SIDE, SIDE, 3),
        "labels": np.array([0, 1, 0, 1, 0, 1]),
        **arrays,
    }
    np.savez(path, **{name: column for name, column in columns.items() if column is not None})
    return path
