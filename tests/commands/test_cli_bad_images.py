"""Auxiliary images that cannot be used, or only in part."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import Command, Refused, Words, World
from PIL import Image


@pytest.fixture
def aux(world: World, tmp_path: Path) -> Path:
    """A copy of the images, to be spoilt."""
    return Path(shutil.copytree(world.aux, tmp_path / "images"))


@pytest.fixture
def words(world: World, aux: Path) -> list[str]:
    return ["attack", *world.pair, "--aux", str(aux), *world.told]


def test_no_such_folder(words: Words, aux: Path, refused: Refused) -> None:
    shutil.rmtree(aux)
    refused("E220", 3, words, aux, "no such file or folder", "sub-folder")


def test_an_empty_folder(words: Words, aux: Path, refused: Refused) -> None:
    shutil.rmtree(aux)
    aux.mkdir()
    refused("E220", 3, words, aux, "no class folders", "sub-folder")


def test_images_beside_each_other_without_classes(
    words: Words, aux: Path, refused: Refused
) -> None:
    for file in list(aux.rglob("*.png")):
        file.rename(aux / f"{file.parent.name}-{file.name}")
    for folder in list(aux.iterdir()):
        if folder.is_dir():
            folder.rmdir()
    refused("E220", 3, words, aux, "no class folders")


def test_a_file_that_is_no_archive(words: Words, aux: Path, refused: Refused) -> None:
    text = aux / "notes.txt"
    text.write_text("no images here")
    words[words.index("--aux") + 1] = str(text)
    refused("E220", 3, words, text, ".npz")


def test_a_missing_class_folder_is_named(words: Words, aux: Path, refused: Refused) -> None:
    shutil.rmtree(aux / "4")
    error = refused("E221", 3, words, aux, "9 classes", "has 10")
    (missing,) = [line for line in error.splitlines() if line.startswith("  missing:")]
    assert missing.removeprefix("  missing:").strip() == "4"


def test_a_class_too_many(words: Words, aux: Path, refused: Refused) -> None:
    shutil.copytree(aux / "4", aux / "10")
    refused("E221", 3, words, aux, "11 classes", "has 10")


@pytest.mark.parametrize("left", [0, 1])
def test_fewer_than_two_images_in_a_class(
    left: int, words: Words, aux: Path, refused: Refused
) -> None:
    for file in sorted((aux / "4").iterdir())[left:]:
        file.unlink()
    refused("E222", 3, words, aux, "fewer than 2", f"4 ({left})", "add images")


def test_a_class_left_with_one_readable_image(words: Words, aux: Path, refused: Refused) -> None:
    for file in sorted((aux / "4").iterdir())[1:]:
        file.write_bytes(b"torn")
    refused("E222", 3, words, "4 (1)", "3 files could not be read")


def test_no_readable_image_at_all(words: Words, aux: Path, refused: Refused) -> None:
    for file in aux.rglob("*.png"):
        file.write_bytes(b"torn")
    refused("E220", 3, words, aux, "40 files could not be read", "PNG")


@pytest.fixture
def torn(aux: Path) -> Path:
    """Two unreadable files more than there were images."""
    whole = (aux / "3" / "00000.png").read_bytes()
    (aux / "3" / "torn.png").write_bytes(whole[:300])
    (aux / "5" / "Thumbs.db").write_text("not an image")
    return aux


def test_unreadable_images_are_skipped_and_counted(
    words: Words, torn: Path, world: World, rlu: Command
) -> None:
    told = rlu(*words, "--format", "json")
    assert told.counts == world.counts
    said = [line for line in told.report["assumptions"] if "unreadable" in line]
    assert len(said) == 1
    assert "2" in said[0]
    assert "torn.png" in said[0]
    table = rlu(*words)
    assert said[0] in table.out


def test_strict_stops_at_an_unreadable_image(words: Words, torn: Path, refused: Refused) -> None:
    refused("E223", 3, [*words, "--strict"], torn, "2 files", "3/torn.png", "--strict")


def test_strict_is_content_with_whole_images(words: Words, world: World, rlu: Command) -> None:
    assert rlu(*words, "--strict", "--format", "json").counts == world.counts


def test_odd_palettes_say_nothing_on_stderr(words: Words, aux: Path, rlu: Command) -> None:
    with Image.open(aux / "3" / "00000.png") as image:
        image.convert("P").save(aux / "3" / "palette.png", transparency=bytes(range(100)))
    result = rlu(*words, "--strict")
    assert (result.status, result.err) == (0, "")


def test_names_of_files_are_shown_safely(words: Words, aux: Path, rlu: Command) -> None:
    (aux / "3" / "\x1b[31mred\u202e.png").write_text("not an image")
    result = rlu(*words, "--format", "json")
    assert result.status == 0
    assert "\x1b" not in result.out + result.err
    assert "\u202e" not in result.out + result.err
    assert "\\x1b[31mred" in " ".join(result.report["assumptions"])


def test_a_size_the_model_cannot_take(told: list[str], refused: Refused) -> None:
    refused("E215", 3, [*told, "--image-size", "20"], "3×20×20", "--image-size")


def test_a_split_that_is_not_there(told: list[str], refused: Refused) -> None:
    refused("E101", 2, [*told, "--aux-split", "holdout"], "holdout")


# Archives


def _archive(path: Path, **changed: object) -> Path:
    content: dict[str, Any] = {
        "images": np.zeros((20, 32, 32, 3), np.uint8),
        "labels": np.repeat(np.arange(10), 2),
    }
    arrays = {**content, **changed}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"images": None}, "images"),
        ({"labels": None}, "labels"),
        ({"labels": np.arange(19)}, "labels"),
        ({"labels": np.repeat(np.arange(10), 2) - 1}, "negative"),
        ({"labels": np.repeat(np.arange(10.0), 2)}, "float64"),
        ({"images": np.zeros((20, 32, 32, 4), np.uint8)}, "(20, 32, 32, 4)"),
        ({"images": np.full((20, 32, 32, 3), 255.0)}, "outside 0…1"),
        ({"images": np.full((20, 32, 32, 3), np.nan)}, "outside 0…1"),
        ({"class_names": np.array(["a", "b"])}, "2 class names"),
        ({"class_names": np.array([object()] * 10)}, "Object arrays"),
        ({"split": np.array(["test"])}, "split"),
    ],
)
def test_arrays_that_do_not_fit(
    changed: dict[str, Any], named: str, world: World, work: Path, refused: Refused
) -> None:
    path = _archive(work / "aux.npz", **changed)
    words = ["attack", *world.pair, "--aux", str(path), *world.told]
    refused("E220", 3, words, path, named, "needed:")


def test_classes_of_an_archive_that_do_not_fit(world: World, work: Path, refused: Refused) -> None:
    path = _archive(work / "aux.npz", labels=np.repeat(np.arange(5), 4))
    words = ["attack", *world.pair, "--aux", str(path), *world.told]
    refused("E221", 3, words, path, "5 classes", "has 10")


def test_a_truncated_archive(world: World, work: Path, refused: Refused) -> None:
    path = _archive(work / "aux.npz")
    path.write_bytes(path.read_bytes()[:10_000])
    refused("E220", 3, ["attack", *world.pair, "--aux", str(path), *world.told], path)
