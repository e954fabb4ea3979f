"""One hostile file, one test: nothing in it runs, and the refusal names the cause."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import (
    SAVERS,
    FakeStorage,
    FakeTensor,
    Refusal,
    fake,
    pickled,
    write_legacy,
    write_zip,
)
from safetensors.torch import save_file
from torch import nn

from rlu_cli.checkpoints import open_checkpoint, pickle_machine

ONE = struct.pack("<f", 1.0)


class Bomb:
    """Makes a directory when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.pt"


def test_the_files_made_here_open_when_they_are_honest(path: Path) -> None:
    content = {"w": fake(4, (2, 2), (2, 1))}
    opened = open_checkpoint(write_zip(path, pickled(content), {"0": 4 * ONE}))
    assert torch.equal(opened.state["w"], torch.ones(2, 2))
    opened = open_checkpoint(write_legacy(path, content, ["0"], struct.pack("<q", 4) + 4 * ONE))
    assert torch.equal(opened.state["w"], torch.ones(2, 2))


# Code


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("form", ["torch-zip", "torch-legacy"])
def test_code_in_a_pickle_does_not_run(
    form: str, path: Path, tmp_path: Path, refusal: Refusal
) -> None:
    marker = tmp_path / "ran"
    SAVERS[form]({"model": {"w": torch.ones(1)}, "x": Bomb(marker)}, path)
    opened = open_checkpoint(path)
    assert torch.equal(opened.state["w"], torch.ones(1))
    assert opened.objects == (f"{os.name}.mkdir",)
    SAVERS[form]({"x": Bomb(marker)}, path)
    error = refusal(path)
    assert error.code == "E203"
    assert dict(error.facts)["needs"] == f"{os.name}.mkdir"
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists(), "the bomb is live"


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("protocol", range(6))
def test_code_is_found_in_every_pickle_protocol(
    protocol: int, path: Path, tmp_path: Path, refusal: Refusal
) -> None:
    bomb = pickle.dumps({"x": Bomb(tmp_path / "ran")}, protocol=protocol)
    error = refusal(write_zip(path, bomb, {}))
    assert error.code == "E203"
    assert "mkdir" in dict(error.facts)["needs"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    "code",
    [
        b"(S'x'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'x'\no.",  # OBJ
        b"\x80\x02\x82\x07.",  # the extension registry
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93\x8c\x01x\x85R.",  # by the memo
        b"\x80\x04]]\x93.",  # a name that cannot be told
        b"cos\nsystem\n(S'x'\ntR",  # truncated behind the code
    ],
)
def test_hidden_globals_are_found(code: bytes, path: Path, refusal: Refusal) -> None:
    assert refusal(write_zip(path, code, {})).code == "E203"


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("position", range(5))
def test_code_in_any_pickle_of_a_legacy_file_is_found(
    position: int, path: Path, tmp_path: Path, refusal: Refusal
) -> None:
    SAVERS["torch-legacy"]({"w": torch.zeros(1)}, path)
    with path.open("rb") as file:
        parts = []
        for _ in range(5):
            start = file.tell()
            list(pickletools.genops(file))
            parts.append((start, file.tell()))
    whole, (start, end) = path.read_bytes(), parts[position]
    path.write_bytes(whole[:start] + pickle.dumps(Bomb(tmp_path / "ran"), 2) + whole[end:])
    # The first pickle is the magic number itself.
    assert refusal(path).code == ("E203" if position else "E202")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("form", ["torch-zip", "torch-legacy"])
def test_a_module_without_a_tensor_is_refused_with_the_way_to_save_it(
    form: str, path: Path, refusal: Refusal
) -> None:
    SAVERS[form](nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Flatten(), nn.Identity()), path)
    error = refusal(path)
    assert error.code == "E203"
    assert "torch.nn.modules.activation.ReLU" in dict(error.facts)["needs"]
    assert "(1 more)" in dict(error.facts)["needs"]
    assert "torch.save(model.state_dict(), " in error.hint


