"""Tensors without names get those of the other file, or of the model that they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_case import sample_states
from torch import Tensor, nn

from rlu_cli.case.positions import with_names
from rlu_cli.checkpoints import named_by, open_checkpoint
from rlu_cli.errors import InputError
from rlu_cli.models import ARCHITECTURES, build_model
from rlu_cli.types import Checkpoint

State = Mapping[str, Tensor]
Save = Callable[[State, Path], None]


def _named(state: State, path: Path) -> None:
    torch.save(dict(state), path)


def _npz(state: State, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, *[tensor.numpy() for tensor in state.values()])


def _listed(state: State, path: Path) -> None:
    torch.save(list(state.values()), path)


def _flat(state: State, path: Path) -> None:
    torch.save(torch.cat([tensor.flatten().float() for tensor in state.values()]), path)


WITHOUT_NAMES: dict[str, Save] = {"npz": _npz, "list": _listed, "flat": _flat}


def _opened(tmp_path: Path, *saved: tuple[Save, State], **settings: Any) -> list[Checkpoint]:
    paths = [tmp_path / f"{number}.pt" for number in range(len(saved))]
    for path, (save, state) in zip(paths, saved, strict=True):
        save(state, path)
    return with_names([open_checkpoint(path) for path in paths], settings.get)


def _same(checkpoint: Checkpoint, state: State) -> None:
    assert checkpoint.positional
    assert checkpoint.named
    assert list(checkpoint.state) == list(state)
    assert all(
        torch.equal(checkpoint.state[n], t.to(checkpoint.state[n])) for n, t in state.items()
    )


@pytest.mark.parametrize("form", WITHOUT_NAMES)
def test_names_come_from_the_other_file(form: str, tmp_path: Path) -> None:
    before, after = sample_states()
    opened = _opened(tmp_path, (_named, before), (WITHOUT_NAMES[form], after))
    assert not opened[0].positional
    _same(opened[1], after)


@pytest.mark.parametrize("form", WITHOUT_NAMES)
@pytest.mark.parametrize("model", [None, "lenet5"])
def test_names_come_from_the_architecture(form: str, model: str | None, tmp_path: Path) -> None:
    states = sample_states()
    save = WITHOUT_NAMES[form]
    opened = _opened(tmp_path, *((save, state) for state in states), model=model)
    for checkpoint, state in zip(opened, states, strict=True):
        _same(checkpoint, state)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gives_its_names(name: str, tmp_path: Path) -> None:
    """Of other sizes than its defaults, where the file tells them."""
    small = {"width": 0.25, "hidden": 32} if name == "vgg16" else {}
    model = build_model(name, arguments={"num_classes": 7, "in_channels": 1, **small})
    state = model.state_dict()
    (opened,) = _opened(tmp_path, (_listed, state))
    _same(opened, state)


def test_a_list_of_parameters_leaves_the_buffers_out(tmp_path: Path) -> None:
    model = build_model("resnet32", arguments={"num_classes": 7})
    parameters = dict(model.named_parameters())
    (opened,) = _opened(tmp_path, (_listed, parameters))
    _same(opened, parameters)
    whole = model.state_dict()
    _same(_opened(tmp_path, (_named, whole), (_flat, parameters))[1], parameters)


def test_names_come_from_the_user_s_own_model(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def Net(num_classes=3):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, num_classes))\n"
    )
    own = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 4))
    for save in WITHOUT_NAMES.values():
        (opened,) = _opened(
            tmp_path,
            (save, own.state_dict()),
            model=f"{tmp_path / 'net.py'}:Net",
            classes=("a", "b", "c", "d"),
        )
        _same(opened, own.state_dict())


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(12))
        self.body, self.again, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 1000)
        self.again.weight = self.body.weight
"""


def test_parameters_of_a_model_that_knows_one_number_of_classes(tmp_path: Path) -> None:
    """Tied ones are listed once, buffers of any name not at all, and the outputs are fewer."""
    (tmp_path / "net.py").write_text(OWN)
    shapes = {"body.weight": (12, 12), "body.bias": (12,), "again.bias": (12,)}
    shapes |= {"head.weight": (4, 12), "head.bias": (4,)}
    parameters = {name: torch.randn(shape) for name, shape in shapes.items()}
    whole = {"scale": torch.ones(12), **parameters}
    whole |= {"again.weight": parameters["body.weight"]}
    order = ["scale", "body.weight", "body.bias", "again.weight", "again.bias"]
    whole = {name: whole[name] for name in [*order, "head.weight", "head.bias"]}
    model = f"{tmp_path / 'net.py'}:Net"
    for sent in (whole, parameters):
        _same(_opened(tmp_path, (_listed, sent), model=model)[0], sent)


@pytest.mark.parametrize("form", WITHOUT_NAMES)
def test_tensors_of_no_known_architecture(form: str, tmp_path: Path) -> None:
    odd = {"a": torch.zeros(3, 2), "b": torch.zeros(5)}
    with pytest.raises(InputError) as caught:
        _opened(tmp_path, (WITHOUT_NAMES[form], odd))
    assert caught.value.code == "E215"
    assert "--model" in caught.value.hint


def test_a_layout_of_another_order_does_not_name(tmp_path: Path) -> None:
    before, _ = sample_states()
    _listed(before, tmp_path / "c")
    backwards = dict(reversed(before.items()))
    assert named_by(open_checkpoint(tmp_path / "c"), backwards) is None
