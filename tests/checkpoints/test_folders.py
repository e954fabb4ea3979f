"""Checkpoints that are folders: unpacked torch zips, Hugging Face, torch.distributed.checkpoint."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import Refusal, State
from safetensors.torch import save_file
from torch.distributed.checkpoint import metadata
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.state_dict_saver import save

from rlu_cli.checkpoints import FOLDERS, open_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "c").mkdir()
    return tmp_path / "c"


def _unpack(content: object, folder: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as archive:
        for name in archive.namelist():
            target = folder / name.partition("/")[2]
            target.parent.mkdir(exist_ok=True, parents=True)
            target.write_bytes(archive.read(name))


def _shard(state: State, folder: Path, *, suffix: str = "safetensors") -> dict[str, str]:
    names = list(state)
    places: dict[str, str] = {}
    for number, some in enumerate((names[:2], names[2:]), start=1):
        file = f"model-{number:05d}-of-00002.{suffix}"
        held = {name: state[name] for name in some}
        save_file(held, folder / file) if suffix == "safetensors" else torch.save(
            held, folder / file
        )
        places |= dict.fromkeys(some, file)
    index = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
    (folder / f"{index}.index.json").write_text(json.dumps({"weight_map": places}))
    return places


def _same(folder: Path, state: State, form: str) -> None:
    opened = open_checkpoint(folder)
    assert opened.format == form
    assert opened.path == folder
    assert len(opened.sha256) == 64
    assert set(opened.state) == set(state)
    assert all(torch.equal(opened.state[name], state[name]) for name in state)


def test_every_format_of_folders_is_tested() -> None:
    assert set(FOLDERS) == {"torch-folder", "hugging-face", "torch-distributed"}


# Unpacked


def test_an_unpacked_torch_file(state: State, folder: Path) -> None:
    _unpack({"model": state}, folder)
    _same(folder, state, "torch-folder")


def test_the_hash_of_a_folder_is_that_of_all_its_files(state: State, folder: Path) -> None:
    _unpack(state, folder)
    first = open_checkpoint(folder).sha256
    assert open_checkpoint(folder).sha256 == first
    data = folder / "data" / "0"
    changed = bytearray(data.read_bytes())
    changed[0] ^= 1
    data.write_bytes(changed)
    assert open_checkpoint(folder).sha256 != first


def test_an_unpacked_file_without_a_storage(state: State, folder: Path, refusal: Refusal) -> None:
    _unpack(state, folder)
    (folder / "data" / "0").unlink()
    assert refusal(folder).code == "E202"
    (folder / "data" / "0").write_bytes(b"x")
    assert refusal(folder).code == "E204"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_in_a_folder_is_not_waited_for(state: State, folder: Path, refusal: Refusal) -> None:
    _unpack(state, folder)
    (folder / "data" / "0").unlink()
    os.mkfifo(folder / "data" / "0")
    assert refusal(folder).code == "E202"
    (folder / "data.pkl").unlink()
    os.mkfifo(folder / "data.pkl")
    assert refusal(folder).code == "E202"


def test_an_unpacked_program_is_refused(state: State, folder: Path, refusal: Refusal) -> None:
    _unpack(state, folder)
    (folder / "code").mkdir()
    assert refusal(folder).code == "E203"


# Hugging Face


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_hugging_face_folder(file: str, state: State, folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    if file.endswith("bin"):
        torch.save(state, folder / file)
    else:
        save_file(state, folder / file)
    _same(folder, state, "hugging-face")


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_sharded_weights(suffix: str, state: State, folder: Path) -> None:
    _shard(state, folder, suffix=suffix)
    _same(folder, state, "hugging-face")


@pytest.mark.parametrize("place", ["../other.safetensors", "/etc/passwd", "a/b/c", "..", ""])
def test_an_index_that_leads_out_of_its_folder(
    place: str, state: State, folder: Path, refusal: Refusal
) -> None:
    places = _shard(state, folder)
    places[next(iter(places))] = place
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert refusal(folder).code == "E204"


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": {"a": 1}}', "[" * 100_000])
def test_an_index_that_is_none(index: str, folder: Path, refusal: Refusal) -> None:
    (folder / "model.safetensors.index.json").write_text(index)
    assert refusal(folder).code == "E202"


def test_a_shard_that_is_missing_or_lacks_a_tensor(
    state: State, folder: Path, refusal: Refusal
) -> None:
    places = _shard(state, folder)
    first = folder / next(iter(places.values()))
    save_file({"other": torch.zeros(1)}, first)
    assert refusal(folder).code == "E202"
    first.unlink()
    assert refusal(folder).code == "E201"


def test_a_folder_over_the_limit(state: State, folder: Path, refusal: Refusal) -> None:
    _shard(state, folder)
    sizes = [file.stat().st_size for file in folder.iterdir()]
    assert refusal(folder, max_bytes=sum(sizes) - 1).code == "E205"
    assert open_checkpoint(folder, max_bytes=sum(sizes)).state


# torch.distributed.checkpoint


@pytest.mark.filterwarnings("ignore")
def test_a_distributed_checkpoint(state: State, folder: Path) -> None:
    save({"model": state, "epoch": 3}, checkpoint_id=folder)
    _same(folder, state, "torch-distributed")
    opened = open_checkpoint(folder)
    assert opened.wrappers == ("model",)
    assert opened.objects == ()


def _parted(folder: Path, parts: list[tuple[tuple[int, ...], torch.Tensor]], shape: Any) -> None:
    """A checkpoint of one tensor "w" in parts, as several processes write it."""
    described = metadata.Metadata(
        state_dict_metadata={
            "w": metadata.TensorStorageMetadata(
                properties=metadata.TensorProperties(dtype=torch.float32),
                size=torch.Size(shape),
                chunks=[
                    metadata.ChunkStorageMetadata(torch.Size(offset), part.shape)
                    for offset, part in parts
                ],
            )
        },
        planner_data={"w": ("model", "w")},
        storage_data={},
    )
    for number, (offset, part) in enumerate(parts):
        file = f"__{number}_0.distcp"
        buffer = io.BytesIO()
        torch.save(part, buffer)
        (folder / file).write_bytes(b"before" + buffer.getvalue())
        index = metadata.MetadataIndex("w", torch.Size(offset))
        described.storage_data[index] = _StorageInfo(file, 6, buffer.tell())
    (folder / ".metadata").write_bytes(pickle.dumps(described))


def test_a_tensor_in_parts_is_joined(folder: Path) -> None:
    whole = torch.arange(24.0).reshape(6, 4)
    parts = [((0, 0), whole[:2]), ((2, 0), whole[2:, :3]), ((2, 3), whole[2:, 3:])]
    _parted(folder, [(offset, part.clone()) for offset, part in parts], (6, 4))
    assert torch.equal(open_checkpoint(folder).state["w"], whole)


@pytest.mark.parametrize(
    ("parts", "shape"),
    [
        ([((0,), torch.zeros(2)), ((3,), torch.zeros(2))], (4,)),  # beyond its end
        ([((0,), torch.zeros(2)), ((1,), torch.zeros(2))], (4,)),  # on one another
        ([((0,), torch.zeros(2)), ((2,), torch.zeros(1))], (4,)),  # a gap
        ([((0,), torch.zeros(2)), ((2, 0), torch.zeros(2, 1))], (4,)),
        ([((0,), torch.zeros(2)), ((2,), torch.zeros(2).double())], (4,)),
        ([((0,), torch.zeros(1).expand(1 << 40))], (1 << 40,)),
        ([((0,), torch.zeros(2))], (1 << 50,)),
    ],
)
def test_parts_that_do_not_fit(
    parts: list[tuple[tuple[int, ...], torch.Tensor]],
    shape: tuple[int, ...],
    folder: Path,
    refusal: Refusal,
) -> None:
    _parted(folder, parts, shape)
    # Of a terabyte nothing is reserved: it is over the limit.
    assert refusal(folder).code == ("E205" if shape[0] > 100 else "E202")


@pytest.mark.filterwarnings("ignore")
def test_distributed_metadata_that_lies(state: State, folder: Path, refusal: Refusal) -> None:
    save({"model": state}, checkpoint_id=folder)
    written = (folder / ".metadata").read_bytes()
    described = pickle.loads(written)
    info = next(iter(described.storage_data.values()))
    for change in ({"offset": 1 << 40}, {"length": 1 << 40}, {"relative_path": "../../x"}):
        kept = {name: getattr(info, name) for name in change}
        for name, value in change.items():
            setattr(info, name, value)
        (folder / ".metadata").write_bytes(pickle.dumps(described))
        assert refusal(folder).code in ("E202", "E204"), change
        for name, value in kept.items():
            setattr(info, name, value)
    info.transform_descriptors = ["zstd"]
    (folder / ".metadata").write_bytes(pickle.dumps(described))
    error = refusal(folder)
    assert error.code == "E202"
    assert "dcp_to_torch" in error.hint
    (folder / ".metadata").write_bytes(pickle.dumps({"w": 1}))
    assert refusal(folder).code == "E202"


def test_code_in_distributed_metadata_does_not_run(
    folder: Path, tmp_path: Path, refusal: Refusal
) -> None:
    (folder / ".metadata").write_bytes(b"\x80\x04cos\nmkdir\nX" + bytes(tmp_path / "ran") + b".")
    assert refusal(folder).code in ("E202", "E203")

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    (folder / ".metadata").write_bytes(pickle.dumps(Bomb()))
    assert refusal(folder).code == "E202"
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "ran").exists(), "the bomb is live"
