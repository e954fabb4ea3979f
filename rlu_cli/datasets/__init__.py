"""Readers of labelled images, one file per layout; each maps a path to `LabelledImages`.

A layout is recognised by content, not by suffix: the first entry of `LAYOUTS` that recognises the
path reads it. Published data sets come before the folder per class, which accepts any folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from rlu_cli.datasets import cifar, folder, npz, svhn, tiny_imagenet
from rlu_cli.datasets.labelled import LabelledImages, Layout, take
from rlu_cli.errors import InputError, printable

LAYOUTS: dict[str, Layout] = {
    "npz": npz,
    "cifar": cifar,
    "svhn": svhn,
    "tiny-imagenet": tiny_imagenet,
    "folder": folder,
}
_WANTED = (
    "give a folder with one sub-folder of images per class, an .npz with `images` and `labels`, "
    "or CIFAR, SVHN (.mat) or Tiny-ImageNet as published"
)


def read_images(path: Path, *, size: int | None = None, split: str | None = None) -> LabelledImages:
    """Read labelled images from a folder per class, an `.npz`, or a data set as published.

    size   edge length to resize to; needed where the images differ in size
    split  the split to read; None reads test, else val, else all images

    Raises InputError E220 (missing, empty, unknown layout) or E201 (unreadable), UsageError E101
    (no such split).
    """
    if not os.path.exists(path):  # unlike Path.exists, never raises
        raise InputError(
            "E220",
            f"no labelled images at {printable(path)}: there is no such file or folder",
            hint=_WANTED,
        )
    return _layout(path).read(path, size=size, split=split)


def _layout(path: Path) -> Layout:
    """The layout that recognises the path; one folder may not hold two published data sets."""
    found = [name for name, layout in LAYOUTS.items() if layout.recognises(path)]
    published = [name for name in found if name != "folder"]
    if len(published) > 1:
        raise InputError(
            "E220",
            f"{printable(path)} holds more than one data set: {', '.join(published)}",
            hint="name the folder or the file of one of them",
        )
    if not found:
        raise InputError(
            "E220",
            f"{printable(path)} is neither a folder nor a file of labelled images",
            hint=_WANTED,
        )
    return LAYOUTS[found[0]]


__all__ = ["LAYOUTS", "LabelledImages", "read_images", "take"]
