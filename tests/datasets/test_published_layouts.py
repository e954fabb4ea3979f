"""CIFAR, SVHN and Tiny-ImageNet as published, in miniature: read, split, hashed, and refused."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import pixels, two_classes
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from rlu_cli.datasets import LAYOUTS, cifar, matlab, plain_pickle, read_images
from rlu_cli.datasets.plain_pickle import read_pickled
from rlu_cli.errors import InputError, UsageError
from rlu_cli.hashing import file_sha256
from rlu_cli.simulator.images import load_pool

Pickler = Callable[[Mapping[bytes, Any]], bytes]
WNIDS = ("n00000003", "n00000001", "n00000002")


def _python2(value: Any) -> bytes:
    """What Python 2 writes under protocol 2, for the kinds of value in CIFAR's files."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    match value:
        case bytes():
            short = len(value) < 256
            return (b"U" + bytes([len(value)]) if short else b"T" + _int(len(value))) + value
        case int():
            return b"J" + _int(value)
        case list():
            return b"](" + b"".join(map(_opcodes, value)) + b"e"
        case dict():
            items = b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items())
            return b"}(" + items + b"u"
    return _array_opcodes(value)


def _array_opcodes(array: NDArray[np.uint8]) -> bytes:
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    dtype = (
        b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN"
        + 2 * b"J\xff\xff\xff\xff"
        + b"K\x00tb"
    )
    fortran = not array.flags.c_contiguous
    shape = b"(" + b"".join(b"J" + _int(n) for n in array.shape) + b"t"
    content = b"T" + _int(array.nbytes) + array.tobytes(order="A")
    return made + b"(K\x01" + shape + dtype + (b"\x88" if fortran else b"\x89") + content + b"tb"


def _int(number: int) -> bytes:
    return struct.pack("<i", number)


WRITERS: dict[str, Pickler] = {
    "python 2": _python2,
    "python 3, protocol 2": lambda value: pickle.dumps(value, protocol=2),
    "python 3, protocol 4": lambda value: pickle.dumps(value, protocol=4),
}


def _rows(seed: int, count: int) -> NDArray[np.uint8]:
    return pixels(seed, count, 3072)


def _cifar10(root: Path, write: Pickler = _python2, **change: Any) -> Path:
    """Four images a batch, of two classes; `change` is written over each batch."""
    home = root / "cifar-10-batches-py"
    home.mkdir(parents=True)
    (home / "batches.meta").write_bytes(write({b"label_names": [b"cat", b"dog"]}))
    for seed, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        batch = {b"data": _rows(seed, 4), b"labels": [0, 1, 1, 0], b"filenames": [b"a.png"] * 4}
        batch.update({key.encode(): value for key, value in change.items()})
        (home / name).write_bytes(write(batch))
    return home


def _cifar100(root: Path) -> Path:
    home = root / "cifar-100-python"
    home.mkdir(parents=True)
    names = {b"fine_label_names": [b"apple", b"bear"], b"coarse_label_names": [b"x"]}
    (home / "meta").write_bytes(_python2(names))
    for seed, name in enumerate(("train", "test")):
        batch = {b"data": _rows(seed, 4), b"fine_labels": [1, 0, 1, 0], b"coarse_labels": [0] * 4}
        (home / name).write_bytes(_python2(batch))
    return home


def _svhn(path: Path, count: int = 20, *, compressed: bool = True, **change: Any) -> Path:
    """Labels 1 to 10 in turn, unless `change` says otherwise; None leaves a variable out."""
    columns = {
        "X": pixels(count, 32, 32, 3, count),
        "y": (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None],
        **change,
    }
    given_ = {name: column for name, column in columns.items() if column is not None}
    savemat(path, given_, do_compression=compressed)
    return path


