"""Auxiliary images against the output layer: order, numbers, channels, and every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import SIDE, pixels, two_classes, write_classes, write_npz

from rlu_cli.case.auxiliary import is_noise, load_auxiliary, noise_auxiliary
from rlu_cli.datasets import read_images
from rlu_cli.errors import InputError


def _refusal(path: Path, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        load_auxiliary(path, **options)
    assert str(path) in str(caught.value)
    return caught.value


def test_pixels_become_floats_from_zero_to_one(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux")
    aux, stored = load_auxiliary(root, classes=2), read_images(root)
    assert aux.images.dtype == torch.float32
    assert aux.images.shape == (6, 3, SIDE, SIDE)
    back = (aux.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert np.array_equal(back.numpy(), stored.images)
    assert aux.labels.tolist() == stored.labels.tolist()
    assert aux.labels.dtype == torch.int64
    assert aux.sha256 == stored.sha256
    assert aux.source == str(root)
    assert aux.notes == ()
    assert not is_noise(aux)


def test_channels_are_those_the_model_takes(tmp_path: Path) -> None:
    grey = write_classes(tmp_path / "grey", {"a": [pixels(n, SIDE, SIDE) for n in range(2)]})
    three = load_auxiliary(grey, channels=3).images
    assert torch.equal(three, three[:, :1].expand_as(three))
    colour = load_auxiliary(two_classes(tmp_path / "colour"), channels=1).images
    assert colour.shape == (6, 1, SIDE, SIDE)
    full = load_auxiliary(tmp_path / "colour", channels=3).images
    assert (colour <= full.amax(1, keepdim=True) + 1e-6).all()
    assert (colour >= full.amin(1, keepdim=True) - 1e-6).all()


def test_the_order_that_the_output_layer_has_wins(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux", each=2)
    own = load_auxiliary(root, classes=2)
    told = load_auxiliary(root, classes=2, class_names=("dog", "cat"))
    assert own.class_names == ("cat", "dog")
    assert told.class_names == ("dog", "cat")
    assert torch.equal(told.labels, 1 - own.labels)
    assert torch.equal(told.images, own.images)


def test_classes_that_the_model_does_not_have_are_named(tmp_path: Path) -> None:
    refused = _refusal(two_classes(tmp_path / "aux"), class_names=("dog", "bird"))
    assert refused.code == "E221"
    assert "cat" in refused.message
    assert ("missing", "bird") in refused.facts


def test_a_class_of_the_model_without_a_folder_has_too_few_images(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux")
    refused = _refusal(root, classes=3, class_names=("cat", "dog", "bird"))
    assert refused.code == "E222"
    assert "bird (0)" in refused.message


@pytest.mark.parametrize("classes", [1, 3, 10])
def test_one_class_per_output_or_none(tmp_path: Path, classes: int) -> None:
    refused = _refusal(two_classes(tmp_path / "aux"), classes=classes)
    assert refused.code == "E221"
    assert f"has 2 classes, the output layer has {classes}" in refused.message
    assert ("classes", "cat; dog") in refused.facts


def test_the_gap_between_numbered_folders_is_named(tmp_path: Path) -> None:
    images = {str(n): [pixels(n), pixels(n + 50)] for n in (0, 1, 3, 5)}
    refused = _refusal(write_classes(tmp_path / "aux", images), classes=6)
    assert ("missing", "2; 4") in refused.facts


@pytest.mark.parametrize("left", [0, 1])
def test_fewer_than_two_images_are_too_few(tmp_path: Path, left: int) -> None:
    root = two_classes(tmp_path / "aux")
    for file in sorted((root / "dog").iterdir())[left:]:
        file.unlink()
    refused = _refusal(root, classes=2)
    assert refused.code == "E222"
    assert f"dog ({left})" in refused.message
    assert "cat" not in refused.message.replace(str(root), "")


def test_unreadable_images_are_noted_and_refused_when_strict_or_when_too_few_are_left(
    tmp_path: Path,
) -> None:
    root = two_classes(tmp_path / "aux")
    (root / "dog" / "00.png").write_bytes(b"broken")
    aux = load_auxiliary(root, classes=2)
    assert len(aux.images) == 5
    assert aux.notes[0].startswith("skipped 1 unreadable files: dog/00.png")
    strict = _refusal(root, classes=2, strict=True)
    assert strict.code == "E223"
    assert "dog/00.png" in str(strict)
    (root / "dog" / "01.png").write_bytes(b"broken")
    few = _refusal(root, classes=2)
    assert few.code == "E222"
    assert "2 files could not be read" in few.message


def test_the_split_taken_is_noted(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "aux.npz", split=np.array(["test"] * 4 + ["train"] * 2))
    assert load_auxiliary(path, classes=2).notes == ("auxiliary images: split 'test'",)


@given(per_class=st.integers(2, 9), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_a_few_images_a_class_are_drawn_by_seed_whatever_the_files_are_called(
    tmp_path_factory: pytest.TempPathFactory, per_class: int, seed: int
) -> None:
    root = tmp_path_factory.mktemp("aux")
    two_classes(root / "a", each=7)
    two_classes(root / "b", each=7)
    for number, file in enumerate(sorted((root / "b").rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"z{number:02d}.png"))
    first, second = (
        load_auxiliary(root / name, classes=2, per_class=per_class, seed=seed) for name in "ab"
    )
    assert torch.equal(first.images, second.images)
    assert torch.bincount(first.labels).tolist() == [min(per_class, 7)] * 2
    assert len({image.numpy().tobytes() for image in first.images}) == len(first.images)


def test_another_seed_draws_other_images(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux", each=20)
    first, second = (
        load_auxiliary(root, classes=2, per_class=5, seed=seed).images for seed in (0, 1)
    )
    assert not torch.equal(first, second)


def test_noise_is_the_same_for_every_class_and_fixed_by_its_seed() -> None:
    noise = noise_auxiliary(("a", "b"), channels=1, size=8, images=5, seed=3)
    assert is_noise(noise)
    assert noise.images.shape == (5, 1, 8, 8)
    assert noise.classes == 2
    assert 0 <= float(noise.images.min()) <= float(noise.images.max()) <= 1
    again = noise_auxiliary(("a", "b"), channels=1, size=8, images=5, seed=3)
    assert torch.equal(again.images, noise.images)
    other = noise_auxiliary(("a", "b"), channels=1, size=8, images=5, seed=4)
    assert not torch.equal(other.images, noise.images)


def test_names_from_the_folder_are_shown_escaped(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "aux", {"a\x1b[2J": [pixels(0)], "b": [pixels(1)]})
    for options in ({"classes": 5}, {"classes": 2}, {"class_names": ("x", "y")}):
        assert "\x1b" not in str(_refusal(root, **options))
