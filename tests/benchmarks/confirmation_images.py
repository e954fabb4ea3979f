"""Images of the confirmation set: the clients' pool, and what the server holds.

The pool is 6,000 images of the training split (600, 60 or 30 a class), less exact copies of test
images. The server's images are drawn from the test split. "Another origin" is CINIC-10's ImageNet
part for CIFAR-10; for the others it is test images, softened by a 3x3 binomial filter and
recoloured (each image by its own gain of each channel and its own gamma). TINY200 is resized to 32
pixels.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlu_cli.datasets.labelled import resized
from rlu_cli.simulator.pool import content_hashes, folder_names

POOL, SIDE = 6000, 32
TESTED = 2  # test images a class in a pool's file, which the simulator asks for


class Source:
    """One archive: its images by index, labels, and which belong to a split."""

    def __init__(self, file: Path) -> None:
        with np.load(file, allow_pickle=False) as archive:
            self.arrays: dict[str, NDArray[Any]] = {n: archive[n] for n in archive.files}
        self.labels = self.arrays["labels"].astype(np.int64)
        self.names = folder_names([str(name) for name in self.arrays["class_names"]])
        self.train = self.arrays["split"] == "train"

    def images(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n, 32, 32, 3) uint8."""
        if "images" in self.arrays:
            return np.asarray(self.arrays["images"][chosen], dtype=np.uint8)
        return np.stack([self._decoded(int(index)) for index in chosen])

    def _decoded(self, index: int) -> NDArray[np.uint8]:
        start, end = self.arrays["offsets"][index : index + 2]
        with Image.open(io.BytesIO(self.arrays["jpeg"][start:end].tobytes())) as image:
            return np.asarray(resized(np.asarray(image.convert("RGB")), SIDE))

    def draw(
        self, among: NDArray[np.bool_], per_class: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Indices of at most `per_class` images of each class."""
        of = (np.flatnonzero(among & (self.labels == c)) for c in range(len(self.names)))
        return np.concatenate([rng.permutation(own)[:per_class] for own in of])


@lru_cache(maxsize=1)
def source(file: Path) -> Source:
    """The archive, kept until another is read."""
    return Source(file)


def pool(data: Path, name: str, seed: int, out: Path) -> Path:
    """Write the clients' images, and a few test images for the simulator; the file."""
    file = out / f"{name}-{seed}-pool.npz"
    if file.exists():
        return file
    own = source(data / f"{name}.npz")
    rng = np.random.default_rng((seed, 11))
    train = own.draw(own.train, POOL // len(own.names), rng)
    images = own.images(train)
    held = set(content_hashes(own.images(np.flatnonzero(~own.train))))
    keep = np.array([digest not in held for digest in content_hashes(images)])
    test = own.draw(~own.train, TESTED, rng)
    labels = np.concatenate([own.labels[train[keep]], own.labels[test]])
    split = np.array(["train"] * int(keep.sum()) + ["test"] * len(test))
    _save(file, np.concatenate([images[keep], own.images(test)]), labels, own.names, split=split)
    return file


def auxiliary(data: Path, name: str, seed: int, level: str, out: Path) -> Path:
    """Write the server's images at a level of `IMAGES`; the file."""
    file = out / f"{name}-{seed}-{level.replace(' ', '-')}.npz"
    if file.exists():
        return file
    own = source(data / f"{name}.npz")
    rng = np.random.default_rng((seed, 13))
    other = level == "other origin"
    if other and name == "CIFAR10":
        shifted = Source(data / "CINIC10S.npz")
        assert shifted.names == own.names
        chosen = shifted.draw(shifted.arrays["origin"] == "imagenet", 100, rng)
        images, labels = shifted.images(chosen), shifted.labels[chosen]
    else:
        chosen = own.draw(~own.train, 100 if other else int(level), rng)
        images, labels = own.images(chosen), own.labels[chosen]
        images = _shifted(images, rng) if other else images
    _save(file, images, labels, own.names)
    return file


def _shifted(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Softened and recoloured: (n, H, W, 3) → the same shape."""
    values = images / 255.0
    for axis in (1, 2):
        padded = np.pad(values, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
        first, last = (np.take(padded, range(k, k + SIDE), axis=axis) for k in (0, 2))
        values = (first + 2 * values + last) / 4
    gains = rng.uniform(0.7, 1.3, (len(images), 1, 1, 3))
    gamma = rng.uniform(0.7, 1.4, (len(images), 1, 1, 1))
    changed: NDArray[np.uint8] = np.rint(np.clip(gains * values**gamma, 0, 1) * 255).astype(
        np.uint8
    )
    return changed


def _save(
    file: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    names: tuple[str, ...],
    **more: NDArray[Any],
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, images=images, labels=labels, class_names=np.array(names), **more)
    partial.rename(file)
