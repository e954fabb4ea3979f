"""Labelled images on disk: one layout, one file; each maps a path to `LabelledImages`.

A layout is recognised by what is there, not by its suffix: the first entry of `LAYOUTS` that
recognises the path reads it.
"""

from __future__ import annotations

import os
from pathlib import Path

from rlu_cli.datasets import folder, npz
from rlu_cli.datasets.labelled import LabelledImages, Layout, take
from rlu_cli.errors import InputError, printable

LAYOUTS: dict[str, Layout] = {"folder": folder, "npz": npz}


def read_images(path: Path, *, size: int | None = None, split: str | None = None) -> LabelledImages:
    """Read labelled images from a folder per class or an `.npz`.

    size   edge length to resize to; needed where the images differ in size
    split  the split to take; None takes the first of test, val, all that is there

    Raises InputError E220 (not there, empty, not understood), E201 (unreadable), E101 (no such
    split).
    """
    if not os.path.exists(path):  # unlike Path.exists, never raises
        raise InputError(
            "E220",
            f"no labelled images at {printable(path)}: there is no such file or folder",
            hint="give a folder with one sub-folder of images per class, or an .npz",
        )
    for layout in LAYOUTS.values():
        if layout.recognises(path):
            return layout.read(path, size=size, split=split)
    raise InputError(
        "E220",
        f"{printable(path)} is neither a folder of images per class nor an .npz",
        hint="give a folder with one sub-folder of images per class, or an .npz with `images` "
        "and `labels`",
    )


__all__ = ["LAYOUTS", "LabelledImages", "read_images", "take"]