def _tiny(root: Path, each: int = 3) -> Path:
    home = root / "tiny-imagenet-200"
    (home / "val" / "images").mkdir(parents=True)
    (home / "test" / "images").mkdir(parents=True)
    (home / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (home / "words.txt").write_text("n00000001\tcrane\nn00000002\tcrane\n")
    lines = []
    for index, wnid in enumerate(WNIDS):
        (home / "train" / wnid / "images").mkdir(parents=True)
        (home / "train" / wnid / f"{wnid}_boxes.txt").write_text("x.JPEG\t0\t0\t1\t1\n")
        for n in range(each):
            image = Image.fromarray(pixels(10 * index + n, 8, 8, 3))
            image.save(home / "train" / wnid / "images" / f"{wnid}_{n}.JPEG")
            image.transpose(Image.Transpose.ROTATE_90).save(
                home / "val" / "images" / f"val_{each * index + n}.JPEG"
            )
            lines.append(f"val_{each * index + n}.JPEG\t{wnid}\t0\t0\t7\t7\n")
    (home / "val" / "val_annotations.txt").write_text("".join(lines))
    return home


def _refusal(path: Path, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read_images(path, **options)
    return caught.value


@pytest.mark.parametrize("writer", WRITERS)
def test_cifar_comes_as_its_rows_say(tmp_path: Path, writer: str) -> None:
    data = read_images(_cifar10(tmp_path, WRITERS[writer]))
    expected = _rows(5, 4).reshape(4, 3, 32, 32)
    assert data.split == "test"
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1]
    for label, held in ((0, [0, 3]), (1, [1, 2])):
        found = {image.tobytes() for image in data.images[data.labels == label]}
        assert found == {expected[n].transpose(1, 2, 0).tobytes() for n in held}


def test_the_batches_written_here_are_what_python_reads() -> None:
    batch = {b"data": np.asfortranarray(_rows(0, 2)), b"labels": [1, 300], b"x": b"long" * 100}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy, of the module's old name
        theirs = pickle.loads(_python2(batch), encoding="bytes")
    ours = read_pickled(_python2(batch), Path("batch"))
    assert np.array_equal(ours["data"], theirs[b"data"])
    assert (ours["labels"], ours["x"]) == (theirs[b"labels"], theirs[b"x"])


@pytest.mark.parametrize("write", [_cifar10, _cifar100, _tiny])
def test_a_parent_reads_like_the_folder_itself(tmp_path: Path, write: Any) -> None:
    home = write(tmp_path / "data")
    inside, outside = read_images(home), read_images(tmp_path / "data")
    assert np.array_equal(inside.images, outside.images)
    assert inside.sha256 == outside.sha256


@pytest.mark.parametrize(
    ("write", "train", "held", "names"),
    [
        (_cifar10, 20, 4, ("cat", "dog")),
        (_cifar100, 4, 4, ("apple", "bear")),
        (_tiny, 9, 9, tuple(sorted(WNIDS))),
    ],
)
def test_a_simulation_takes_both_splits(
    tmp_path: Path, write: Any, train: int, held: int, names: tuple[str, ...]
) -> None:
    pool = load_pool(str(write(tmp_path)), seed=0)
    assert (len(pool.train_labels), len(pool.test_labels)) == (train, held)
    assert pool.class_names == names


def test_a_simulation_takes_both_files_of_svhn_or_one(tmp_path: Path) -> None:
    _svhn(tmp_path / "train_32x32.mat", 30)
    single = load_pool(str(_svhn(tmp_path / "test_32x32.mat", 20)), seed=0)
    assert (len(single.train_labels), len(single.test_labels)) == (20, 0)
    both = load_pool(str(tmp_path), seed=0)
    assert (len(both.train_labels), len(both.test_labels)) == (30, 20)
    assert both.class_names == tuple("0123456789")


@pytest.mark.parametrize("compressed", [True, False])
def test_svhn_calls_the_digit_zero_ten(tmp_path: Path, compressed: bool) -> None:
    file = _svhn(tmp_path / "digits.mat", 10, compressed=compressed)
    data = read_images(file)
    source = pixels(10, 32, 32, 3, 10)
    assert data.labels.tolist() == list(range(10))
    assert np.array_equal(data.images[0], source[..., 9])
    assert np.array_equal(data.images[1:], source[..., :9].transpose(3, 0, 1, 2))
    assert data.sha256 == file_sha256(file)


def test_a_folders_hash_is_of_the_files_read(tmp_path: Path) -> None:
    home = _cifar100(tmp_path)
    names = ("meta", "test")
    listed = "".join(f"{n}\0{file_sha256(home / n)}\n" for n in names)
    assert read_images(home).sha256 == hashlib.sha256(listed.encode()).hexdigest()
    before = read_images(home, split="train").sha256
    (home / "test").unlink()
    assert read_images(home).split == "train"
    assert read_images(home).sha256 == before


@pytest.mark.parametrize("split", ["val", "train"])
def test_tiny_imagenet_is_labelled_by_its_lists(tmp_path: Path, split: str) -> None:
    data = read_images(_tiny(tmp_path), split=split)
    assert data.split == split
    assert data.class_names == tuple(sorted(WNIDS))
    assert np.bincount(data.labels).tolist() == [3, 3, 3]
    assert data.skipped == ()


def test_a_val_split_sorted_into_class_folders_reads_the_same(tmp_path: Path) -> None:
    home = _tiny(tmp_path)
    before = read_images(home)
    for line in (home / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        (home / "val" / wnid).mkdir(exist_ok=True)
        (home / "val" / "images" / name).rename(home / "val" / wnid / name)
    (home / "val" / "images").rmdir()
    after = read_images(home)
    assert np.array_equal(before.images, after.images)
    assert np.array_equal(before.labels, after.labels)


def test_images_are_resized_on_request(tmp_path: Path) -> None:
    for home in (
        _cifar10(tmp_path),
        _svhn(tmp_path / "x.mat"),
        _tiny(tmp_path),
    ):
        assert read_images(home, size=5).images.shape[1:] == (5, 5, 3)


def test_a_folder_per_class_stays_one(tmp_path: Path) -> None:
    plain = two_classes(tmp_path / "plain")
    (plain / "train").mkdir()
    (plain / "test").write_text("a list of test images\n")
    (plain / "train_32x32.mat").write_text("not one\n")
    recognised = [name for name, layout in LAYOUTS.items() if layout.recognises(plain)]
    assert recognised == ["folder"]


@pytest.mark.parametrize("second", [_cifar100, _tiny, lambda p: _svhn(p / "test_32x32.mat")])
def test_two_data_sets_in_one_folder_are_not_guessed_between(tmp_path: Path, second: Any) -> None:
    _cifar10(tmp_path)
    second(tmp_path)
    problem = _refusal(tmp_path)
    assert problem.code == "E220"
    assert "name" in problem.hint


def test_a_split_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    for path in (_cifar10(tmp_path), _tiny(tmp_path), _svhn(tmp_path / "test_32x32.mat")):
        with pytest.raises(UsageError) as caught:
            read_images(path, split="extra")
        assert caught.value.code == "E101"


class _Runs:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("file", ["test_batch", "batches.meta"])
def test_pickled_code_is_named_and_does_not_run(tmp_path: Path, protocol: int, file: str) -> None:
    home, marker = _cifar10(tmp_path), tmp_path / "marker"
    hostile = {b"data": _rows(0, 2), b"labels": [0, 1], b"x": _Runs(marker)}
    (home / file).write_bytes(pickle.dumps(hostile, protocol=protocol))
    problem = _refusal(home)
    assert problem.code == "E203"
    assert f"{os.system.__module__}.system" in str(problem)
    assert not marker.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"(S'touch {marker}'\nios\nsystem\n.",
        b"(cos\nsystem\nU\x04trueo.",
        b"cos\nsystem\n)\x81.",
        b"\x82\x01.",
        b"U\x01xQ.",
        b"cbuiltins\neval\nU\x011\x85R.",
        b"c__main__\nx\x1b[31m\n.",
    ],
)
def test_no_other_way_of_making_objects_is_followed(tmp_path: Path, body: bytes) -> None:
    home, marker = _cifar10(tmp_path), tmp_path / "marker"
    hostile = b"\x80\x02" + body.replace(b"{marker}", str(marker).encode())
    (home / "test_batch").write_bytes(hostile)
    problem = _refusal(home)
    assert problem.code == "E203"
    assert "\x1b" not in str(problem)
    assert not marker.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"](U\x01xe.",
        b"}U\x01xK\x01K\x02s.",
        b"}((\x85\x85K\x01u.",
        b"R.",
        b"b.",
        b"h\x05.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
        b"cnumpy\nndarray\n)R.",
        b"}c_codecs\nencode\n}b.",
    ],
)
def test_a_senseless_batch_is_broken(tmp_path: Path, body: bytes) -> None:
    home = _cifar10(tmp_path)
    (home / "test_batch").write_bytes(b"\x80\x02" + body)
    assert _refusal(home).code == "E202"


