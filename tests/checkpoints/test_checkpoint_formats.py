"""Good files of every format open to the same tensors; broken ones to one of our own errors."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
import torch
from checkpoint_files import SAVERS, Refusal, State
from torch import nn

from rlu_cli.checkpoints import FORMATS, open_checkpoint
from rlu_cli.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_every_format_is_tested() -> None:
    assert {*SAVERS, "npy"} == set(FORMATS)  # a single array: tests/checkpoints/test_arrays.py


@pytest.mark.parametrize("form", SAVERS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
def test_opens_by_content_not_by_suffix(
    form: str, suffix: str, state: State, tmp_path: Path
) -> None:
    path = tmp_path / f"c{suffix}"
    SAVERS[form](state, path)
    opened = open_checkpoint(path)
    assert opened.format == form
    assert opened.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(opened.state) == set(state)
    assert all(torch.equal(opened.state[name], state[name]) for name in state)
    assert (opened.wrappers, opened.prefixes, opened.narrow, opened.facts) == ((), (), None, {})


@pytest.mark.parametrize("form", ["torch-zip", "torch-legacy"])
def test_keeps_the_order_of_names(form: str, state: State, tmp_path: Path) -> None:
    backwards = dict(reversed(state.items()))
    SAVERS[form](backwards, tmp_path / "c")
    assert list(open_checkpoint(tmp_path / "c").state) == list(backwards)


def test_safetensors_names_come_in_natural_order(tmp_path: Path) -> None:
    SAVERS["safetensors"]({f"l.{i}.w": torch.zeros(1) for i in (10, 9, 2)}, tmp_path / "c")
    assert list(open_checkpoint(tmp_path / "c").state) == ["l.2.w", "l.9.w", "l.10.w"]


@pytest.mark.parametrize(
    ("form", "dtype"),
    [(form, torch.float16) for form in SAVERS]
    + [(form, torch.bfloat16) for form in SAVERS if form != "npz"],  # numpy has no such type
)
def test_half_precision_is_widened_and_told(form: str, dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.tensor([[0.5, -1.25]], dtype=dtype)
    SAVERS[form]({"w": values, "n": torch.tensor([3])}, tmp_path / "c")
    opened = open_checkpoint(tmp_path / "c")
    assert opened.narrow == str(dtype).removeprefix("torch.")
    assert opened.state["w"].dtype == torch.float32
    assert torch.equal(opened.state["w"], values.float())
    assert opened.state["n"].dtype == torch.int64


@pytest.mark.parametrize("form", ["torch-zip", "torch-legacy"])
def test_parameters_become_plain_tensors(form: str, tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.randn(2, 3))
    # Saved with the parameter.
    parameter.detach = "hides the method"  # type: ignore[method-assign, assignment]
    SAVERS[form]({"w": parameter, "tied": parameter}, tmp_path / "c")
    for tensor in open_checkpoint(tmp_path / "c").state.values():
        assert type(tensor) is torch.Tensor
        assert not tensor.requires_grad
        assert torch.equal(tensor, parameter.data)


@pytest.mark.parametrize("form", ["torch-zip", "torch-legacy"])
def test_a_whole_module_s_state_dict_opens(form: str, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    SAVERS[form](net.state_dict(), tmp_path / "c")  # an OrderedDict with _metadata
    assert list(open_checkpoint(tmp_path / "c").state) == list(net.state_dict())


@pytest.mark.parametrize("form", SAVERS)
def test_every_truncation_is_told(
    form: str, state: State, tmp_path: Path, refusal: Refusal
) -> None:
    path = tmp_path / "c"
    SAVERS[form](state, path)
    whole = path.read_bytes()
    for length in {*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert refusal(path).code == "E202", length


@pytest.mark.parametrize("form", SAVERS)
def test_no_damage_gives_any_other_exception(form: str, state: State, tmp_path: Path) -> None:
    path, rng = tmp_path / "c", random.Random(form)
    SAVERS[form](state, path)
    whole, refused = path.read_bytes(), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            open_checkpoint(path)
        except InputError as error:
            refused += error.code.startswith("E20")
    assert refused > 30


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
        (b"GGUF" + bytes(64), "GGUF"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x80\x04K\x01.", "plain Python pickle"),
        (b"\x1f\x8b" + bytes(20), "gzip"),
        (b"PK\x05\x06" + bytes(18), "empty zip"),
        (bytes(257) + b"ustar" + bytes(250), "tar"),
        (b"just some text", "none of the known formats"),
    ],
)
def test_other_files_are_named(content: bytes, what: str, tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    error = refusal(path)
    assert error.code == "E202"
    assert what in error.message
    assert error.hint


def test_an_empty_folder_and_a_missing_file_are_told(tmp_path: Path, refusal: Refusal) -> None:
    assert refusal(tmp_path).code == "E202"
    assert refusal(tmp_path / "nope.pt").code == "E201"
    assert refusal(Path("null\0byte")).code == "E201"


def test_names_with_escape_sequences_are_shown_escaped(
    state: State, tmp_path: Path, refusal: Refusal
) -> None:
    state["\x1b[31mred.weight"] = torch.tensor([float("nan")])
    save = tmp_path / "\x1b[2Jc.pt"
    SAVERS["torch-zip"](state, save)
    assert "\\x1b[31mred.weight" in str(refusal(save))  # and the fixture looks for raw ones


def test_an_empty_state_is_told(tmp_path: Path, refusal: Refusal) -> None:
    for content in ({}, [1, 2], (), [], {"epoch": 3}, {3: torch.zeros(1)}):
        SAVERS["torch-zip"](content, tmp_path / "c")
        assert refusal(tmp_path / "c").code == "E208"
