"""The drawn digits: enough of each, seeded, and told apart by what they show."""

from __future__ import annotations

import numpy as np

from rlu_cli.simulator.digits import CLASSES, draw_digits


def test_every_class_has_as_many_images_as_asked() -> None:
    images, labels = draw_digits(3, seed=5)
    assert images.shape == (30, 32, 32, 3)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [3] * CLASSES


def test_the_seed_fixes_every_pixel() -> None:
    first, again, other = (draw_digits(4, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_two_images_are_alike() -> None:
    images, _ = draw_digits(20, seed=0)
    assert len({image.tobytes() for image in images}) == len(images)


def test_the_class_can_be_told_from_the_image() -> None:
    """Nearest class mean of stroke strength, seen nowhere before, beats chance clearly."""
    images, labels = draw_digits(120, seed=0)
    grey = images.astype(np.float64).mean(axis=3).reshape(len(images), -1)
    shape = np.abs(grey - np.median(grey, axis=1, keepdims=True))
    seen = np.arange(len(labels)) % 2 == 0
    means = np.stack([shape[seen & (labels == c)].mean(axis=0) for c in range(CLASSES)])
    distance = ((shape[~seen, None] - means[None]) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == labels[~seen]).mean() > 2 / CLASSES
