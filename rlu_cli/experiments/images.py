"""Images for each data set of the paper; stand-ins are always labelled as such."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlu_cli.simulator.files import write_whole
from rlu_cli.simulator.images import drawn_pool

DRAWN = "drawn digits"


@dataclass(frozen=True)
class Source:
    """Images that were found for a data set.

    dataset   the paper's name
    shown     name of what is read
    slug      the same in a folder's name
    path      where it is
    stand_in  whether it is another data set than the paper's
    """

    dataset: str
    shown: str
    slug: str
    path: Path
    stand_in: bool = False

    @property
    def label(self) -> str:
        """Name in tables, which marks a stand-in."""
        return f"{self.shown} (stand-in for {self.dataset})" if self.stand_in else self.shown


@dataclass(frozen=True)
class _Kept:
    """A data set that may be in the user's folder, under one of `names`."""

    shown: str
    names: tuple[str, ...]
    stand_in: bool = False

    @property
    def slug(self) -> str:
        return self.names[0].lower().removesuffix(".npz")


_CINIC = _Kept("CINIC-10, images of ImageNet", ("CINIC10S.npz",), stand_in=True)
KEPT: Mapping[str, tuple[_Kept, ...]] = {
    "SVHN": (
        _Kept("SVHN", ("SVHN", "SVHN.npz", "svhn")),
        _Kept("MNIST32", ("MNIST32", "MNIST32.npz"), stand_in=True),
    ),
    "CIFAR10": (_Kept("CIFAR10", ("CIFAR10", "CIFAR10.npz", "cifar-10-batches-py")),),
    "CIFAR100": (_Kept("CIFAR100", ("CIFAR100", "CIFAR100.npz", "cifar-100-python")),),
    "Tiny": (
        _Kept("Tiny-ImageNet", ("tiny-imagenet-200",)),
        _Kept("TINY200, a sub-sample of Tiny-ImageNet", ("TINY200", "TINY200.npz")),
    ),
    "CIFAR-10.1": (_Kept("CIFAR-10.1", ("CIFAR-10.1.npz", "CIFAR-10.1", "CIFAR10.1.npz")), _CINIC),
    "CIFAR-10.2": (_Kept("CIFAR-10.2", ("CIFAR-10.2.npz", "CIFAR-10.2", "CIFAR10.2.npz")), _CINIC),
}


def find_images(dataset: str, data: Path | None) -> Source | None:
    """The first of a data set and its stand-ins that exists in `data`; None if none does."""
    if data is None:
        return None
    for kept in KEPT[dataset]:
        for name in kept.names:
            if os.path.exists(data / name):
                return Source(dataset, kept.shown, kept.slug, data / name, kept.stand_in)
    return None


def wanted(dataset: str) -> str:
    """The data sets that would do, in words."""
    return " nor ".join(kept.shown for kept in KEPT[dataset])


def drawn_images(dataset: str, file: Path, train: int, test: int) -> Source:
    """Drawn digits in place of a data set, written to `file` once.

    train, test  images of each class
    """
    if not file.exists():
        _write_drawn(file, train, test)
    return Source(dataset, DRAWN, "digits", file, stand_in=True)


def _write_drawn(file: Path, train: int, test: int) -> None:
    import io

    pool = drawn_pool(train, test, seed=0)
    sizes = (len(pool.train_labels), len(pool.test_labels))
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=np.concatenate([pool.train_images, pool.test_images]),
        labels=np.concatenate([pool.train_labels, pool.test_labels]),
        split=np.repeat(["train", "test"], sizes),
        class_names=np.asarray(pool.class_names),
    )
    write_whole(file, buffer.getbuffer())
