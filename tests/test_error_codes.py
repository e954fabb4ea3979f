"""Errors that no other test raises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rlu_cli
from rlu_cli.errors import Exit, InternalError

SAMPLE = Path(__file__).parents[1] / "sample_data"


@pytest.fixture
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RLU_BATCH_SIZE", "RLU_SAMPLES", "RLU_METHOD"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_alone")
def test_a_calibration_without_counts_is_e227() -> None:
    """Without a batch size nothing can be scored, whatever the method finds."""
    with pytest.raises(rlu_cli.RluError) as caught:
        rlu_cli.calibrate(
            torch.load(SAMPLE / "g.pt", weights_only=True),
            SAMPLE / "aux",
            virtual_clients=2,
            method="path",
            epochs=1,
            lr=0.01,
            model="lenet5",
            model_args={"act": "relu"},
            normalize="half",
            device="cpu",
        )
    assert caught.value.code == "E227"
    assert "path" in caught.value.message
    assert "--batch-size" in caught.value.hint


def test_a_defect_is_e900_and_says_what_to_do() -> None:
    error = InternalError(ZeroDivisionError("division by zero"))
    assert error.code == "E900"
    assert error.exit_status == Exit.INTERNAL
    assert "ZeroDivisionError" in error.message
    assert "RLU_DEBUG" in error.hint
