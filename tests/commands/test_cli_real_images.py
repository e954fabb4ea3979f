"""Real images, where RLU_TEST_DATA names them: the whole way from a federation to its counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = os.environ.get("RLU_TEST_DATA")
RLU = [sys.executable, "-m", "rlu_cli"]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(DATA is None, reason="RLU_TEST_DATA is not set"),
]


def _iacc(run: Path, client: int) -> float:
    files = ["--global", run / "r000/global.pt", "--local", run / f"r000/c{client}.pt"]
    words = [*RLU, "attack", *files, "--aux", run / "aux", "--format", "json"]
    done = subprocess.run([str(w) for w in words], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["metrics"]["iacc"])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_an_untrained_lenet5_gives_every_label_away(tmp_path: Path, activation: str) -> None:
    words = ["--images", f"{DATA}/CIFAR10.npz", "--epochs", "10", "--only-clients", "0,1", "-q"]
    out = ["--out", str(tmp_path / "run"), "--model-arg", f"act={activation}"]
    subprocess.run([*RLU, "simulate", *words, *out], check=True, capture_output=True)
    assert min(_iacc(tmp_path / "run", client) for client in (0, 1)) >= 0.999
