"""`rlu calibrate` and `--virtual-clients`, on a small model with BatchNorm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_world import rlu


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate") / "run"
    done = rlu(
        "simulate", "--out", str(folder), "--images", "digits", "--model", "resnet32",
        "--aux-per-class", "8", "--epochs", "2", "--batch-size", "16", "--clients", "2", "-q",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def _calibrate(run: Path, *more: str) -> Any:
    files = ["--global", str(run / "r000" / "global.pt"), "--aux", str(run / "aux")]
    return rlu("calibrate", *files, "--virtual-clients", "4", *more)


def test_it_needs_no_client_and_says_what_to_expect(run: Path) -> None:
    done = _calibrate(run, "--format", "json")
    assert done.returncode == 0, done.stderr
    (expected,) = json.loads(done.stdout)["expected"]
    assert expected["method"] == "fusion"
    assert expected["virtual_clients"] == 4
    assert expected["floor_iacc"] < expected["iacc_measured"] < expected["iacc"] <= 1
    assert expected["upper_estimate"] is True
    held, of = expected["present_held"]
    assert 0 <= held <= of


def test_the_same_seed_gives_the_same_figures(run: Path) -> None:
    first, again = (json.loads(_calibrate(run, "--format", "json").stdout) for _ in range(2))
    assert first["expected"] == again["expected"]


def test_a_table_says_it_in_sentences(run: Path) -> None:
    done = _calibrate(run, "--train-accuracy", "0.5", "--method", "rlu", "--method", "fusion")
    assert done.returncode == 0, done.stderr
    assert "rlu on virtual clients (4): expected iAcc" in done.stdout
    assert "fusion on virtual clients (4): expected iAcc" in done.stdout
    assert "upper estimate" not in done.stdout


def test_other_optimisers_are_calibrated_by_leaving_one_out(run: Path) -> None:
    done = _calibrate(run, "--optimizer", "adam", "--lr", "0.001", "--format", "json")
    assert done.returncode == 0, done.stderr
    (expected,) = json.loads(done.stdout)["expected"]
    assert expected["method"] == "emulation"


def test_an_attack_shows_what_to_expect_beside_its_answer(run: Path) -> None:
    files = ["--global", str(run / "r000" / "global.pt"), "--local", str(run / "r000" / "c0.pt")]
    done = rlu(
        "attack", *files, "--aux", str(run / "aux"), "--virtual-clients", "2", "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["expected"]["virtual_clients"] == 2
    assert report["expected"]["method"] == report["methods"][0]["method"]


def test_an_adam_client_is_read_by_emulation(run: Path) -> None:
    files = ["--global", str(run / "r000" / "global.pt"), "--local", str(run / "r000" / "c0.pt")]
    done = rlu(
        "attack", *files, "--aux", str(run / "aux"), "--optimizer", "adam", "--lr", "0.001",
        "--virtual-clients", "24", "--format", "json",
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    (method,) = json.loads(done.stdout)["methods"]
    assert method["method"] == "emulation"
    assert method["diagnostics"]["virtual_clients"] == 24


def test_too_few_images_are_refused(run: Path) -> None:
    done = _calibrate(run, "--aux-per-class", "3")
    assert done.returncode == 3
    assert "error[E226]" in done.stderr


def test_what_is_missing_is_listed(run: Path, tmp_path: Path) -> None:
    model = tmp_path / "global.pt"
    model.write_bytes((run / "r000" / "global.pt").read_bytes())
    done = rlu("calibrate", "--global", str(model), "--aux", str(run / "aux"), cwd=tmp_path)
    assert done.returncode == 2
    assert "error[E102]" in done.stderr
    assert "--lr" in done.stderr and "--epochs" in done.stderr
