"""Which images stand for which data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlu_cli.datasets import read_images
from rlu_cli.errors import InputError
from rlu_cli.experiments.images import KEPT, Source, find_images, wanted
from rlu_cli.experiments.shift import shifted_auxiliary


def test_the_original_comes_before_its_stand_in(tmp_path: Path) -> None:
    (tmp_path / "MNIST32.npz").touch()
    found = find_images("SVHN", tmp_path)
    assert found is not None
    assert (found.label, found.slug) == ("MNIST32 (stand-in for SVHN)", "mnist32")
    (tmp_path / "SVHN").mkdir()
    found = find_images("SVHN", tmp_path)
    assert found is not None
    assert (found.label, found.slug, found.stand_in) == ("SVHN", "svhn", False)


def test_a_sub_sample_is_no_tiny_imagenet(tmp_path: Path) -> None:
    (tmp_path / "TINY200").mkdir()
    found = find_images("Tiny", tmp_path)
    assert found is not None
    assert found.slug == "tiny200"
    assert found.label != "Tiny-ImageNet"


@pytest.mark.parametrize("dataset", KEPT)
def test_nothing_is_found_in_an_empty_folder(tmp_path: Path, dataset: str) -> None:
    assert find_images(dataset, tmp_path) is None
    assert find_images(dataset, None) is None
    assert all(kept.shown in wanted(dataset) for kept in KEPT[dataset])


@pytest.mark.parametrize("dataset", KEPT)
def test_no_stand_in_has_the_originals_name(dataset: str) -> None:
    original, *others = KEPT[dataset]
    assert not original.stand_in
    assert original.shown not in {kept.shown for kept in others}
    assert original.slug not in {kept.slug for kept in others}


def _archive(tmp_path: Path, **arrays: object) -> Source:
    file = tmp_path / "CINIC10S.npz"
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1).repeat(3, 3)
    np.savez(file, images=images, labels=np.array([0, 0, 0, 1, 1, 1]), **arrays)  # type: ignore[arg-type]
    return Source("CIFAR-10.1", "CINIC-10", "cinic10s", file, stand_in=True)


def test_only_images_of_the_shifted_origin_are_kept(tmp_path: Path) -> None:
    origin = np.array(["cifar10", "imagenet", "imagenet"] * 2)
    source = _archive(tmp_path, origin=origin, class_names=np.array(["cat", "dog"]))
    written = read_images(shifted_auxiliary(source, ("dog", "cat"), tmp_path / "out.npz"))
    assert written.class_names == ("dog", "cat")
    kept = {
        (written.class_names[label], int(image[0, 0, 0]))
        for image, label in zip(written.images, written.labels, strict=True)
    }
    assert kept == {("cat", 1), ("cat", 2), ("dog", 4), ("dog", 5)}


def test_images_without_class_names_have_the_clients_order(tmp_path: Path) -> None:
    source = _archive(tmp_path)
    written = read_images(shifted_auxiliary(source, ("cat", "dog"), tmp_path / "out.npz"))
    assert written.class_names == ("cat", "dog")
    assert sorted(written.labels.tolist()) == [0, 0, 0, 1, 1, 1]


def test_other_classes_are_refused(tmp_path: Path) -> None:
    source = _archive(tmp_path, class_names=np.array(["cat", "cow"]))
    with pytest.raises(InputError) as refused:
        shifted_auxiliary(source, ("cat", "dog"), tmp_path / "out.npz")
    assert refused.value.code == "E221"