@pytest.mark.parametrize("times", [1, 1000])
def test_a_text_is_not_turned_into_bytes_over_and_over(times: int) -> None:
    function = b"\x80\x02c_codecs\nencode\nq\x00"
    args = b"X" + _int(10**4) + b"a" * 10**4 + b"X" + _int(6) + b"latin1\x86q\x01"
    data = function + args + b"R" + b"h\x00h\x01R" * (times - 1) + b"."
    with pytest.raises(InputError) as caught:
        read_pickled(data, Path("batch"))
    assert ("more bytes than the file has" in caught.value.why) == (times > 1)


def test_an_endless_batch_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_pickle, "MAX_OPCODES", 100)
    with pytest.raises(InputError, match="truncated") as caught:
        read_pickled(_python2({b"labels": [1] * 200}), Path("batch"))
    assert "more than 100" in caught.value.why


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": _rows(0, 4)[:, :3000].copy()}, "3072"),
        ({"data": [1, 2]}, "3072"),
        ({"labels": [0, 1]}, "labels"),
        ({"labels": [0, 1, 2, 0]}, "from 0 to 1"),
        ({"labels": [0, -1, 0, 0]}, "from 0 to 1"),
        ({"labels": [b"a"] * 4}, "from 0 to 1"),
        ({"labels": []}, "labels"),
    ],
)
def test_a_batch_that_does_not_fit_says_why(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    problem = _refusal(_cifar10(tmp_path, **change))
    assert problem.code == "E220"
    assert said in problem.message


def test_an_array_that_is_not_of_bytes_is_refused(tmp_path: Path) -> None:
    home = _cifar10(tmp_path, WRITERS["python 3, protocol 2"], data=np.zeros((4, 3072)))
    problem = _refusal(home)
    assert problem.code == "E202"
    assert "uint8" in problem.why


@pytest.mark.parametrize("missing", ["batches.meta", "data_batch_3"])
def test_a_missing_file_of_cifar_is_named(tmp_path: Path, missing: str) -> None:
    home = _cifar10(tmp_path)
    (home / missing).unlink()
    problem = _refusal(home, split="train")
    assert problem.code == "E201"
    assert missing in problem.message


def test_a_file_too_large_for_cifar_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "MAX_FILE_BYTES", 1000)
    assert _refusal(_cifar10(tmp_path)).code == "E205"


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1), flip=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_batch_is_read_or_refused_and_never_crashes(
    share: float, flip: int, cut: bool
) -> None:
    whole = _python2({b"data": _rows(0, 1)[:, :20], b"labels": [0, 1], b"filenames": [b"a"]})
    place = int(share * (len(whole) - 1))
    rest = b"" if cut else bytes([whole[place] ^ flip]) + whole[place + 1 :]
    try:
        found = read_pickled(whole[:place] + rest, Path("batch"))
    except InputError:
        return
    assert not cut
    assert all(isinstance(key, str) for key in found)


