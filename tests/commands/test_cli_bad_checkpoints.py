"""Checkpoints that cannot be used: nothing runs, nothing is printed, the error says what to do."""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_world import Files, Refused, State, Words, World, write_pair


@pytest.fixture(params=["--global", "--local"])
def spoilt(world: World, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, list[str]]:
    """A copy of either file to be spoilt, and the attack that reads it."""
    copies = {"--global": tmp_path / "g.pt", "--local": tmp_path / "c.pt"}
    for option, original in zip(copies, (world.before, world.after), strict=True):
        shutil.copy(original, copies[option])
    pair = [word for option, copy in copies.items() for word in (option, str(copy))]
    return copies[request.param], ["attack", *pair, "--aux", str(world.aux), *world.told]


def test_a_missing_file(spoilt: tuple[Path, Words], refused: Refused) -> None:
    path, words = spoilt
    path.unlink()
    refused("E201", 3, words, path, "No such file")


def test_files_cut_down_to_their_output_layer(
    world: World, tmp_path: Path, refused: Refused
) -> None:
    heads = [{n: t for n, t in s.items() if n.startswith("fc3.")} for s in world.states]
    pair = write_pair(tmp_path / "heads", *heads)
    words = ["attack", *pair, "--aux", world.aux, *world.told]
    refused("E215", 3, words, tmp_path / "heads", "contains only the output layer")


def test_a_folder(spoilt: tuple[Path, Words], refused: Refused) -> None:
    path, words = spoilt
    path.unlink()
    path.mkdir()
    refused("E202", 3, words, path, "folder")


