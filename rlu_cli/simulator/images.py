"""Images for a simulation: drawn digits, a folder per class, or an .npz → Pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlu_cli.datasets import LabelledImages, read_images
from rlu_cli.errors import InputError, UsageError, printable
from rlu_cli.simulator.digits import CLASSES, SIZE, draw_digits
from rlu_cli.simulator.pool import Images, Pool, folder_names

DIGITS = "digits"
TRAIN = "train"
TRAIN_PER_CLASS = 400
TEST_PER_CLASS = 200


def load_pool(source: str, seed: int, size: int | None = None) -> Pool:
    """Read or draw the images a simulation starts from.

    source  "digits", a folder, or an .npz file; only "digits" depends on the seed
    size    edge length to resize to
    Raises InputError E201, E220, E240 and what the layout's reader raises; UsageError E106.
    """
    if source == DIGITS:
        if size not in (None, SIZE):
            raise UsageError(
                "E106",
                f"the drawn digits are {SIZE}x{SIZE}, not {size}x{size}",
                hint="leave out --image-size, or give --images",
            )
        return drawn_pool(TRAIN_PER_CLASS, TEST_PER_CLASS, seed)
    path = Path(source)
    if not path.exists():
        raise InputError(
            "E201",
            f"no images at {printable(source)}",
            hint="--images takes a folder with one sub-folder a class, an .npz file, or digits",
        )
    return _read_pool(path, size)


def drawn_pool(train_per_class: int, test_per_class: int, seed: int) -> Pool:
    """Drawn digits, with the given numbers of each class in the two splits."""
    per_class = train_per_class + test_per_class
    images, labels = draw_digits(per_class, seed)
    train = np.arange(len(labels)) % per_class < train_per_class
    return Pool(
        *(images[train], labels[train]),
        *(images[~train], labels[~train]),
        class_names=tuple(str(digit) for digit in range(CLASSES)),
        name=DIGITS,
    )


def _read_pool(path: Path, size: int | None) -> Pool:
    """The held-out split and the training split of one source, or its only split."""
    held = read_images(path, size=size)
    if held.split in (None, TRAIN):
        train, test = held, None
    else:
        train, test = read_images(path, size=size, split=TRAIN), held
        _require_same_classes(path, train, test)
    images = _as_rgb(path, train)
    return Pool(
        *(images, train.labels),
        *(images[:0] if test is None else _as_rgb(path, test),),
        *(train.labels[:0] if test is None else test.labels,),
        class_names=folder_names(train.class_names),
        name=path.name,
        notes=_skipped(train, test),
    )


def _as_rgb(path: Path, data: LabelledImages) -> Images:
    """(n, H, H, 1 or 3), uint8 or floating in 0…1 → (n, H, H, 3) uint8."""
    images: NDArray[np.generic] = data.images
    if images.shape[1] != images.shape[2]:
        raise InputError(
            "E240",
            f"images in {printable(path)} are {images.shape[2]}x{images.shape[1]}, not square",
            hint="give square images, or --image-size to resize them",
        )
    if images.dtype != np.uint8:
        images = np.rint(np.asarray(images, dtype=np.float64) * 255).astype(np.uint8)
    pixels = np.asarray(images, dtype=np.uint8)
    return np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels


def _require_same_classes(path: Path, train: LabelledImages, test: LabelledImages) -> None:
    odd = set(train.class_names) ^ set(test.class_names)
    if odd:
        raise InputError(
            "E240",
            f"the splits of {printable(path)} have different classes",
            facts=[("only in one", printable(", ".join(sorted(odd))))],
            hint="give every split one folder for each class",
        )


def _skipped(train: LabelledImages, test: LabelledImages | None) -> tuple[str, ...]:
    skipped = [*train.skipped, *(test.skipped if test is not None else ())]
    return (f"skipped {len(skipped)} unreadable file(s): {skipped[0]}",) if skipped else ()