@pytest.mark.parametrize(
    "change",
    [
        {"X": None},
        {"y": None},
        {"X": pixels(0, 28, 28, 3, 20)},
        {"X": pixels(0, 32, 32, 3)},
        {"X": np.zeros((32, 32, 3, 20))},
        {"X": "text"},
        {"X": pixels(0, 32, 32, 3, 0), "y": np.zeros((0, 1))},
        {"y": np.ones((19, 1))},
        {"y": np.full((20, 1), 11)},
        {"y": np.full((20, 1), 1.5)},
        {"y": np.full((20, 1), "1")},
        {"y": np.full((20, 1), 1 + 1j)},
        {"y": {"field": 1}},
    ],
)
def test_an_unfit_svhn_file_is_not_used(tmp_path: Path, change: dict[str, Any]) -> None:
    assert _refusal(_svhn(tmp_path / "a.mat", **change)).code == "E220"


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("share", [0.0021, 0.1, 0.9, 0.999])
def test_a_truncated_svhn_file_is_refused(tmp_path: Path, share: float, compressed: bool) -> None:
    file = _svhn(tmp_path / "a.mat", compressed=compressed)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    assert _refusal(file).code in ("E202", "E220")


@settings(max_examples=150, deadline=None)
@given(
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    compressed=st.booleans(),
    header=st.booleans(),
)
def test_a_damaged_svhn_file_is_read_or_refused_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory,
    places: list[tuple[float, int]],
    compressed: bool,
    header: bool,
) -> None:
    file = _svhn(tmp_path_factory.getbasetemp() / "damaged.mat", 10, compressed=compressed)
    damaged = bytearray(file.read_bytes())
    for share, byte in places:  # the tags that lead astray are near the start
        damaged[124 + int(share * ((200 if header else len(damaged)) - 125))] = byte
    file.write_bytes(damaged)
    try:
        data = read_images(file)
    except InputError:
        return
    assert data.images.shape[1:] == (32, 32, 3)
    assert set(data.labels.tolist()) <= set(range(10))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("order", "<>")
