"""`rlu simulate` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from rlu_cli.commands.simulate import simulate
from rlu_cli.errors import UsageError
from rlu_cli.settings.table import SETTINGS
from rlu_cli.simulator import images
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.simulation import Request, attack_arguments, prepare

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SMALL = ["--clients", "2", "--aux-per-class", "2", "--batch-size", "8", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "TRAIN_PER_CLASS", 20)
    monkeypatch.setattr(images, "TEST_PER_CLASS", 4)


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(simulate)
    return app


def test_stdout_is_the_folder_and_stderr_the_rest(tmp_path: Path) -> None:
    result = CliRunner().invoke(_app(), ["--out", str(tmp_path / "run"), *SMALL])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'run'}\n"
    assert "images owned" in result.stderr
    assert "redraws" in result.stderr
    assert f"rlu attack --global {tmp_path / 'run' / 'r000' / 'global.pt'}" in result.stderr


def test_quiet_says_only_where(tmp_path: Path) -> None:
    result = CliRunner().invoke(_app(), ["--out", str(tmp_path / "run"), "-q", *SMALL])
    assert result.exit_code == 0
    assert result.stderr == ""


def test_a_list_of_clients_that_is_none_is_refused(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path / "run"), "--only-clients", "0,x", *SMALL]
    result = CliRunner().invoke(_app(), words)
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == "E101"


def test_the_settings_beside_the_checkpoints_are_those_of_the_run(tmp_path: Path) -> None:
    plan = Plan(clients=2, batch_size=8, epochs=3, lr=0.02)
    request = Request(
        plan, torch.device("cpu"), model="lenet5", model_args=("act=tanh",), aux_per_class=2
    )
    simulation = prepare(request, tmp_path)
    settings = tomllib.loads((tmp_path / "rlu.toml").read_text("utf-8"))
    assert settings == {
        "model": "lenet5",
        "model_args": {"act": "tanh"},
        "lr": 0.02,
        "epochs": 3,
        "batch_size": 8,
        "normalize": "half",
        "mode": "train",
        "image_size": 32,
        "classes": sorted(p.name for p in (tmp_path / "aux").iterdir()),
    }
    assert "--model" not in attack_arguments(simulation, 0, 0)


def test_a_model_of_the_users_own_is_named_on_the_command_line_only(tmp_path: Path) -> None:
    code = tmp_path / "net.py"
    code.write_text(
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    plan = Plan(clients=2, batch_size=8)
    request = Request(plan, torch.device("cpu"), model=f"{code}:net", aux_per_class=2)
    simulation = prepare(request, tmp_path / "run")
    assert [r.number for r in simulation.rounds()] == [0, 1]
    assert "net.py" not in (tmp_path / "run" / "rlu.toml").read_text()
    words = attack_arguments(simulation, 0, 1)
    assert words[words.index("--model") + 1] == f"{code}:net"


def test_starting_weights_come_from_a_checkpoint(tmp_path: Path) -> None:
    plan = Plan(clients=2, batch_size=8)
    request = Request(plan, torch.device("cpu"), aux_per_class=2)
    list(prepare(request, tmp_path / "first").rounds())
    trained = tmp_path / "first" / "r001" / "global.pt"
    following = Request(plan, torch.device("cpu"), aux_per_class=2, init=trained)
    list(prepare(following, tmp_path / "second").rounds())
    assert (tmp_path / "second" / "r000" / "global.pt").read_bytes() == trained.read_bytes()


def test_the_command_imports_without_torch() -> None:
    code = "import sys, rlu_cli.commands.simulate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real
@pytest.mark.skipif("RLU_TEST_DATA" not in os.environ, reason="RLU_TEST_DATA is not set")
def test_real_images_can_be_simulated_with(tmp_path: Path) -> None:
    source = str(Path(os.environ["RLU_TEST_DATA"]) / "CIFAR10.npz")
    plan = Plan(epochs=2, only=(0,))
    simulation = prepare(Request(plan, torch.device("cpu"), images=source), tmp_path)
    assert [r.number for r in simulation.rounds()] == [0]
    assert len(list(tmp_path.glob("aux/*/*.png"))) == 1000


def test_the_settings_beside_the_checkpoints_say_what_is_not_the_default(tmp_path: Path) -> None:
    local = Local(
        scheme="feddyn",
        momentum=0.9,
        nesterov=True,
        pull=0.5,
        weight_decay=0.001,
        clip=10.0,
        label_smoothing=0.1,
        lr_schedule="cosine:40",
        samples=20,
        drop_last=True,
    )
    plan = Plan(clients=2, batch_size=8, epochs=3, local=local)
    prepare(Request(plan, torch.device("cpu"), aux_per_class=2), tmp_path)
    settings = tomllib.loads((tmp_path / "rlu.toml").read_text("utf-8"))
    told = {
        "scheme": "feddyn",
        "momentum": 0.9,
        "nesterov": True,
        "lambda": 0.5,
        "weight_decay": 0.001,
        "clip": 10.0,
        "label_smoothing": 0.1,
        "lr_schedule": "cosine:40",
        "samples": 20,
        "drop_last": True,
        "history": ".",
    }
    assert told.items() <= settings.items()
    assert set(settings) <= set(SETTINGS)


def test_every_option_reaches_the_run(tmp_path: Path) -> None:
    words = [
        *("--scheme", "fedprox", "--lambda", "0.5", "--optimizer", "adamw", "--betas", "0.8,0.9"),
        *("--weight-decay", "0.01", "--clip", "1", "--label-smoothing", "0.1"),
        *("--lr-schedule", "linear:0.001", "--samples", "19", "--drop-last"),
        *("--sample-clients", "1", "--rounds", "2", "--pretrain", "0.11", "--noise", "0.1"),
        *("--noise-on", "sample", "--topk", "0.5", "--keep", "heads"),
    ]
    result = CliRunner().invoke(_app(), ["--out", str(tmp_path), *words, *SMALL])
    assert result.exit_code == 0, result.output
    assert "pretrained centrally to training accuracy" in result.stderr
    record = json.loads((tmp_path / "run.json").read_text())
    given = {
        "scheme": "fedprox",
        "optimizer": "adamw",
        "lambda": 0.5,
        "weight_decay": 0.01,
        "betas": [0.8, 0.9],
        "clip": 1.0,
        "label_smoothing": 0.1,
        "lr_schedule": "linear:0.001",
        "samples": 19,
        "drop_last": True,
        "sample_clients": 1,
        "pretrain": 0.11,
        "noise": 0.1,
        "noise_on": "sample",
        "topk": 0.5,
    }
    assert given.items() <= record["settings"].items()
    rounds = [json.loads((tmp_path / r / "round.json").read_text()) for r in ("r000", "r001")]
    assert [len(r["clients"]) for r in rounds] == [1, 1]
    assert [r["steps"] for r in rounds] == [2, 2]
    assert "r001" in result.stderr.splitlines()[-1]


def test_training_to_an_accuracy_ends_with_the_round_to_attack(tmp_path: Path) -> None:
    words = ["--train-to", "0.05", "--only-clients", "1", *SMALL]
    result = CliRunner().invoke(_app(), ["--out", str(tmp_path), *words])
    assert result.exit_code == 0, result.output
    assert f"--local {tmp_path / 'r000' / 'c1.pt'}" in result.stderr
    assert "training accuracy" in result.stderr


def test_the_picture_is_drawn_before_training(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["--out", str(tmp_path / "run"), "--plot", str(tmp_path / "p.png"), *SMALL]
    result = CliRunner().invoke(_app(), words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_dp_sgd_shows_its_epsilon(tmp_path: Path) -> None:
    pytest.importorskip("opacus")
    words = ["--dp-noise", "1", "--dp-clip", "1", *SMALL]
    result = CliRunner().invoke(_app(), ["--out", str(tmp_path), *words])
    assert result.exit_code == 0, result.output
    assert "DP-SGD: epsilon of the rounds at most" in result.stderr


def test_betas_that_are_none_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(_app(), ["--out", str(tmp_path), "--betas", "0.9", *SMALL])
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == "E101"
