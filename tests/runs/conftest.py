"""Run folders on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from run_folders import State

from rlu_cli.runs import Run, open_run

Opened = Callable[..., Run]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """opened(write, …): the run that `write(folder, before, after, …)` lays out."""

    def make(write: Callable[..., None], *more: object) -> Run:
        folder = tmp_path / "run"
        folder.mkdir()
        before: State = {"w": torch.zeros(2)}
        write(folder, before, {"w": torch.ones(2)}, *more)
        return open_run(folder)

    return make
