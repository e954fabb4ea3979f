"""`rlu calibrate` and `--virtual-clients`, on a small model with BatchNorm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli_world import Command, Outcome

from rlu_cli.audit import expected_accuracy
from rlu_cli.simulator import images
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.simulation import Request, prepare

SMALL_VGG = ("width=0.125", "hidden=64")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "TRAIN_PER_CLASS", 30)
        patch.setattr(images, "TEST_PER_CLASS", 10)
        plan = Plan(clients=2, batch_size=32, epochs=2, lr=0.01)
        request = Request(
            plan, torch.device("cpu"), model="vgg16", model_args=SMALL_VGG, aux_per_class=8
        )
        list(prepare(request, folder).rounds())
    return folder


def _calibrate(rlu: Command, run: Path, *more: str) -> Outcome:
    files = ["--global", str(run / "r000" / "global.pt"), "--aux", str(run / "aux")]
    return rlu("calibrate", *files, "--virtual-clients", "4", *more)


def test_it_needs_no_client_and_says_what_to_expect(rlu: Command, run: Path) -> None:
    done = _calibrate(rlu, run, "--format", "json")
    assert done.status == 0, done.err
    (expected,) = json.loads(done.out)["expected"]
    assert expected["method"] == "pooled"
    assert expected["virtual_clients"] == 4
    assert expected["floor_iacc"] < expected["iacc_measured"] < expected["iacc"] <= 1
    assert expected["upper_estimate"] is True
    held, of = expected["present_held"]
    assert 0 <= held <= of


def test_the_same_seed_gives_the_same_figures(rlu: Command, run: Path) -> None:
    first, again = (json.loads(_calibrate(rlu, run, "--format", "json").out) for _ in range(2))
    assert first["expected"] == again["expected"]


def test_a_table_says_it_in_sentences(rlu: Command, run: Path) -> None:
    done = _calibrate(rlu, run, "--train-accuracy", "0.5", "--method", "rlu", "--method", "fusion")
    assert done.status == 0, done.err
    assert "rlu on virtual clients (4): expected iAcc" in done.out
    assert "fusion on virtual clients (4): expected iAcc" in done.out
    assert "upper estimate" not in done.out


def test_other_optimisers_are_calibrated_by_leaving_one_out(rlu: Command, run: Path) -> None:
    done = _calibrate(rlu, run, "--optimizer", "adam", "--lr", "0.001", "--format", "json")
    assert done.status == 0, done.err
    (expected,) = json.loads(done.out)["expected"]
    assert expected["method"] == "emulation"


def test_more_virtual_clients_make_more_populations(
    rlu: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each population three quarters are drawn near its client; the rest only lead there."""
    adam = ("--optimizer", "adam", "--lr", "0.001", "--format", "json")
    near = []
    for fewest in (8, 16):
        monkeypatch.setattr(expected_accuracy, "VIRTUAL_CLIENTS", fewest)
        done = _calibrate(rlu, run, *adam, "--virtual-clients", "16")
        assert done.status == 0, done.err
        (expected,) = json.loads(done.out)["expected"]
        near.append(expected["virtual_clients"])
    assert near == [12, 12]


def test_an_attack_shows_what_to_expect_beside_its_answer(rlu: Command, run: Path) -> None:
    files = ["--global", str(run / "r000" / "global.pt"), "--local", str(run / "r000" / "c0.pt")]
    done = rlu(
        "attack", *files, "--aux", str(run / "aux"), "--virtual-clients", "2", "--format", "json"
    )
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["expected"]["virtual_clients"] == 2
    assert report["expected"]["method"] == report["methods"][0]["method"]


def test_an_answer_is_not_lost_when_virtual_clients_cannot_be(rlu: Command, run: Path) -> None:
    files = ["--global", str(run / "r000" / "global.pt"), "--local", str(run / "r000" / "c0.pt")]
    few = ["--aux-per-class", "3", "--virtual-clients", "2", "--format", "json"]
    done = rlu("attack", *files, "--aux", str(run / "aux"), *few)
    assert done.status in (0, 4)
    report = json.loads(done.out)
    assert report["expected"] is None
    (warning,) = [one for one in report["warnings"] if one["code"] == "W330"]
    assert "E226" in warning["text"]


def test_an_adam_client_is_read_by_emulation(rlu: Command, run: Path) -> None:
    files = ["--global", str(run / "r000" / "global.pt"), "--local", str(run / "r000" / "c0.pt")]
    done = rlu(
        "attack", *files, "--aux", str(run / "aux"), "--optimizer", "adam", "--lr", "0.001",
        "--virtual-clients", "24", "--format", "json",
    )  # fmt: skip
    assert done.status in (0, 4), done.err
    (method,) = json.loads(done.out)["methods"]
    assert method["method"] == "emulation"
    assert method["diagnostics"]["virtual_clients"] == 64, "never fewer than it needs"


def test_too_few_images_are_refused(rlu: Command, run: Path) -> None:
    done = _calibrate(rlu, run, "--aux-per-class", "3")
    assert done.status == 3
    assert "error[E226]" in done.err


def test_what_is_missing_is_listed(rlu: Command, run: Path, tmp_path: Path) -> None:
    model = tmp_path / "global.pt"
    model.write_bytes((run / "r000" / "global.pt").read_bytes())
    done = rlu("calibrate", "--global", str(model), "--aux", str(run / "aux"))
    assert done.status == 2
    assert "error[E102]" in done.err
    assert "--lr" in done.err
    assert "--epochs" in done.err
