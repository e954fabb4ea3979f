"""Momentum buffers in a trainer's checkpoint, found by parameter number and shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rlu_cli.checkpoints import momentum_head, open_checkpoint
from rlu_cli.errors import InputError

Buffers = dict[str, torch.Tensor]  # of one parameter


def _trained(
    path: Path, *, momentum: float = 0.9, named: str | None = None
) -> tuple[Buffers, Buffers]:
    """A network with BatchNorm, two steps of SGD, saved with its optimiser."""
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("conv", nn.Conv2d(3, 4, 3))
    net.add_module("norm", nn.BatchNorm2d(4))
    net.add_module("flat", nn.Flatten())
    fc = nn.Linear(16, 5)
    net.add_module("fc", fc)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=momentum)
    for _ in range(2):
        optimiser.zero_grad()
        net(torch.randn(6, 3, 4, 4)).square().mean().backward()
        optimiser.step()
    torch.save({"model": net.state_dict(), named or "optimizer": optimiser.state_dict()}, path)
    return optimiser.state[fc.weight], optimiser.state[fc.bias]


def test_the_head_buffer_is_found(tmp_path: Path) -> None:
    weight, bias = _trained(tmp_path / "c.pt")
    found = momentum_head(open_checkpoint(tmp_path / "c.pt"), "fc")
    assert found is not None
    assert torch.equal(found.weight, weight["momentum_buffer"])
    assert found.bias is not None
    assert torch.equal(found.bias, bias["momentum_buffer"])


def test_without_momentum_there_is_none(tmp_path: Path) -> None:
    _trained(tmp_path / "c.pt", momentum=0.0)
    assert momentum_head(open_checkpoint(tmp_path / "c.pt"), "fc") is None


def test_numbers_that_do_not_fit_the_shapes_are_not_guessed(tmp_path: Path) -> None:
    _trained(tmp_path / "c.pt")
    content = torch.load(tmp_path / "c.pt", weights_only=True)
    state = content["optimizer"]["state"]
    content["optimizer"]["state"] = {number + 1: value for number, value in state.items()}
    torch.save(content, tmp_path / "c.pt")
    assert momentum_head(open_checkpoint(tmp_path / "c.pt"), "fc") is None


def test_a_buffer_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    _trained(tmp_path / "c.pt")
    content = torch.load(tmp_path / "c.pt", weights_only=True)
    content["optimizer"]["state"][5]["momentum_buffer"][0] = float("nan")
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(InputError) as error:
        open_checkpoint(tmp_path / "c.pt")
    assert error.value.code == "E207"
