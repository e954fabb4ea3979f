"""Numpy's arrays, alone, in archives and in torch files; tensors without names."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import Refusal, State

from rlu_cli.checkpoints import open_checkpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.npz"


def _arrays(state: State) -> dict[str, np.ndarray[Any, Any]]:
    return {name: tensor.numpy() for name, tensor in state.items()}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_named_arrays_are_a_state(save: Callable[..., None], state: State, path: Path) -> None:
    save(path, **_arrays(state))
    opened = open_checkpoint(path)
    assert (opened.format, opened.named) == ("npz", True)
    assert list(opened.state) == list(state)
    assert all(torch.equal(opened.state[name], state[name]) for name in state)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_positional_arrays_keep_their_order(save: Callable[..., None], path: Path) -> None:
    """Flower's recipe. As text, arr_10 would stand before arr_2."""
    arrays = [np.full((2, n + 1), n, dtype=np.float32) for n in range(12)]
    save(path, *arrays)
    opened = open_checkpoint(path)
    assert not opened.named
    assert list(opened.state) == [str(n) for n in range(12)]
    for tensor, array in zip(opened.state.values(), arrays, strict=True):
        assert np.array_equal(tensor.numpy(), array)


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("make", [list, tuple])
@pytest.mark.parametrize("kind", ["tensors", "arrays", "wrapped"])
def test_lists_and_tuples_in_parameter_order(
    make: Callable[..., Any], kind: str, state: State, path: Path
) -> None:
    tensors = make(state.values() if kind != "arrays" else _arrays(state).values())
    torch.save({"round": 3, "parameters": tensors} if kind == "wrapped" else tensors, path)
    opened = open_checkpoint(path)
    assert not opened.named
    assert opened.wrappers == (("parameters",) if kind == "wrapped" else ())
    assert list(opened.state) == [str(n) for n in range(len(state))]
    for tensor, expected in zip(opened.state.values(), state.values(), strict=True):
        assert torch.equal(tensor, expected)


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_values_in_a_dict(protocol: int, path: Path) -> None:
    """NVFlare's persistor."""
    generator = np.random.default_rng(1)
    model: dict[str, np.ndarray[Any, Any]] = {
        "c": generator.normal(size=(3, 4)).astype(np.float32),
        "fortran": np.asfortranarray(generator.normal(size=(3, 4))),
        "big": generator.normal(size=5).astype(">f4"),
        "half": np.array([0.5, -2], np.float16),
        "steps": np.array(7),
        "flags": np.array([True, False]),
        "empty": np.empty((0, 3), np.float32),
        "large": generator.normal(size=5000).astype(np.float32),
    }
    content = {"model": model, "train_conf": {"lr": np.float64(0.125)}, "lr": np.float64(0.5)}
    torch.save(content, path, pickle_protocol=protocol)
    opened = open_checkpoint(path)
    assert opened.objects == ()
    assert opened.narrow == "float16"
    assert opened.facts["lr"].value == 0.5
    assert list(opened.state) == list(model)
    for name, array in model.items():
        assert np.array_equal(opened.state[name].numpy(), array), name


@pytest.mark.parametrize("form", ["npy", "torch"])
def test_a_flat_vector_is_one_tensor_without_a_name(form: str, path: Path) -> None:
    vector = torch.arange(10.0)
    with path.open("wb") as file:
        np.save(file, vector.numpy()) if form == "npy" else torch.save(vector, file)
    opened = open_checkpoint(path)
    assert not opened.named
    assert torch.equal(opened.state["0"], vector)


def test_a_parameter_called_weights_is_no_flat_vector(path: Path) -> None:
    torch.save({"weights": torch.zeros(3), "bias": torch.zeros(2)}, path)
    assert list(open_checkpoint(path).state) == ["weights", "bias"]
    torch.save({"weights": torch.zeros(3, 2)}, path)
    assert list(open_checkpoint(path).state) == ["weights"]
    torch.save({"weights": torch.zeros(3)}, path)
    assert not open_checkpoint(path).named


# Refused


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_arrays_of_objects_are_pickles(
    save: Callable[..., None], path: Path, refusal: Refusal
) -> None:
    with path.open("wb") as file:
        save(file, np.array([{"a": 1}, None], dtype=object))
    assert refusal(path).code == "E203"


@pytest.mark.usefixtures("unloaded")
def test_arrays_of_objects_in_a_torch_file(path: Path, refusal: Refusal) -> None:
    torch.save({"w": np.array([None, 1], dtype=object)}, path)
    assert refusal(path).code == "E206"
    torch.save({"w": np.array(["text"])}, path)
    assert refusal(path).code == "E206"


@pytest.mark.parametrize("kind", ["complex64", "uint64", "S3"])
def test_arrays_of_odd_types(kind: str, path: Path, refusal: Refusal) -> None:
    np.savez(path, w=np.zeros(3, kind))
    assert refusal(path).code == "E206"


def _npy(header: str) -> bytes:
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f4'}",
        "__import__('os').system('true')",
        "[" * 100,
    ],
)
@pytest.mark.parametrize("archived", [False, True])
def test_headers_that_lie(header: str, archived: bool, path: Path, refusal: Refusal) -> None:
    path.write_bytes(_npy(header))
    if archived:
        data = path.read_bytes()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w.npy", data)
    assert refusal(path).code == "E202"


def test_an_archive_that_would_unpack_to_far_more_than_its_size(
    path: Path, refusal: Refusal
) -> None:
    np.savez_compressed(path, w=np.zeros(1000, np.float32))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = (600 * 2**20).to_bytes(4, "little")
    path.write_bytes(data)
    error = refusal(path)
    assert error.code == "E204"
    assert "unpack" in error.why


def test_a_directory_that_understates_what_it_unpacks_to(path: Path, refusal: Refusal) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(1_000_000, np.float32))
        archive.writestr("w.npy", buffer.getvalue())
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = (200).to_bytes(4, "little")
    path.write_bytes(data)
    assert refusal(path).code == "E202"


def test_an_entry_before_the_file(path: Path, refusal: Refusal) -> None:
    """The archive's parts are moved by as much as its directory's place is wrong."""
    np.savez(path, w=np.zeros(3))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x05\x06") + 16
    data[at : at + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    assert refusal(path).code == "E202"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_that_numpy_does_not_write(path: Path, refusal: Refusal) -> None:
    np.savez(path, w=np.zeros(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("code.py", "print()")
    assert refusal(path).code == "E204"
    np.savez(path, w=np.zeros(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("w.npy", b"x")
    assert refusal(path).code == "E204"
