"""Auxiliary images from another distribution, under the class names of the clients' images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlu_cli.datasets import LabelledImages, read_images
from rlu_cli.errors import InputError, printable
from rlu_cli.experiments.images import Source
from rlu_cli.simulator.files import write_whole

ORIGIN, SHIFTED = "origin", "imagenet"  # how a CINIC-10 file marks images that are not CIFAR-10's


def shifted_auxiliary(source: Source, classes: Sequence[str], file: Path) -> Path:
    """Write the images as an .npz with the clients' class names.

    classes  in the order of the output layer; images without class names are assumed to follow it
    Raises InputError E221 when the class names differ, and the errors of reading the images.
    """
    data = _of_shifted_origin(source.path)
    names = tuple(classes) if _is_numbered(data, classes) else data.class_names
    if set(names) != set(classes):
        raise InputError(
            "E221",
            f"{printable(source.path)} has other classes than the clients' images",
            facts=[("wanted", printable(", ".join(classes)))],
            hint="use the class names of the clients' images, or remove it from --data",
        )
    position = np.asarray([tuple(classes).index(name) for name in names])
    buffer = io.BytesIO()
    labels = position[data.labels]
    np.savez(buffer, images=data.images, labels=labels, class_names=np.asarray(classes))
    write_whole(file, buffer.getbuffer())
    return file


def _is_numbered(data: LabelledImages, classes: Sequence[str]) -> bool:
    """Whether the class names are numbers, as for images without class names."""
    return data.class_names == tuple(str(n) for n in range(len(classes)))


def _of_shifted_origin(path: Path) -> LabelledImages:
    """All images of a source, or only those of the shifted origin if the source marks it."""
    whole = read_images(path)  # refuses what is broken or would unpack to far too much
    keep = _marked(path)
    if keep is None:
        return whole
    with np.load(path, allow_pickle=False) as archive:
        images, labels = archive["images"][keep], archive["labels"][keep]
    return replace(whole, images=images, labels=labels.astype(np.int64))


def _marked(path: Path) -> NDArray[np.bool_] | None:
    """Mask (n,) of the images of the shifted origin; None if the source does not mark it."""
    if path.suffix != ".npz":
        return None
    with np.load(path, allow_pickle=False) as archive:
        if ORIGIN not in archive.files:
            return None
        return np.asarray(archive[ORIGIN] == SHIFTED)