@pytest.mark.usefixtures("unloaded")
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_a_program(path: Path, refusal: Refusal) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickled({}))
        archive.writestr("m/code/__torch__.py", "print()", zipfile.ZIP_DEFLATED)
        archive.writestr("m/constants.pkl", pickled(()))
    error = refusal(path)
    assert error.code == "E203"
    assert "TorchScript" in error.message


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02ctorch.storage\nUntypedStorage\n\x8a\x06\xff\xff\xff\xff\xff\x7f\x85R.",
        b"\x80\x02ctorch\nSize\n)\x81.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
        b"\x80\x02ctorch\nSize\n))\x86R}b.",
    ],
)
def test_allowed_names_are_not_put_to_other_uses(code: bytes, path: Path, refusal: Refusal) -> None:
    assert refusal(write_zip(path, code, {})).code == "E204"


@pytest.mark.usefixtures("unloaded")
def test_bytearray_could_reserve_any_memory(path: Path, refusal: Refusal) -> None:
    assert refusal(write_zip(path, b"\x80\x02c__builtin__\nbytearray\n.", {})).code == "E203"


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02)" + b"\x85" * 100_000 + b".",  # walking it overflows the stack
        b"\x80\x02)" + b"q\x00h\x00\x86" * 60 + b".",  # it would have 2**60 items
        b"\x80\x02Nr\xff\xff\xff\xff.",  # the last memo entry of all
    ],
    ids=["deep", "doubling", "memo"],
)
def test_the_scan_itself_is_no_bomb(code: bytes, path: Path, refusal: Refusal) -> None:
    assert refusal(write_zip(path, code, {})).code == "E204"


@pytest.mark.usefixtures("unloaded")
def test_a_pickle_of_endless_steps(
    path: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_machine, "MAX_OPCODES", 1000)
    assert refusal(write_zip(path, b"\x80\x02" + b"N0" * 600 + b"N.", {})).code == "E204"


# Archives


@pytest.mark.usefixtures("unloaded")
def test_compressed_entries(path: Path, refusal: Refusal) -> None:
    content = pickled({"w": fake(1000, (1000,), (1,))})
    error = refusal(write_zip(path, content, {"0": bytes(4000)}, compression=zipfile.ZIP_DEFLATED))
    assert error.code == "E204"
    assert "compressed" in error.why


def _patched(path: Path, name: bytes, offset: int, value: bytes) -> Path:
    """Overwrites a field of the central directory's entry for `name`."""
    data = bytearray(path.read_bytes())
    at = data.rindex(name) - 46 + offset
    assert data[at - offset : at - offset + 4] == b"PK\x01\x02"
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


def _honest(path: Path) -> Path:
    return write_zip(path, pickled({"w": fake(4, (4,), (1,))}), {"0": 4 * ONE, "1": ONE})


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (24, struct.pack("<L", 1 << 30)),  # unpacked size
        (20, struct.pack("<LL", 1 << 30, 1 << 30)),  # both sizes
        (8, struct.pack("<H", 1)),  # encrypted
        (42, struct.pack("<L", 0)),  # the place of another entry
    ],
    ids=["inflated", "beyond", "encrypted", "overlapping"],
)
def test_lying_directory(offset: int, value: bytes, path: Path, refusal: Refusal) -> None:
    assert refusal(_patched(_honest(path), b"m/data/0", offset, value)).code == "E204"


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("name", ["m/../../etc/x", "/m/x", "m\\x", "other/x", "m/data/é"])
def test_entry_names_that_torch_does_not_write(name: str, path: Path, refusal: Refusal) -> None:
    with zipfile.ZipFile(_honest(path), "a") as archive:
        archive.writestr(name, b"x")
    assert refusal(path).code == "E204"


@pytest.mark.usefixtures("unloaded")
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["m/data.pkl", "m/Data.PKL", "m/data/0"])
def test_two_entries_of_one_name(name: str, path: Path, refusal: Refusal) -> None:
    with zipfile.ZipFile(_honest(path), "a") as archive:
        archive.writestr(name, pickled({}))
    error = refusal(path)
    assert error.code == "E204"
    assert "two entries" in error.why


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("edit", [lambda d: d[:-2] + b"\x02\0xx", lambda d: b"PK\x03\x04" + d])
def test_bytes_that_belong_to_no_entry(
    edit: Callable[[bytes], bytes], path: Path, refusal: Refusal
) -> None:
    path.write_bytes(edit(_honest(path).read_bytes()))
    assert refusal(path).code in ("E202", "E204")


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("numel", [5, 1 << 40])
def test_storage_shorter_than_declared_would_be_read_past_its_end(
    numel: int, path: Path, refusal: Refusal
) -> None:
    error = refusal(write_zip(path, pickled({"w": fake(numel, (4,), (1,))}), {"0": 4 * ONE}))
    assert error.code == "E204"