def test_labels_may_be_of_any_type_in_either_byte_order(
    tmp_path: Path, kind: Any, order: str
) -> None:
    file = tmp_path / "a.mat"
    labels = (np.arange(10) % 10 + 1).astype(np.dtype(kind).newbyteorder(order))
    parts = {"X": pixels(0, 32, 32, 3, 10), "y": labels.reshape(10, 1)}
    file.write_bytes(_matlab_bytes(parts, order))
    data = read_images(file)
    assert data.labels.tolist() == list(range(10))
    assert np.array_equal(data.images[3], parts["X"][..., 2])


def _matlab_bytes(arrays: Mapping[str, NDArray[Any]], order: str) -> bytes:
    """An uncompressed MATLAB 5 file in a byte order that this machine may not have."""
    types = {"u1": (9, 2), "i2": (10, 3), "f4": (7, 7), "f8": (6, 9), "i8": (14, 12)}

    def part(kind: int, content: bytes) -> bytes:
        padded = content.ljust(-(-len(content) // 8) * 8, b"\0")
        return struct.pack(f"{order}II", kind, len(content)) + padded

    made = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}HH", 0x0100, 0x4D49)
    for name, array in arrays.items():
        own, stored = types[array.dtype.str[1:]]
        shape = struct.pack(f"{order}{array.ndim}i", *array.shape)
        flags = part(6, struct.pack(f"{order}II", own, 0))
        content = part(stored, array.tobytes(order="F"))
        made += part(14, flags + part(5, shape) + part(1, name.encode()) + content)
    return made


def test_a_matlab_7_3_file_says_how_to_save_it(tmp_path: Path) -> None:
    file = tmp_path / "train_32x32.mat"
    file.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n")
    problem = _refusal(file)
    assert problem.code == "E220"
    assert "-v7" in problem.hint


def test_an_array_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    file = _svhn(tmp_path / "a.mat", X=np.zeros((32, 32, 3, 2000), dtype=np.uint8))
    assert file.stat().st_size < 20_000
    assert _refusal(file).code == "E204"


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    file = _svhn(tmp_path / "a.mat")
    file.write_bytes(file.read_bytes() + file.read_bytes()[128:])
    assert _refusal(file).code == "E202"


def test_numbers_stored_as_what_they_cannot_be_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    labels = np.full((20, 1), np.nan)
    whole = _matlab_bytes({"X": pixels(0, 32, 32, 3, 20), "y": labels}, "<")
    place = whole.rindex(struct.pack("<IIII", 6, 8, 6, 0))  # y says it is double: say uint8
    file.write_bytes(whole[: place + 8] + b"\x09" + whole[place + 9 :])
    assert _refusal(file).code == "E202"


@pytest.mark.parametrize("compressed", [True, False])
def test_an_array_over_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    monkeypatch.setattr(matlab, "MAX_BYTES", 20 * 3072)
    assert _refusal(_svhn(tmp_path / "a.mat", compressed=compressed)).code == "E205"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("wnids.txt", ""),
        ("wnids.txt", "../../etc\n"),
        ("wnids.txt", "n00000001\nn00000001\n"),
        ("val/val_annotations.txt", "../../wnids.txt\tn00000001\n"),
        ("val/val_annotations.txt", "val_0.JPEG\tn99999999\n"),
        ("val/val_annotations.txt", "val_0.JPEG\n"),
        ("val/val_annotations.txt", ""),
    ],
)
def test_a_list_of_tiny_imagenet_that_does_not_fit(tmp_path: Path, file: str, text: str) -> None:
    home = _tiny(tmp_path)
    (home / file).write_text(text)
    assert _refusal(home).code == "E220"


def test_val_without_its_labels_is_named(tmp_path: Path) -> None:
    home = _tiny(tmp_path)
    (home / "val" / "val_annotations.txt").unlink()
    problem = _refusal(home)
    assert problem.code == "E201"
    assert "val_annotations.txt" in problem.message


def test_a_broken_picture_of_tiny_imagenet_is_skipped_and_named(tmp_path: Path) -> None:
    home = _tiny(tmp_path)
    (home / "val" / "images" / "val_0.JPEG").write_bytes(b"\xff\xd8\xff")
    data = read_images(home)
    assert len(data.labels) == 8
    assert [line.split(":")[0] for line in data.skipped] == ["val/images/val_0.JPEG"]
