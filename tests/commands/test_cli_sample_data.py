"""The first line anyone types, on the sample data, as it stands in the README."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SAMPLE = Path(__file__).parents[2] / "sample_data"
LINE = "attack --global g.pt --local c3.pt --aux ./aux --epochs 10"


def _metrics(folder: Path) -> dict[str, float]:
    words = [sys.executable, "-m", "rlu_cli", *LINE.split(), "--format", "json"]
    done = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout)["metrics"])


def test_the_untrained_pair_gives_nearly_every_label_away() -> None:
    assert f"rlu {LINE}" in (SAMPLE.parent / "README.md").read_text(encoding="utf-8")
    assert _metrics(SAMPLE)["iacc"] >= 0.97


def test_the_trained_pair_beats_an_even_guess() -> None:
    metrics = _metrics(SAMPLE / "trained")
    assert metrics["iacc"] > metrics["floor_iacc"] + 0.1


def test_the_sample_data_stay_small() -> None:
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*") if p.is_file()) <= 3_000_000