@pytest.mark.usefixtures("unloaded")
def test_storage_that_is_missing(path: Path, refusal: Refusal) -> None:
    assert refusal(write_zip(path, pickled({"w": fake(4, (4,), (1,))}), {})).code == "E202"


# Legacy files


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(("limit", "code"), [(1 << 34, "E205"), (1 << 62, "E202")])
def test_legacy_with_a_huge_storage_reserves_nothing(
    limit: int, code: str, path: Path, refusal: Refusal
) -> None:
    content = {"w": fake(1 << 40, (1,), (1,))}
    write_legacy(path, content, ["0"], struct.pack("<q", 1 << 40) + ONE)
    assert refusal(path, max_bytes=limit).code == code


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("numel", [-1, 1.5, None])
def test_legacy_with_a_storage_of_no_size(
    numel: float | None, path: Path, refusal: Refusal
) -> None:
    write_legacy(path, {"w": fake(numel, (1,), (1,))}, ["0"], struct.pack("<q", 1) + ONE)
    assert refusal(path).code == "E204"


@pytest.mark.usefixtures("unloaded")
def test_legacy_with_two_sizes_for_one_storage(path: Path, refusal: Refusal) -> None:
    content = {"a": fake(1, (1,), (1,)), "b": fake(2, (2,), (1,))}
    write_legacy(path, content, ["0"], struct.pack("<q", 2) + 2 * ONE)
    assert refusal(path).code == "E204"


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(("keys", "code"), [(["1"], "E202"), ([], "E202"), ({"1": "0"}, "E204")])
def test_legacy_that_leaves_a_tensor_uninitialised(
    keys: list[str] | dict[str, str], code: str, path: Path, refusal: Refusal
) -> None:
    content = {"a": fake(1, (1,), (1,)), "b": fake(1, (1,), (1,), "1")}
    write_legacy(path, content, keys, 2 * (struct.pack("<q", 1) + ONE))
    assert refusal(path).code == code


# Safetensors


@pytest.mark.parametrize("length", [1 << 62, 1 << 20, 0])
def test_safetensors_with_a_lying_header(length: int, path: Path, refusal: Refusal) -> None:
    save_file({"w": torch.zeros(3)}, path)
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    assert refusal(path).code == "E202"


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 40]},
        {"dtype": "X7", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
    ],
    ids=["shape", "offsets", "dtype", "negative"],
)
def test_safetensors_with_a_lying_entry(
    entry: dict[str, Any], path: Path, refusal: Refusal
) -> None:
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + ONE)
    assert refusal(path).code == "E202"


# Tensors


def _tensors_refused(path: Path, content: object, numel: int = 4) -> Path:
    return write_zip(path, pickled({"ok.weight": content}), {"0": numel * ONE})


@pytest.mark.parametrize(
    ("size", "stride"),
    [
        ((1 << 20, 1 << 20), (0, 0)),
        ((4, 2), (1, 0)),
        ((2, 2), (1, 0)),
        ((3, 2), (1, 1)),
    ],
)
def test_views_that_show_more_than_there_is(
    size: tuple[int, ...], stride: tuple[int, ...], path: Path, refusal: Refusal
) -> None:
    error = refusal(_tensors_refused(path, fake(4, size, stride)))
    assert error.code == "E206"
    assert "ok.weight" in error.message


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("size", "stride"),
    [((5,), (1,)), ((1 << 40,), (1,)), ((2, 2), (1 << 62, 1)), ((1 << 62, 8), (8, 1))],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_views_beyond_their_storage_would_make_torch_extend_it(
    legacy: bool, size: tuple[int, ...], stride: tuple[int, ...], path: Path, refusal: Refusal
) -> None:
    content = {"w": fake(4, size, stride)}
    if legacy:
        write_legacy(path, content, ["0"], struct.pack("<q", 4) + 4 * ONE)
    else:
        write_zip(path, pickled(content), {"0": 4 * ONE})
    error = refusal(path)
    assert error.code == "E206"
    assert "larger than its storage" in error.message


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("size", "stride"), [((2,), (-1,)), ((-1,), (1,)), ((2, 2), (1,)), ((2.0,), (1,)), (3, (1,))]
)
def test_shapes_that_are_none(
    size: Any, stride: tuple[int, ...], path: Path, refusal: Refusal
) -> None:
    assert refusal(_tensors_refused(path, fake(4, size, stride))).code == "E204"


