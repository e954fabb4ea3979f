"""`rlu inspect` and `rlu doctor`: what is in files, and what is installed, running nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_world import Command, Words, World, write_pair
from safetensors.torch import save_file


def _rows(text: str) -> dict[str, str]:
    """Label → value of the last file or pair shown."""
    pairs = [line.strip().split("  ", 1) for line in text.splitlines() if line.startswith("  ")]
    return {label: value.strip() for label, value in pairs}


def test_a_bare_state(world: World, rlu: Command) -> None:
    result = rlu("inspect", world.before)
    rows = _rows(result.out)
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines()[0] == str(world.before)
    assert rows["format"] == "torch-zip"
    assert rows["sha256"] == hashlib.sha256(world.before.read_bytes()).hexdigest()
    assert rows["output layer"] == "fc3: 10 classes, 84 wide, with bias"
    assert rows["architecture"].startswith("lenet5")
    assert "act" in rows["architecture"]
    assert rows["wrappers"] == rows["prefixes"] == "none"


@pytest.mark.parametrize(
    ("form", "save"),
    [
        ("torch-zip", torch.save),
        ("torch-legacy", lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False)),
        ("safetensors", save_file),
    ],
)
def test_every_format(form: str, save: Any, world: World, work: Path, rlu: Command) -> None:
    save(world.states[0], work / "file.bin")
    assert _rows(rlu("inspect", "file.bin").out)["format"] == form


def test_what_trainers_save(world: World, work: Path, rlu: Command) -> None:
    state = {f"module.{name}": tensor.half() for name, tensor in world.states[0].items()}
    state["module.bn.num_batches_tracked"] = torch.tensor(70)
    groups = [{"lr": 0.05, "momentum": 0.9, "params": [0]}]
    saved = {"net": state, "optimizer": {"state": {}, "param_groups": groups}}
    torch.save(saved, work / "trainer.pt")
    rows = _rows(rlu("inspect", "trainer.pt").out)
    assert rows["wrappers"] == "net"
    assert rows["prefixes"] == "module."
    assert "float16" in rows["widened"]
    assert rows["BatchNorm steps"] == "70"
    assert rows["lr"] == "0.05  (trainer.pt: optimizer.param_groups[0].lr)"


def test_a_pair(world: World, rlu: Command) -> None:
    result = rlu("inspect", world.before, world.after)
    rows = _rows(result.out.partition("\npair\n")[2])
    assert result.status == 0
    assert rows["column sums of ΔW"].startswith("0.00%")
    assert rows["sum of Δb"].startswith("0.00%")
    most = max(range(10), key=lambda n: world.counts[n])
    assert rows["raised most"].startswith(f"classes {most}")
    assert rows["BatchNorm steps"] == "n/a"


def test_a_pair_whose_second_file_holds_a_delta(world: World, work: Path, rlu: Command) -> None:
    before, after = world.states
    sent = {f"model.{name}": after[name] - before[name] for name in before}
    pair = write_pair(work / "pair", before, sent)
    rows = _rows(rlu("inspect", pair[1], pair[3]).out.partition("\npair\n")[2])
    plain = _rows(rlu("inspect", world.before, world.after).out.partition("\npair\n")[2])
    assert rows["sent"].startswith("delta  (told from the numbers: its length is")
    assert plain["sent"].startswith("weights")
    assert rows["size of Δb"] == plain["size of Δb"]
    assert rows["raised most"] == plain["raised most"]
    assert "model." in rows["note 2"]


def test_counters_of_a_pair(world: World, work: Path, rlu: Command) -> None:
    counted = [
        {**state, "bn.num_batches_tracked": torch.tensor(passes)}
        for state, passes in zip(world.states, (3, 9), strict=True)
    ]
    pair = write_pair(work / "pair", *counted)
    assert _rows(rlu("inspect", pair[1], pair[3]).out)["BatchNorm steps"] == "6"


def test_a_pair_that_is_none(world: World, work: Path, rlu: Command) -> None:
    same = rlu("inspect", world.before, world.before)
    assert (same.status, same.err[:11]) == (3, "error[E213]")
    wider = {**world.states[1], "fc3.weight": torch.zeros(7, 84), "fc3.bias": torch.zeros(7)}
    torch.save(wider, work / "wider.pt")
    other = rlu("inspect", world.before, "wider.pt")
    assert (other.status, other.err[:11]) == (3, "error[E212]")


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("second", [True, False])
def test_code_in_a_file_does_not_run(second: bool, world: World, work: Path, rlu: Command) -> None:
    torch.save({"model": world.states[0], "x": Bomb(work / "ran")}, work / "bomb.pt")
    files = [world.before, "bomb.pt"] if second else ["bomb.pt"]
    result = rlu("inspect", *files)
    # The second file's tensors are those of the first: nothing to compare, and nothing ran.
    assert (result.status, result.err[:11]) == ((3, "error[E213]") if second else (0, ""))
    assert f"not built: {os.name}.mkdir" in result.out
    assert not (work / "ran").exists()


def test_settings_beside_a_file_are_not_read(world: World, work: Path, rlu: Command) -> None:
    torch.save(world.states[0], work / "g.pt")
    (work / "rlu.toml").write_text("this is no TOML")
    assert rlu("inspect", "g.pt").status == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("gone.pt",), "E201"),
        (("{file}", "gone.pt"), "E201"),
        (("{file}", "--max-bytes", "10"), "E205"),
        (("{file}", "--layer", "head"), "E210"),
        ((".",), "E202"),
    ],
)
def test_what_cannot_be_inspected(words: Words, code: str, world: World, rlu: Command) -> None:
    result = rlu("inspect", *(word.format(file=world.before) for word in words))
    assert (result.status, result.err[:11]) == (3, f"error[{code}]")
    assert "Traceback" not in result.err


def test_a_file_without_an_output_layer_is_still_described(work: Path, rlu: Command) -> None:
    torch.save({"a.weight": torch.ones(4, 3, 3, 3)}, work / "trunk.pt")
    result = rlu("inspect", "trunk.pt")
    rows = _rows(result.out)
    assert (result.status, result.err[:11]) == (3, "error[E210]")
    assert rows["format"] == "torch-zip"
    assert rows["tensors"].startswith("1 ")
    assert "output layer" not in rows


def test_names_in_a_file_are_shown_safely(work: Path, rlu: Command) -> None:
    name = "head\x1b[31m\u202e"
    torch.save({f"{name}.weight": torch.ones(4, 3), f"{name}.bias": torch.ones(4)}, work / "x.pt")
    result = rlu("inspect", "x.pt")
    assert result.status == 0
    assert "head\\x1b[31m\\u202e: 4 classes" in result.out
    assert not {"\x1b", "\u202e"} & set(result.out)


def test_doctor_lists_versions_and_devices(rlu: Command) -> None:
    result = rlu("doctor")
    assert (result.status, result.err) == (0, "")
    for name in ("rlu ", "Python", "torch", "numpy", "scipy", "safetensors", "Pillow"):
        assert name in result.out
    assert torch.__version__ in result.out
    assert "devices: cpu" in result.out
    assert ("cuda:0" in result.out) == torch.cuda.is_available()
    assert "extra test" in result.out


def test_models_are_listed(rlu: Command) -> None:
    result = rlu("models")
    assert result.status == 0
    for name in ("lenet5", "vgg16", "resnet18", "resnet32", "resnet50", "cnn"):
        assert name in result.out