def test_a_file_without_permission(
    spoilt: tuple[Path, Words], refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, words = spoilt
    opened = Path.open

    def denied(self: Path, *given: Any, **named: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *given, **named)

    monkeypatch.setattr(Path, "open", denied)
    refused("E201", 3, words, path, "Permission denied")


@pytest.mark.parametrize("name", ["no\x1b[31mred.pt", "a\u202eb.pt", "x" * 5000])
def test_names_that_no_file_has_are_shown_safely(name: str, world: World, refused: Refused) -> None:
    words = ["attack", "--global", name, "--local", str(world.after), "--aux", str(world.aux)]
    error = refused("E201", 3, [*words, *world.told])
    assert "\u202e" not in error


class Bomb:
    """Makes a folder when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_nothing_but_code(
    zipped: bool, spoilt: tuple[Path, Words], refused: Refused, tmp_path: Path
) -> None:
    path, words = spoilt
    bomb = {"model": Bomb(tmp_path / "ran"), "epoch": 3}
    torch.save(bomb, path, _use_new_zipfile_serialization=zipped)
    refused("E203", 3, words, path, "mkdir", "run code", "state_dict")
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists(), "the bomb is live"


def _rezipped(path: Path, compression: int, extra: bytes = b"") -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data + extra if name.endswith("data/0") else data)


def test_a_deflated_torch_zip(spoilt: tuple[Path, Words], refused: Refused) -> None:
    path, words = spoilt
    _rezipped(path, zipfile.ZIP_DEFLATED, bytes(10**7))
    refused("E204", 3, words, path)


def test_an_inflated_torch_zip(spoilt: tuple[Path, Words], refused: Refused) -> None:
    path, words = spoilt
    content = bytearray(path.read_bytes())
    entry = content.find(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 2**31)  # the size once unpacked
    path.write_bytes(content)
    refused("E204", 3, words, path)


@pytest.mark.parametrize("kept", [0, 4, 100, -1000, -1])
def test_a_truncated_file(kept: int, spoilt: tuple[Path, Words], refused: Refused) -> None:
    path, words = spoilt
    path.write_bytes(path.read_bytes()[:kept])
    refused("E202", 3, words, path)


def test_a_file_over_the_limit(spoilt: tuple[Path, Words], refused: Refused) -> None:
    _, words = spoilt
    refused("E205", 3, [*words, "--max-bytes", "1000"], "1,000", "--max-bytes")


@pytest.mark.parametrize(
    ("tensor", "value"), [("fc3.weight", float("nan")), ("conv1.bias", -float("inf"))]
)
def test_weights_that_are_not_finite(
    tensor: str, value: float, spoilt: tuple[Path, Words], refused: Refused
) -> None:
    path, words = spoilt
    state = torch.load(path, weights_only=True)
    state[tensor].view(-1)[3] = value
    torch.save(state, path)
    refused("E207", 3, words, path, tensor, "not finite")


def test_no_tensors(spoilt: tuple[Path, Words], refused: Refused) -> None:
    path, words = spoilt
    torch.save({"epoch": 3, "history": [1.0]}, path)
    refused("E208", 3, words, path, "epoch", "state_dict")


# The pair


@pytest.fixture
def states(world: World) -> tuple[State, State]:
    return world.states


def test_output_layers_that_differ(
    states: tuple[State, State], files: Files, refused: Refused
) -> None:
    before, after = states
    wider = {**after, "fc3.weight": torch.zeros(11, 84), "fc3.bias": torch.zeros(11)}
    refused("E212", 3, files(before, wider), "g.pt", "c.pt", "fc3.weight", "(10, 84)", "(11, 84)")


def test_layers_of_different_names(
    states: tuple[State, State], files: Files, refused: Refused
) -> None:
    before, after = states
    renamed = {name.replace("fc3", "head"): tensor for name, tensor in after.items()}
    refused("E212", 3, files(before, renamed), "fc3.weight")


@pytest.mark.parametrize("same_file", [True, False])
def test_identical_files(
    same_file: bool, states: tuple[State, State], files: Files, refused: Refused
) -> None:
    before, _ = states
    words = files(before, before)
    if same_file:
        words[words.index("--local") + 1] = words[words.index("--global") + 1]
    refused("E213", 3, words, "identical", "g.pt")


def test_a_frozen_head(states: tuple[State, State], files: Files, refused: Refused) -> None:
    before, after = states
    frozen = {name: (before if name.startswith("fc3") else after)[name] for name in after}
    refused("E213", 3, files(before, frozen), "fc3", "frozen", "conv1.weight", "--layer")


def test_a_head_with_one_logit(states: tuple[State, State], files: Files, refused: Refused) -> None:
    one = [
        {name: tensor[:1] if name.startswith("fc3") else tensor for name, tensor in state.items()}
        for state in states
    ]
    refused("E211", 3, files(*one), "fc3", "one logit", "--layer")


def test_a_layer_that_is_not_there(told: list[str], refused: Refused) -> None:
    refused("E210", 3, [*told, "--layer", "classifier"], "classifier", "fc3 (10, 84)")


def test_a_layer_that_gives_no_logits(told: list[str], refused: Refused) -> None:
    refused("E210", 3, [*told, "--layer", "conv1"], "conv1", "no linear layer")


def test_a_hidden_layer(told: list[str], refused: Refused) -> None:
    refused("E221", 3, [*told, "--layer", "fc1"], "10 classes", "120", "--layer")


def test_an_architecture_nobody_knows(files: Files, refused: Refused) -> None:
    before = {"a.weight": torch.ones(4, 3, 3, 3), "fc.weight": torch.ones(10, 4)}
    after = {**before, "fc.weight": torch.randn(10, 4)}
    refused("E215", 3, files(before, after), "g.pt", "lenet5", "--model path/model.py:Net")


def test_weights_of_another_architecture(told: list[str], refused: Refused) -> None:
    words = [word for word in told if word not in ("--model-arg", "act=relu")]
    refused("E215", 3, [*words, "--model", "cnn"], "cnn", "conv3.weight")


def test_a_model_whose_logits_overflow(world: World, refused: Refused, tmp_path: Path) -> None:
    before, after = world.states
    huge = {name: tensor * 1e30 for name, tensor in after.items()}
    pair = write_pair(tmp_path / "huge", before, huge)
    words = ["attack", *pair, "--aux", str(world.aux), *world.told]
    refused("E207", 3, words, "c.pt", "not finite")
