"""The images of a simulation, and their division between server and clients."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlu_cli.datasets.folder import class_order
from rlu_cli.errors import InputError, printable

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Labelled images of one source.

    train_images  (n, H, H, 3) uint8, for the clients
    train_labels  (n,) int64
    test_images   (t, H, H, 3) uint8; t = 0 for a source with a single split
    test_labels   (t,) int64
    class_names   N valid folder names whose sorted order is the class order
    name          name of the source
    notes         what the user should know: files skipped, …
    """

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    class_names: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()

    @property
    def image_size(self) -> int:
        return int(self.train_images.shape[1])

    @property
    def sha256(self) -> str:
        """Hash of every image, label and class name, independent of the file they came from."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        arrays: tuple[NDArray[Any], ...] = (
            *(self.train_images, self.train_labels),
            *(self.test_images, self.test_labels),
        )
        for array in arrays:
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Holding:
    """Images of clients and server; no image belongs to both.

    client_images, client_labels  (n, H, H, 3) uint8, (n,) int64: to be partitioned
    aux_images, aux_labels        (A, H, H, 3), (A,): the server's auxiliary images
    test_images, test_labels      (t, H, H, 3), (t,): images that accuracy is measured on
    """

    client_images: Images
    client_labels: Labels
    aux_images: Images
    aux_labels: Labels
    test_images: Images
    test_labels: Labels
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def content_hashes(images: Images) -> list[bytes]:
    """One hash of the pixels of each image: (n, H, W, 3) → n digests."""
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]


def set_apart(pool: Pool, per_class: int, seed: int) -> Holding:
    """Draw `per_class` auxiliary images of each class for the server; the rest trains clients.

    The auxiliary images come from the test split, or from the only split, before it is partitioned.
    A client image that is an exact copy of a test image is dropped.
    Raises InputError E240 when a class has too few images.
    """
    rng = np.random.default_rng([seed, 1])
    if len(pool.test_labels):
        chosen = _draw_per_class(pool.test_labels, len(pool.class_names), per_class, rng)
        test_images, test_labels = pool.test_images, pool.test_labels
        train_images, train_labels = pool.train_images, pool.train_labels
        aux_images, aux_labels = test_images[chosen], test_labels[chosen]
    else:
        chosen = _draw_per_class(pool.train_labels, len(pool.class_names), per_class, rng)
        aux_images, aux_labels = pool.train_images[chosen], pool.train_labels[chosen]
        test_images, test_labels = aux_images, aux_labels
        rest = np.setdiff1d(np.arange(len(pool.train_labels)), chosen)
        train_images, train_labels = pool.train_images[rest], pool.train_labels[rest]
    _require_two(aux_labels, pool)
    held = set(content_hashes(test_images))
    keep = np.array([digest not in held for digest in content_hashes(train_images)], dtype=bool)
    return Holding(
        *(train_images[keep], train_labels[keep]),
        *(aux_images, aux_labels),
        *(test_images, test_labels),
        class_names=pool.class_names,
        notes=_notes(aux_labels, pool, per_class, int((~keep).sum())),
    )


def _draw_per_class(
    labels: Labels, classes: int, per_class: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(classes)]
    return np.concatenate([np.sort(part) for part in chosen]).astype(np.int64)


def _require_two(aux_labels: Labels, pool: Pool) -> None:
    counts = np.bincount(aux_labels, minlength=len(pool.class_names))
    poor = [pool.class_names[c] for c in np.flatnonzero(counts < 2)]
    if poor:
        raise InputError(
            "E240",
            f"{printable(pool.name)}: fewer than two auxiliary images of {len(poor)} class(es)",
            hint="add test images of these classes, or raise --aux-per-class to at least 2",
            facts=[("classes", printable(", ".join(poor)))],
        )


def _notes(aux_labels: Labels, pool: Pool, per_class: int, dropped: int) -> tuple[str, ...]:
    notes = list(pool.notes)
    fewest = int(np.bincount(aux_labels, minlength=len(pool.class_names)).min())
    if fewest < per_class:
        notes.append(f"some classes have only {fewest} auxiliary images, not {per_class}")
    if dropped:
        notes.append(f"dropped {dropped} client image(s) that are exact copies of held-out ones")
    return tuple(notes)


def folder_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names as valid folder names whose sorted order is the given order.

    Path separators, control characters and the like become "_". If the names would collide or not
    sort into class order, each gets its class index as a prefix.
    """
    safe = [re.sub(r"[^\w ,()+&'.-]", "_", name)[:80].strip(" .") or "class" for name in names]
    unique = len({name.casefold() for name in safe}) == len(safe)
    if unique and class_order(safe) == tuple(safe):
        return tuple(safe)
    width = len(str(len(safe) - 1))
    return tuple(f"{index:0{width}d}_{name}" for index, name in enumerate(safe))
