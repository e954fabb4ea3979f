"""A small state, and how refusals are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import Refusal, State

from rlu_cli.checkpoints import open_checkpoint
from rlu_cli.errors import InputError


@pytest.fixture
def state() -> State:
    generator = torch.Generator().manual_seed(5)
    shapes = {"conv.weight": (2, 1, 3, 3), "conv.bias": (2,), "fc.weight": (3, 8), "fc.bias": (3,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**tensors, "bn.num_batches_tracked": torch.tensor(7)}


@pytest.fixture
def refusal(tmp_path: Path) -> Refusal:
    """open_checkpoint(path) must end in an InputError: which."""

    def run(path: Path, **options: Any) -> InputError:
        with pytest.raises(InputError) as caught:
            open_checkpoint(path, **options)
        assert "\x1b" not in str(caught.value)
        return caught.value

    return run


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch must not see the file: every refusal comes from our own checks."""

    def load(*_: Any, **__: Any) -> None:
        pytest.fail("torch.load was called")

    monkeypatch.setattr(torch, "load", load)
