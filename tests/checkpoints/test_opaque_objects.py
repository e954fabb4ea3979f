"""Objects in a checkpoint are never built; the tensors beside them are read all the same."""

from __future__ import annotations

import argparse
import pickle
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import SAVERS, Refusal, State
from torch import nn

from rlu_cli.checkpoints import open_checkpoint
from rlu_cli.checkpoints.whole_module import MAX_MODULES

pytestmark = pytest.mark.usefixtures("unloaded")
TORCH_FORMS = ("torch-zip", "torch-legacy")


@dataclass
class Settings:
    """A trainer's own class; unpickling it is counted."""

    lr: float
    batch_size: int

    def __setstate__(self, state: dict[str, Any]) -> None:
        pytest.fail("an object of the file was built")


class Hyper(dict[str, Any]):
    """A dict with a class of its own, as Lightning's AttributeDict."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("kept", torch.arange(3.0))
        self.register_buffer("left_out", torch.arange(2.0), persistent=False)
        self.fc = nn.Linear(8, 3)
        self.head = self.fc  # twice in the state dict, as torch has it


@pytest.mark.parametrize("form", TORCH_FORMS)
def test_a_lightning_checkpoint_with_objects_is_read(
    form: str, state: State, tmp_path: Path
) -> None:
    content = {
        "epoch": 3,
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
        "hyper_parameters": Hyper(lr=0.05, batch_size=16, net=Settings(0.1, 4)),
        "callbacks": {"ModelCheckpoint": {"dirpath": PurePosixPath("runs"), "best": np.float64(1)}},
        "loops": defaultdict(list),
        "seen": {1, 2},
    }
    SAVERS[form](content, tmp_path / "c.ckpt")
    opened = open_checkpoint(tmp_path / "c.ckpt")
    assert opened.wrappers == ("state_dict",)
    assert list(opened.state) == [f"model.{name}" for name in state]
    assert f"{__name__}.Settings" in opened.objects
    assert opened.facts["lr"].value == 0.05
    assert opened.facts["batch_size"].value == 16
    assert opened.facts["lr"].source == "c.ckpt: hyper_parameters.lr"


@pytest.mark.parametrize("form", TORCH_FORMS)
def test_settings_are_read_from_an_object_s_attributes(form: str, tmp_path: Path) -> None:
    args = argparse.Namespace(lr=0.25, batch_size=8, local_epochs=2, other=Settings(1, 1))
    SAVERS[form]({"model": {"w": torch.ones(1)}, "args": args}, tmp_path / "c")
    facts = open_checkpoint(tmp_path / "c").facts
    assert {name: fact.value for name, fact in facts.items()} == {
        "lr": 0.25,
        "batch_size": 8,
        "epochs": 2,
    }


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("form", TORCH_FORMS)
@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"epoch": 1, "model": net}])
def test_a_module_saved_whole_gives_its_state_dict(form: str, wrap: Any, tmp_path: Path) -> None:
    net = Net()
    SAVERS[form](wrap(net), tmp_path / "c")
    opened = open_checkpoint(tmp_path / "c")
    assert list(opened.state) == list(net.state_dict())
    for name, tensor in net.state_dict().items():
        assert torch.equal(opened.state[name], tensor)
    assert f"{__name__}.Net" in opened.objects
    assert "torch.nn.modules.conv.Conv2d" in opened.objects


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_trainer_saved_whole_gives_its_model(tmp_path: Path) -> None:
    trainer = argparse.Namespace(model=Net(), round=4)
    SAVERS["torch-zip"](trainer, tmp_path / "c")
    opened = open_checkpoint(tmp_path / "c")
    assert opened.wrappers == ("model",)
    assert list(opened.state) == list(Net().state_dict())


def test_modules_that_hold_each_other_end(tmp_path: Path, refusal: Refusal) -> None:
    """Doubling at every level: 2**60 modules, were each walked to its end."""
    inner: nn.Module = nn.Linear(1, 1)
    for _ in range(60):
        inner = nn.Sequential(inner, inner)
    torch.save(inner, tmp_path / "c")
    assert MAX_MODULES <= 100_000
    assert refusal(tmp_path / "c").code == "E204"


def test_an_object_in_place_of_a_state_is_no_state(tmp_path: Path, refusal: Refusal) -> None:
    SAVERS["torch-zip"]({"model": Settings(1, 2), "epoch": 3}, tmp_path / "c")
    assert refusal(tmp_path / "c").code == "E203"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(protocol: int, state: State, tmp_path: Path) -> None:
    torch.save({"model": state, "x": Settings(1, 2)}, tmp_path / "c", pickle_protocol=protocol)
    opened = open_checkpoint(tmp_path / "c")
    assert all(torch.equal(opened.state[name], state[name]) for name in state)


def test_a_tensor_with_attributes_is_read(tmp_path: Path) -> None:
    tensor = torch.ones(2)
    tensor.note = "mine"  # type: ignore[attr-defined]
    SAVERS["torch-zip"]({"w": tensor}, tmp_path / "c")
    assert torch.equal(open_checkpoint(tmp_path / "c").state["w"], torch.ones(2))


def test_names_of_objects_are_those_that_pickle_would_import(tmp_path: Path) -> None:
    content = {"model": {"w": torch.ones(1)}, "x": Settings(1, 2)}
    SAVERS["torch-zip"](content, tmp_path / "c")
    named = pickle.dumps(Settings(1, 2), protocol=2)
    for name in open_checkpoint(tmp_path / "c").objects:
        module, _, attribute = name.rpartition(".")
        assert f"c{module}\n{attribute}\n".encode() in named
