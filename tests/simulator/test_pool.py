"""Who holds which images, and what a source must be to be simulated with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlu_cli.datasets.folder import class_order
from rlu_cli.errors import InputError, RluError
from rlu_cli.simulator.images import drawn_pool, load_pool
from rlu_cli.simulator.pool import Pool, content_hashes, folder_names, set_apart


def _pool(test_per_class: int, *, copies: int = 0) -> Pool:
    """Drawn digits; the first `copies` client images are exact copies of test images."""
    pool = drawn_pool(12, max(test_per_class, 1), seed=0)
    images = pool.train_images.copy()
    images[:copies] = pool.test_images[:copies]
    test = slice(None) if test_per_class else slice(0)
    return Pool(
        *(images, pool.train_labels, pool.test_images[test], pool.test_labels[test]),
        class_names=pool.class_names,
        name="drawn",
    )


@pytest.mark.parametrize("test_per_class", [6, 0])
def test_no_auxiliary_image_is_also_a_clients(test_per_class: int) -> None:
    holding = set_apart(_pool(test_per_class), 4, seed=0)
    server = set(content_hashes(holding.aux_images)) | set(content_hashes(holding.test_images))
    assert server.isdisjoint(content_hashes(holding.client_images))
    assert np.bincount(holding.aux_labels).tolist() == [4] * 10
    assert len(holding.client_images) == (120 if test_per_class else 80)


def test_exact_copies_of_held_out_images_are_dropped_from_the_clients() -> None:
    holding = set_apart(_pool(6, copies=5), 4, seed=0)
    assert set(content_hashes(holding.test_images)).isdisjoint(
        content_hashes(holding.client_images)
    )
    assert len(holding.client_images) == len(holding.client_labels) == 115
    assert any("5 client image(s)" in note for note in holding.notes)


def test_fewer_test_images_than_asked_is_a_note() -> None:
    holding = set_apart(_pool(3), 100, seed=0)
    assert np.bincount(holding.aux_labels).tolist() == [3] * 10
    assert any("only 3" in note for note in holding.notes)


def test_one_auxiliary_image_of_a_class_is_an_error() -> None:
    with pytest.raises(InputError, match="fewer than two") as caught:
        set_apart(_pool(1), 100, seed=0)
    assert caught.value.code == "E240"


@pytest.mark.parametrize(
    "names",
    [
        ("0", "1", "2", "10"),
        ("airplane", "bird", "cat"),
        ("zebra", "ant"),
        ("../../etc", "a/b", "a_b"),
        ("A", "a"),
        ("", ".", ".."),
        ("x\x1b[31m", "y\u202e", "z\n"),
        tuple(f"{'long' * 40}{i}" for i in range(12)),
    ],
)
def test_class_names_become_folders_in_class_order(names: tuple[str, ...]) -> None:
    folders = folder_names(names)
    assert class_order(folders) == folders
    assert len({name.casefold() for name in folders}) == len(names)
    for folder in folders:
        assert folder.isprintable()
        assert folder not in ("", ".", "..")
        assert "/" not in folder


def _write_npz(path: Path, **change: Any) -> Path:
    """Two classes of 8 x 8 images, the last quarter a test split."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "images": rng.integers(0, 256, (16, 8, 8, 3)).astype(np.uint8),
        "labels": np.arange(16) % 2,
        "class_names": np.array(["left", "right"]),
        "split": np.array(["train"] * 12 + ["test"] * 4),
    }
    arrays.update(change)
    given = {name: value for name, value in arrays.items() if value is not None}
    np.savez(path, allow_pickle=True, **given)
    return path


def test_an_npz_keeps_its_splits(tmp_path: Path) -> None:
    pool = load_pool(str(_write_npz(tmp_path / "d.npz")), seed=0)
    assert (len(pool.train_labels), len(pool.test_labels)) == (12, 4)
    assert pool.class_names == ("left", "right")
    assert pool.train_images.shape == (12, 8, 8, 3)


@pytest.mark.parametrize("shape", [(16, 8, 8), (16, 8, 8, 3)])
def test_floating_images_become_the_same_pixels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    whole = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    exact = load_pool(str(_write_npz(tmp_path / "a.npz", images=whole)), seed=0)
    scaled = (whole / 255).astype(np.float32)
    floating = load_pool(str(_write_npz(tmp_path / "b.npz", images=scaled)), seed=0)
    order = np.argsort(content_hashes(exact.train_images))
    again = np.argsort(content_hashes(floating.train_images))
    assert np.array_equal(exact.train_images[order], floating.train_images[again])
    assert np.array_equal(exact.train_labels[order], floating.train_labels[again])


def test_an_npz_without_splits_has_no_test_images(tmp_path: Path) -> None:
    pool = load_pool(str(_write_npz(tmp_path / "d.npz", split=None)), seed=0)
    assert (len(pool.train_labels), len(pool.test_labels)) == (16, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"images": None},
        {"labels": np.arange(3)},
        {"labels": np.arange(16) - 1},
        {"images": np.zeros((16, 8, 9, 3), dtype=np.uint8)},
        {"images": np.full((16, 8, 8, 3), 7.0)},
        {"class_names": np.array(["one"])},
        {"split": np.array(["test"] * 16)},
        {"images": np.array([{"code": 1}] * 16, dtype=object)},
    ],
)
def test_an_unfit_npz_is_an_error_that_names_it(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(RluError, match=r"d\.npz"):
        load_pool(str(_write_npz(tmp_path / "d.npz", **change)), seed=0)


def test_folders_with_and_without_splits(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    for index, image in enumerate(images):
        for root in ("flat", "split/train", "split/val"):
            folder = tmp_path / root / ("ant", "bee")[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{index}.png")
    flat = load_pool(str(tmp_path / "flat"), seed=0)
    split = load_pool(str(tmp_path / "split"), seed=0)
    assert flat.class_names == split.class_names == ("ant", "bee")
    assert (len(flat.train_labels), len(flat.test_labels)) == (12, 0)
    assert (len(split.train_labels), len(split.test_labels)) == (12, 12)
    assert set(content_hashes(flat.train_images)) == set(content_hashes(images))


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images at") as caught:
        load_pool(str(tmp_path / "nowhere"), seed=0)
    assert caught.value.code == "E201"