@pytest.mark.usefixtures("unloaded")
def test_a_view_of_a_storage_is_refused(path: Path, refusal: Refusal) -> None:
    view = FakeTensor(FakeStorage(4, view=("v", 0, 1)), (1,), (1,))
    write_legacy(path, {"w": view}, ["0"], struct.pack("<q", 4) + 4 * ONE)
    assert refusal(path).code == "E204"


@pytest.mark.parametrize("form", ["torch-zip", "torch-legacy"])
def test_an_expanded_tensor_is_refused(form: str, path: Path, refusal: Refusal) -> None:
    SAVERS[form]({"w": torch.zeros(1).expand(5)}, path)
    assert refusal(path).code == "E206"


@pytest.mark.parametrize("form", SAVERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(form: str, value: float, path: Path, refusal: Refusal) -> None:
    SAVERS[form]({"a": torch.zeros(3), "fc.weight": torch.tensor([[0.0, value, value]])}, path)
    error = refusal(path)
    assert error.code == "E207"
    assert "fc.weight has 2 of 3" in error.message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("quantised", lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)),
        ("sparse", lambda: torch.eye(3).to_sparse()),
        ("sparse", lambda: torch.eye(3).to_sparse_csr()),
        ("meta", lambda: torch.zeros(3, device="meta")),
        ("complex", lambda: torch.zeros(3, dtype=torch.complex64)),
    ],
)
@pytest.mark.parametrize("form", ["torch-zip", "torch-legacy"])
def test_tensors_that_are_not_plain(
    form: str, kind: str, make: Callable[[], torch.Tensor], path: Path, refusal: Refusal
) -> None:
    SAVERS[form]({"w": make()}, path)
    error = refusal(path)
    assert error.code == "E206"
    assert kind in error.message


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16])
def test_tensors_of_odd_types(dtype: torch.dtype, path: Path, refusal: Refusal) -> None:
    SAVERS["torch-zip"]({"w": torch.zeros(3).to(dtype)}, path)
    error = refusal(path)
    assert error.code == "E206"
    assert str(dtype).removeprefix("torch.") in error.message


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_safetensors_of_odd_types(dtype: torch.dtype, path: Path, refusal: Refusal) -> None:
    save_file({"w": torch.zeros(3).to(dtype)}, path)
    assert refusal(path).code == "E206"


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("form", ["torch-zip", "torch-legacy"])
def test_a_file_over_the_limit(form: str, path: Path, refusal: Refusal) -> None:
    SAVERS[form]({"w": torch.zeros(1000)}, path)
    assert refusal(path, max_bytes=4000).code == "E205"


def test_many_views_of_one_storage_over_the_limit(path: Path, refusal: Refusal) -> None:
    shared = torch.zeros(1000)
    SAVERS["torch-zip"]({str(i): shared for i in range(50)}, path)
    assert refusal(path, max_bytes=20_000).code == "E205"
    assert len(open_checkpoint(path, max_bytes=200_000).state) == 50


class Hiding:
    """Pickles as an OrderedDict one of whose methods is hidden by an attribute."""

    def __reduce__(self) -> Any:
        entries = [("w", fake(1, (1,), (1,)))]
        return OrderedDict, (), {"items": "hidden", "get": "hidden"}, None, iter(entries)


def test_methods_that_the_file_hides_are_not_used(path: Path) -> None:
    opened = open_checkpoint(write_zip(path, pickled(Hiding()), {"0": ONE}))
    assert torch.equal(opened.state["w"], torch.ones(1))


def test_dicts_that_hold_each_other_end(path: Path, refusal: Refusal) -> None:
    content: dict[str, object] = {"epoch": 1}
    content.update(model=content, net=content, weights={"model": content})
    SAVERS["torch-zip"](content, path)
    assert refusal(path).code == "E208"
