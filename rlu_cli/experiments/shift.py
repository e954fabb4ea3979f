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

ORIGIN, SHIFTED = "origin", "imagenet"  # CINIC-10 marks the images that CIFAR-10 had already


def shifted_auxiliary(source: Source, classes: Sequence[str], file: Path) -> Path:
    """Write the images as an .npz whose classes are called as the clients' are.

    classes  in the order of the output layer; images without class names are taken to have it
    Raises InputError E221 when the classes are others, and what reading the images raises.
    """
    data = _of_shifted_origin(source.path)
    names = tuple(classes) if _is_numbered(data, classes) else data.class_names
    if set(names) != set(classes):
        raise InputError(
            "E221",
            f"{printable(source.path)} has other classes than the clients' images",
            facts=[("wanted", printable(", ".join(classes)))],
            hint="name its classes as the clients' images name them, or leave it out of --data",
        )
    position = np.asarray([tuple(classes).index(name) for name in names])
    buffer = io.BytesIO()
    labels = position[data.labels]
    np.savez(buffer, images=data.images, labels=labels, class_names=np.asarray(classes))
    write_whole(file, buffer.getbuffer())
    return file


def _is_numbered(data: LabelledImages, classes: Sequence[str]) -> bool:
    """Whether the classes have numbers for names, as images without names get."""
    return data.class_names == tuple(str(n) for n in range(len(classes)))


def _of_shifted_origin(path: Path) -> LabelledImages:
    """All images of a source, or those that come from elsewhere where it marks them."""
    whole = read_images(path)  # refuses what is broken or would unpack to far too much
    keep = _marked(path)
    if keep is None:
        return whole
    with np.load(path, allow_pickle=False) as archive:
        images, labels = archive["images"][keep], archive["labels"][keep]
    return replace(whole, images=images, labels=labels.astype(np.int64))


def _marked(path: Path) -> NDArray[np.bool_] | None:
    """Which images come from elsewhere; None where the source does not mark them."""
    if path.suffix != ".npz":
        return None
    with np.load(path, allow_pickle=False) as archive:
        if ORIGIN not in archive.files:
            return None
        return np.asarray(archive[ORIGIN] == SHIFTED)
