"""An `.npz` of labelled images: what is read, and that nothing in it can run or blow up."""

from __future__ import annotations

import io
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import SIDE, pixels, write_npz
from numpy.typing import NDArray

from rlu_cli.datasets import npz, read_images
from rlu_cli.errors import InputError, UsageError
from rlu_cli.hashing import file_sha256


def _refusal(path: Path, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read_images(path, **options)
    assert str(path) in str(caught.value)
    return caught.value


def test_images_and_labels_belong_together_and_the_file_is_hashed(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "aux.npz")
    data = read_images(path)
    assert data.class_names == ("0", "1")
    assert data.sha256 == file_sha256(path)
    assert np.bincount(data.labels).tolist() == [3, 3]
    stored = pixels(0, 6, SIDE, SIDE, 3)
    own = {image.tobytes() for image in data.images[data.labels == 0]}
    assert own == {stored[i].tobytes() for i in (0, 2, 4)}


def test_it_is_known_by_its_content_not_its_name(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "aux.npz").rename(tmp_path / "images")
    assert len(read_images(path).images) == 6
    other = tmp_path / "text.npz"
    other.write_text("not an archive")
    assert "neither" in str(_refusal(other))
    assert _refusal(other).code == "E220"


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    images, labels = pixels(0, 6, SIDE, SIDE, 3), np.array([0, 1, 0, 1, 0, 1])
    plain = read_images(write_npz(tmp_path / "a.npz"))
    order = np.array([5, 0, 3, 1, 4, 2])
    mixed = read_images(write_npz(tmp_path / "b.npz", images=images[order], labels=labels[order]))
    assert np.array_equal(mixed.images, plain.images)
    assert np.array_equal(mixed.labels, plain.labels)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_zero_to_one_become_float32(tmp_path: Path, dtype: type) -> None:
    images: NDArray[Any] = (pixels(0, 6, SIDE, SIDE, 3) / 255).astype(dtype)
    data = read_images(write_npz(tmp_path / "aux.npz", images=images))
    assert data.images.dtype == np.float32
    assert sorted(data.images[:, 0, 0, 0]) == sorted(images[:, 0, 0, 0].astype(np.float32))
    smaller = read_images(tmp_path / "aux.npz", size=3)
    assert smaller.images.shape == (6, 3, 3, 3)
    assert smaller.images.dtype == np.float32
    assert 0 <= smaller.images.min() <= smaller.images.max() <= 1


def test_grey_images_need_no_channel_axis(tmp_path: Path) -> None:
    for shape in ((6, SIDE, SIDE), (6, SIDE, SIDE, 1)):
        path = write_npz(tmp_path / f"{len(shape)}.npz", images=pixels(0, *shape))
        assert read_images(path).images.shape == (6, SIDE, SIDE, 1)


def test_names_may_outnumber_the_labels_and_may_be_bytes(tmp_path: Path) -> None:
    for names in (np.array(["a", "ß", "c"]), np.array(["a", "ß", "c"]).astype(object)):
        stored = np.array([n.encode() for n in names]) if names.dtype == object else names
        data = read_images(write_npz(tmp_path / "aux.npz", class_names=stored))
        assert data.class_names == ("a", "ß", "c")


@pytest.mark.parametrize(
    ("column", "wanted", "taken", "kept"),
    [
        (["train", "train", "test", "test", "val", "val"], None, "test", 2),
        (["train", "train", "train", "val", "val", "val"], None, "val", 3),
        (["train", "train", "train", "x", "x", "x"], None, None, 6),
        (["train", "train", "test", "test", "test", "test"], "train", "train", 2),
        ([b"train", b"train", b"test", b"test", b"test", b"test"], None, "test", 4),
    ],
)
def test_the_split_taken(
    tmp_path: Path, column: list[Any], wanted: str | None, taken: str | None, kept: int
) -> None:
    data = read_images(write_npz(tmp_path / "aux.npz", split=np.array(column)), split=wanted)
    assert data.split == taken
    assert len(data.images) == len(data.labels) == kept


def test_a_split_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    for column in (None, np.array(["train"] * 6)):
        with pytest.raises(UsageError, match="no split 'test'") as caught:
            read_images(write_npz(tmp_path / "aux.npz", split=column), split="test")
        assert caught.value.code == "E101"


IMAGES = pixels(0, 6, SIDE, SIDE, 3)
MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "no images": ({"images": None}, "no `images`"),
    "no labels": ({"labels": None}, "no `labels`"),
    "two axes": ({"images": IMAGES[:, 0, :, 0]}, "has shape"),
    "four channels": ({"images": pixels(0, 6, SIDE, SIDE, 4)}, "has shape"),
    "channels first": ({"images": pixels(0, 6, 3, SIDE, SIDE)}, "has shape"),
    "none at all": ({"images": IMAGES[:0], "labels": np.zeros(0, int)}, "has shape"),
    "whole numbers": ({"images": IMAGES.astype(int)}, "has type int64"),
    "0…255 as floats": ({"images": IMAGES.astype(float)}, "outside 0…1"),
    "negative": ({"images": IMAGES / -255}, "outside 0…1"),
    "not finite": ({"images": np.full((6, SIDE, SIDE), np.nan)}, "outside 0…1"),
    "too few labels": ({"labels": np.zeros(5, int)}, "`labels` has shape"),
    "one-hot labels": ({"labels": np.zeros((6, 2), int)}, "`labels` has shape"),
    "float labels": ({"labels": np.zeros(6)}, "type float64"),
    "named labels": ({"labels": np.array(list("abcdef"))}, "type <U1"),
    "negative label": ({"labels": np.array([0, 1, -1, 0, 1, 0])}, "a label is negative"),
    "huge label": ({"labels": np.array([0, 1, 10**12, 0, 1, 0])}, "a label is 1,000,000,000,000"),
    "label over int64": ({"labels": np.array([2**63] * 6, np.uint64)}, "a label is"),
    "too few names": ({"class_names": np.array(["a"])}, "1 class names for labels up to 1"),
    "one name": ({"class_names": np.array("ab")}, "`class_names` has shape ()"),
    "table of names": ({"class_names": np.array([["a"], ["b"]])}, "`class_names` has shape"),
    "short split": ({"split": np.array(["test"] * 5)}, "`split` has shape"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_arrays_that_do_not_fit_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    arrays, reason = MISFITS[name]
    refused = _refusal(write_npz(tmp_path / "aux.npz", **arrays))
    assert refused.code == "E220"
    assert reason in str(refused)
    assert "`images`" in refused.hint


class _Bomb:
    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (_explode, ())


def _explode() -> None:
    _Bomb.ran = True


@pytest.mark.parametrize("column", ["images", "labels", "class_names", "split"])
def test_pickled_arrays_are_refused_and_never_run(tmp_path: Path, column: str) -> None:
    path = write_npz(tmp_path / "aux.npz", **{column: np.array([_Bomb()] * 6, dtype=object)})
    assert _refusal(path).code == "E220"
    assert not _Bomb.ran
    pickle.loads(pickle.dumps(_Bomb()))  # it would have
    assert _Bomb.ran
    _Bomb.ran = False


def test_an_archive_that_unpacks_to_far_more_is_refused_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(
        path, images=np.zeros((6, 1000, 1000, 3), np.uint8), labels=np.zeros(6, int)
    )

    def load(*_: object, **__: object) -> None:
        pytest.fail("unpacked")

    monkeypatch.setattr(np, "load", load)
    refused = _refusal(path)
    assert refused.code == "E204"
    assert "18,00" in str(refused)


def test_an_archive_over_the_size_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz(tmp_path / "aux.npz")
    monkeypatch.setattr(npz, "MAX_BYTES", 500)
    assert _refusal(path).code == "E204"


def test_compressed_archives_of_ordinary_images_are_read(tmp_path: Path) -> None:
    images = np.tile(pixels(0, 30, 30, 3) // 16, (400, 1, 1, 1)).astype(np.uint8)
    path = tmp_path / "aux.npz"
    np.savez_compressed(path, images=images, labels=np.arange(400) % 2)
    assert path.stat().st_size < images.nbytes
    assert len(read_images(path).images) == 400


def _header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


MEMBERS: dict[str, dict[str, bytes]] = {
    "a member that is no array": {"images": b"hello", "labels": b"x"},
    "a header that tells of more": {"images.npy": _header((10**15,)) + b"abc", "labels.npy": b"x"},
    "a header beyond any size": {"images.npy": _header((2**62, 2**62)), "labels.npy": b"x"},
    "an empty array file": {"images.npy": b"", "labels.npy": b""},
    "no member": {},
}


@pytest.mark.parametrize("name", MEMBERS)
def test_archives_that_numpy_never_wrote_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "odd.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in MEMBERS[name].items():
            archive.writestr(member, content)
    assert _refusal(path).code == "E220"


@given(
    compressed=st.booleans(),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=3),
)
@settings(deadline=None, max_examples=250)
def test_damaged_archives_are_read_or_refused_and_never_crash(
    compressed: bool, damage: list[tuple[float, int]]
) -> None:
    stream = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    names, split = np.array(["a", "b"]), np.array(["test"] * 6)
    save(stream, images=IMAGES, labels=np.arange(6) % 2, class_names=names, split=split)
    content = bytearray(stream.getvalue())
    for place, change in damage:
        content[int(place * (len(content) - 1))] ^= change
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aux.npz"
        path.write_bytes(content)
        try:
            read_images(path)
        except InputError as refused:
            assert refused.code in ("E220", "E204")  # noqa: PT017 - most damage is harmless
        except UsageError as refused:
            assert refused.code == "E101"  # noqa: PT017
