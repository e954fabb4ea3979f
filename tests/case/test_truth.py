"""True counts in every form people keep them in, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rlu_cli.case.truth import load_truth
from rlu_cli.errors import InputError, RluError, UsageError

NAMES = ("cat", "dog", "emu")


def _file(folder: Path, content: object, name: str = "truth.json") -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _refusal(path: Path, total: int | None = None, names: tuple[str, ...] = NAMES) -> RluError:
    with pytest.raises(RluError) as caught:
        load_truth(path, names, total)
    assert str(path) in caught.value.message
    return caught.value


KNOWN: dict[str, object] = {
    "a list": [3, 0, 5],
    "a list of texts": ["3", "0", " 5 "],
    "by class": {"cat": 3, "dog": 0, "emu": 5},
    "by class, in another order": {"emu": 5, "cat": 3, "dog": 0},
    "by class, without those that have none": {"emu": 5, "cat": 3},
    "by index": {"0": 3, "2": 5},
    "counts": {"counts": [3, 0, 5]},
    "counts by class": {"counts": {"emu": 5, "cat": 3}},
    "counts and more": {"counts": [3, 0, 5], "per_step": [[1, 2]], "note": "x"},
    "counts with classes": {"counts": [3, 0, 5], "classes": ["cat", "dog", "emu"]},
    "counts with classes in another order": {"counts": [5, 3, 0], "classes": ["emu", "cat", "dog"]},
    "CSV": "cat,3\ndog,0\nemu,5\n",
    "CSV with a header": "class,count\ncat,3\nemu,5\n",
    "CSV by index": "class,count\n0,3\n2,5\n",
    "CSV with spaces and blank lines": "\nclass , count\n\n cat , 3\nemu ,5\n\n",
    "CSV with quotes": '"cat","3"\n"emu","5"\n',
    "CSV from a spreadsheet": "\ufeffcat,3\r\nemu,5\r\n",
}


@pytest.mark.parametrize("kind", KNOWN)
def test_counts_are_read_in_the_order_of_the_output_layer(kind: str, tmp_path: Path) -> None:
    found = load_truth(_file(tmp_path, KNOWN[kind]), NAMES, 8)
    assert found.tolist() == [3, 0, 5]
    assert found.dtype == torch.int64


def test_names_go_before_indices_where_classes_have_numbers_for_names(tmp_path: Path) -> None:
    path = _file(tmp_path, {"1": 3, "0": 5})
    assert load_truth(path, ("1", "0"), None).tolist() == [3, 5]


def test_a_name_that_holds_a_comma_may_be_quoted(tmp_path: Path) -> None:
    path = _file(tmp_path, '"cat, black",3\ndog,5\n')
    assert load_truth(path, ("cat, black", "dog"), 8).tolist() == [3, 5]


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    assert load_truth(_file(tmp_path, "cat,8", "truth.json"), NAMES, 8).tolist() == [8, 0, 0]
    assert load_truth(_file(tmp_path, [8, 0, 0], "truth.csv"), NAMES, 8).tolist() == [8, 0, 0]


def test_without_a_batch_size_any_number_of_labels_fits(tmp_path: Path) -> None:
    assert load_truth(_file(tmp_path, [3, 0, 5]), NAMES, None).tolist() == [3, 0, 5]


UNKNOWN: dict[str, object] = {
    "empty": "",
    "prose": "hello, world",
    "a header alone": "class,count\n",
    "a column": "3\n0\n5\n",
    "three columns": "cat,3,x\ndog,0,x\n",
    "columns that vary": "cat,3\ndog\n",
    "a class twice": "cat,3\ncat,5\n",
    "a field that is too long": "x" * 200_000 + ",1\n",
    "a number": "8",
    "text": '"8"',
    "nothing": "null",
    "fractions": [3.0, 0.0, 5.0],
    "negative": [-1, 4, 5],
    "booleans": [True, False, True],
    "a list of nothing": [None, None, None],
    "not a number": "[NaN, 0, 5]",
    "lists": [[3], [0], [5]],
    "other digits": "cat,³\ndog,٥\n",
    "a fraction by class": {"cat": 1.5, "dog": 2},
    "counts that are a number": {"counts": 8},
    "far too many": [10**20, 0, 5],
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_an_unknown_format_is_told_the_known_ones(kind: str, tmp_path: Path) -> None:
    error = _refusal(_file(tmp_path, UNKNOWN[kind]))
    assert error.code == "E104"
    assert isinstance(error, UsageError)
    assert "JSON list" in error.hint
    assert "CSV" in error.hint


def test_a_class_named_twice_is_said_to_be(tmp_path: Path) -> None:
    assert "twice" in _refusal(_file(tmp_path, "cat,3\ncat,5\n")).why


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([3, 5], ("2 classes", "3")),
        ([3, 0, 5, 0], ("4 classes", "3")),
        ({"counts": []}, ("0 classes", "3")),
        ({"cat": 3, "cow": 5}, ("cow",)),
        ({"3": 8}, ("3",)),
        ("cat,3\ncow,5\n", ("cow",)),
        ({"counts": {"cow": 8}}, ("cow",)),
    ],
)
def test_other_classes_do_not_fit(content: object, named: tuple[str, ...], tmp_path: Path) -> None:
    error = _refusal(_file(tmp_path, content))
    assert error.code == "E230"
    assert isinstance(error, InputError)
    assert all(one in error.message for one in named)
    assert error.hint


def test_a_class_that_is_not_the_models_is_shown_without_its_control_characters(
    tmp_path: Path,
) -> None:
    assert "\x1b" not in str(_refusal(_file(tmp_path, {"\x1b[2J": 8})))
    known = ("\x1b[2J", "dog")
    assert "\x1b" not in str(_refusal(_file(tmp_path, {"cow": 8}), names=known))


@pytest.mark.parametrize("total", [7, 9, 320])
def test_another_number_of_labels_does_not_fit(total: int, tmp_path: Path) -> None:
    error = _refusal(_file(tmp_path, [3, 0, 5]), total)
    assert error.code == "E230"
    assert "8" in error.message
    assert str(total) in error.message
    assert "--batch-size" in error.hint


def _missing(folder: Path) -> Path:
    return folder / "gone.json"


def _directory(folder: Path) -> Path:
    return folder


def _no_text(folder: Path) -> Path:
    path = folder / "truth.json"
    path.write_bytes(b"\xff\xfe\x00")
    return path


def _too_large(folder: Path) -> Path:
    path = folder / "truth.json"
    with path.open("wb") as file:
        file.truncate(2**26 + 1)  # a hole, which takes no room on the disk
    return path


@pytest.mark.parametrize("make", [_missing, _directory, _no_text, _too_large])
def test_what_cannot_be_read_is_named(make: object, tmp_path: Path) -> None:
    assert callable(make)
    error = _refusal(make(tmp_path))
    assert error.code == "E201"
    assert error.why
    assert "--truth" in error.hint


@pytest.mark.parametrize("name", ["a\x00b", "x" * 5000], ids=["a null byte", "too long"])
def test_a_path_that_cannot_be_is_one_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(RluError) as caught:
        load_truth(tmp_path / name, NAMES, None)
    assert caught.value.code == "E201"


def test_a_clients_own_counts_stand_for_every_full_pass(tmp_path: Path) -> None:
    path = _file(tmp_path, [3, 0, 5])
    assert load_truth(path, NAMES, 24, passes=3).tolist() == [9, 0, 15]
    assert load_truth(path, NAMES, 8, passes=1).tolist() == [3, 0, 5]
    assert load_truth(_file(tmp_path, [9, 0, 15]), NAMES, 24, passes=3).tolist() == [9, 0, 15]
    with pytest.raises(InputError) as caught:
        load_truth(path, NAMES, 27, passes=3)
    assert caught.value.code == "E230"
    assert "27, or 9 in each of 3 passes" in caught.value.message
