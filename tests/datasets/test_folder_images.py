"""A folder per class: what is read, in which order, and what is refused or skipped."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import SIDE, pixels, two_classes, write_classes
from PIL import Image

from rlu_cli.datasets import folder, read_images
from rlu_cli.datasets.folder import class_order
from rlu_cli.errors import InputError, UsageError


def test_every_image_of_every_class_comes_back_pixel_for_pixel(tmp_path: Path) -> None:
    data = read_images(two_classes(tmp_path / "aux"))
    assert data.class_names == ("cat", "dog")
    assert data.images.shape == (6, SIDE, SIDE, 3)
    assert data.images.dtype == np.uint8
    assert data.skipped == ()
    assert data.split is None
    for label, seeds in ((0, range(3)), (1, range(100, 103))):
        own = {image.tobytes() for image in data.images[data.labels == label]}
        assert own == {pixels(seed).tobytes() for seed in seeds}


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "gif", "webp", "jpeg"])
def test_allowed_formats_are_read_whatever_the_file_is_called(tmp_path: Path, suffix: str) -> None:
    flat = np.full((SIDE, SIDE, 3), 128, dtype=np.uint8)
    root = write_classes(tmp_path / "aux", {"a": [flat, flat]}, suffix)
    for file in (root / "a").iterdir():
        file.rename(file.with_suffix(".data"))
    data = read_images(root)
    assert data.images.shape == (2, SIDE, SIDE, 3)
    assert np.abs(data.images.astype(int) - 128).max() <= 4


@pytest.mark.parametrize("suffix", ["tiff", "ico", "eps"])
def test_other_formats_are_skipped_and_named(tmp_path: Path, suffix: str) -> None:
    root = two_classes(tmp_path / "aux")
    Image.fromarray(pixels(7, 32, 32, 3)).save(root / "cat" / f"odd.{suffix}")
    data = read_images(root)
    assert len(data.images) == 6
    assert [line for line in data.skipped if f"cat/odd.{suffix}" in line] == list(data.skipped)
    assert len(data.skipped) == 1


_NAMES = st.lists(
    st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8), unique=True, min_size=1
)


@given(_NAMES)
def test_class_order_does_not_depend_on_how_the_folder_is_listed(names: list[str]) -> None:
    order = class_order(names)
    assert sorted(order) == sorted(names)
    assert class_order(reversed(names)) == order


@given(st.lists(st.integers(0, 10**17), unique=True, min_size=1))
def test_numbered_classes_come_in_numeric_order(numbers: list[int]) -> None:
    assert class_order(map(str, numbers)) == tuple(map(str, sorted(numbers)))


def test_names_that_are_not_all_numbers_come_in_text_order() -> None:
    assert class_order(["10", "9", "b"]) == ("10", "9", "b")
    assert class_order(["01", "1", "0"]) == ("0", "01", "1")
    assert class_order([]) == ()


def test_names_and_times_of_files_change_neither_images_nor_their_order(tmp_path: Path) -> None:
    plain = read_images(two_classes(tmp_path / "a", each=8))
    renamed = two_classes(tmp_path / "b", each=8)
    for number, file in enumerate(sorted(renamed.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"{(number * 7) % 17:03d}.png"))
    again = read_images(renamed)
    assert np.array_equal(again.images, plain.images)
    assert np.array_equal(again.labels, plain.labels)


def test_the_hash_is_over_the_sorted_paths_and_file_hashes(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux")
    rows = sorted(
        f"{file.relative_to(root).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n"
        for file in root.rglob("*.png")
    )
    digest = read_images(root).sha256
    assert digest == hashlib.sha256("".join(rows).encode()).hexdigest()
    (root / "cat" / "00.png").rename(root / "cat" / "other.png")
    assert read_images(root).sha256 != digest


def test_images_below_a_class_folder_belong_to_it_and_hidden_files_do_not_count(
    tmp_path: Path,
) -> None:
    root = two_classes(tmp_path / "aux")
    deeper = root / "dog" / "more"
    deeper.mkdir()
    (root / "dog" / "00.png").rename(deeper / "00.png")
    (root / "dog" / ".DS_Store").write_bytes(b"x")
    (root / "readme.txt").write_text("not a class")
    for name in (".git", "__MACOSX"):
        write_classes(root, {name: [pixels(1)]})
    data = read_images(root)
    assert data.class_names == ("cat", "dog")
    assert np.bincount(data.labels).tolist() == [3, 3]
    assert data.skipped == ()


def test_an_empty_class_folder_is_still_a_class(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux")
    (root / "bird").mkdir()
    data = read_images(root)
    assert data.class_names == ("bird", "cat", "dog")
    assert np.bincount(data.labels, minlength=3).tolist() == [0, 3, 3]


@pytest.mark.parametrize(
    ("folders", "wanted", "taken"),
    [
        (("train", "test", "val"), None, "test"),
        (("train", "val"), None, "val"),
        (("train", "valid"), None, "valid"),
        (("train",), None, "train"),
        (("train", "test"), "train", "train"),
    ],
)
def test_the_split_taken(
    tmp_path: Path, folders: tuple[str, ...], wanted: str | None, taken: str
) -> None:
    for number, name in enumerate(folders):
        write_classes(tmp_path / "aux" / name, {"a": [pixels(number)], "b": [pixels(50 + number)]})
    data = read_images(tmp_path / "aux", split=wanted)
    assert data.split == taken
    assert data.class_names == ("a", "b")
    assert np.array_equal(data.images[0], pixels(folders.index(taken)))


@pytest.mark.parametrize("splits", [True, False])
def test_a_split_that_is_not_there_is_a_usage_error(tmp_path: Path, splits: bool) -> None:
    root = two_classes(tmp_path / "aux" / "train" if splits else tmp_path / "aux")
    with pytest.raises(UsageError, match="no split 'holdout'") as caught:
        read_images(root.parent if splits else root, split="holdout")
    assert caught.value.code == "E101"
    assert ("train" if splits else "none") in caught.value.hint


def test_class_folders_called_like_a_split_are_classes_beside_others(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "aux", {"train": [pixels(0)], "plane": [pixels(1)]})
    assert read_images(root).class_names == ("plane", "train")


@pytest.mark.parametrize("name", ["missing", "x" * 300, "a\0b"])
def test_a_path_that_is_not_there_is_said_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file or folder") as caught:
        read_images(tmp_path / name)
    assert caught.value.code == "E220"


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    Image.fromarray(pixels(0)).save(tmp_path / "loose.png")
    with pytest.raises(InputError, match="no class folders") as caught:
        read_images(tmp_path)
    assert caught.value.code == "E220"


def test_class_folders_without_a_readable_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"no readable image.*1 files could not") as caught:
        read_images(tmp_path)
    assert caught.value.code == "E220"
    assert "PNG" in caught.value.hint


def test_a_folder_that_may_not_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match="cannot read the folder") as caught:
        read_images(tmp_path)
    assert caught.value.code == "E201"
    assert caught.value.why == "Permission denied"


def test_a_broken_image_is_skipped_and_the_rest_is_read(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux")
    whole = (root / "cat" / "00.png").read_bytes()
    (root / "cat" / "00.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "01.png").write_bytes(b"")
    data = read_images(root)
    assert len(data.images) == 4
    assert sorted(line.split(":")[0] for line in data.skipped) == ["cat/00.png", "dog/01.png"]


@given(data=st.data(), kind=st.sampled_from(["png", "jpeg", "bmp", "gif", "webp", "ppm"]))
@settings(deadline=None, max_examples=150)
def test_damaged_files_are_read_or_skipped_and_never_crash(data: st.DataObject, kind: str) -> None:
    import io
    import tempfile

    stream = io.BytesIO()
    Image.fromarray(pixels(3, 12, 12, 3)).save(stream, kind)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "a").mkdir()
        (root / "a" / "x").write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            found = read_images(root, size=4)
        except InputError as refusal:
            assert refusal.code == "E220"  # noqa: PT017 - some damage is harmless
        else:
            assert found.images.shape == (1, 4, 4, 3) or found.images.shape == (1, 4, 4, 1)


def test_too_many_pixels_are_skipped_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = two_classes(tmp_path / "aux")
    Image.new("L", (40, 40)).save(root / "cat" / "large.png")
    monkeypatch.setattr(folder, "MAX_PIXELS", 1000)

    def decode(*_: object) -> None:
        pytest.fail("decoded")

    small = read_images(root)
    assert len(small.images) == 6
    assert "over 1,000 pixels" in small.skipped[0]
    # Pillow's own limit is another sentence for the same thing.
    for limit in (700, 1500):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "over 1,000 pixels" in read_images(root).skipped[0]
    (root / "dog").rename(tmp_path / "dog")
    for file in (root / "cat").glob("0*.png"):
        file.unlink()
    monkeypatch.setattr(Image.Image, "convert", decode)
    with pytest.raises(InputError, match="no readable image"):
        read_images(root)


def test_a_file_over_the_size_limit_is_skipped_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = two_classes(tmp_path / "aux")
    with (root / "cat" / "large.png").open("wb") as stream:
        stream.truncate(50_000)
    monkeypatch.setattr(folder, "MAX_FILE_BYTES", 10_000)
    assert read_images(root).skipped == ("cat/large.png: over 10,000 bytes",)


def test_images_that_differ_in_size_need_to_be_told_one(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "aux", {"a": [pixels(0, 6, 6, 3)], "b": [pixels(1, 8, 4, 3)]})
    with pytest.raises(InputError, match=r"differ in size \(6×6, 4×8\)") as caught:
        read_images(root)
    assert caught.value.code == "E220"
    assert "--image-size" in caught.value.hint
    assert read_images(root, size=5).images.shape == (2, 5, 5, 3)


def test_grey_images_stay_grey_alone_and_are_repeated_beside_colour(tmp_path: Path) -> None:
    grey = pixels(0, SIDE, SIDE)
    alone = read_images(write_classes(tmp_path / "grey", {"a": [grey]}))
    assert np.array_equal(alone.images, grey[None, :, :, None])
    mixed = read_images(write_classes(tmp_path / "mixed", {"a": [grey], "b": [pixels(1)]}))
    assert np.array_equal(mixed.images[0], np.repeat(grey[:, :, None], 3, axis=2))
    assert np.array_equal(mixed.images[1], pixels(1))


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    """Pillow's conversion clips everything above 255 to white."""
    deep = np.arange(36, dtype=np.uint16).reshape(6, 6) * 1800
    for kind in ("png", "ppm"):
        data = read_images(write_classes(tmp_path / kind, {"a": [deep]}, kind))
        assert np.array_equal(data.images[0, :, :, 0], deep >> 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_grey_or_colour(tmp_path: Path, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    (tmp_path / "a").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        white = Image.new("RGB", (SIDE, SIDE), "white").convert(mode)
    white.save(tmp_path / "a" / "x", kind)
    data = read_images(tmp_path)
    assert data.images.shape == (1, SIDE, SIDE, 1 if mode in ("1", "L", "LA") else 3)
    assert data.images.min() >= 250


def test_a_transparent_palette_is_read_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    image = Image.fromarray(pixels(0)).quantize(8)
    image.save(tmp_path / "a" / "x.png", transparency=bytes(range(8)))
    assert read_images(tmp_path).skipped == ()


def test_resizing_keeps_what_it_should(tmp_path: Path) -> None:
    flat = np.full((9, 5, 3), (10, 100, 200), dtype=np.uint8)
    root = write_classes(tmp_path / "aux", {"a": [flat, pixels(0, 4, 4, 3)]})
    data = read_images(root, size=4)
    assert data.images.shape == (2, 4, 4, 3)
    found = {image.tobytes() for image in data.images}
    assert pixels(0, 4, 4, 3).tobytes() in found  # already that size: untouched
    assert np.full((4, 4, 3), (10, 100, 200), dtype=np.uint8).tobytes() in found


def test_links_are_followed_once_and_dead_or_circular_ones_do_no_harm(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux")
    elsewhere = write_classes(tmp_path / "elsewhere", {"bird": [pixels(7), pixels(8)]})
    (root / "bird").symlink_to(elsewhere / "bird", target_is_directory=True)
    (root / "cat" / "again").symlink_to(root / "cat", target_is_directory=True)
    (root / "cat" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (root / "loop").symlink_to(root / "loop")
    data = read_images(root)
    assert data.class_names == ("bird", "cat", "dog")
    assert np.bincount(data.labels).tolist() == [2, 3, 3]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_a_class_folder_is_not_waited_for(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux")
    os.mkfifo(root / "cat" / "pipe.png")
    assert len(read_images(root).images) == 6


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_not_text_are_read_and_shown_escaped(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux")
    odd = os.fsdecode(os.fsencode(str(root / "cat")) + b"/\xff\x1b[2J.png")
    Image.fromarray(pixels(60)).save(tmp_path / "x.png")
    Path(odd).write_bytes((tmp_path / "x.png").read_bytes())
    Path(odd + "broken").write_bytes(b"x")
    data = read_images(root)
    assert len(data.images) == 7
    assert "\x1b" not in data.skipped[0]
    data.skipped[0].encode()


def test_images_of_far_more_pixels_than_bytes_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is small enough by itself: 400 of them in a few megabytes would take 60 GB."""
    monkeypatch.setattr(folder, "MAX_PIXELS", 40_000)
    root = two_classes(tmp_path / "aux")
    for number in range(5):
        Image.new("L", (190, 190)).save(root / "cat" / f"z{number}.png")
    data = read_images(root, size=8)
    assert len(data.images) + len(data.skipped) == 11
    assert len(data.skipped) >= 3
    assert all("more pixels than bytes" in line for line in data.skipped)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_among_the_images_is_not_waited_for(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "aux")
    os.mkfifo(root / "cat" / "pipe.png")
    assert len(read_images(root).images) == 6
