"""`--run DIR`: the pair and every setting found in the folders that systems write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import run_folders as lay
import torch
from cli_world import Command, Outcome, Refused, World

pytest.importorskip("yaml", reason='PyYAML is not installed: pip install "rlu-cli[yaml]"')

# system: what lays it out, and where in it each setting is found
SYSTEMS: dict[str, tuple[lay.Write, dict[str, tuple[Any, str]]]] = {
    "Flower": (
        lay.flower,
        {
            "lr": (0.01, "pyproject.toml: [tool.flwr.app.config] learning-rate"),
            "batch_size": (8, "pyproject.toml: [tool.flwr.app.config] batch-size"),
            "epochs": (1, "pyproject.toml: [tool.flwr.app.config] local-epochs"),
            "samples": (16, "rounds/r002/round.json: samples c10"),
        },
    ),
    "NVFlare": (
        lay.nvflare,
        {
            "lr": (0.01, "executors[0].executor.args.task_script_args lr"),
            "batch_size": (8, "executors[0].executor.args.task_script_args batch_size"),
            "epochs": (1, "executors[0].executor.args.task_script_args epochs"),
            "samples": (16, "site-2/simulate_job/r000/round.json: samples site-2"),
        },
    ),
    "FedML": (
        lay.fedml,
        {
            "lr": (0.01, "config/fedml_config.yaml: train_args. learning_rate"),
            "batch_size": (8, "config/fedml_config.yaml: train_args. batch_size"),
            "epochs": (1, "config/fedml_config.yaml: train_args. epochs"),
            "optimizer": ("sgd", "config/fedml_config.yaml: train_args. client_optimizer"),
            "scheme": ("fedavg", "config/fedml_config.yaml: train_args.federated_optimizer"),
            "model": ("lenet5", "config/fedml_config.yaml: model_args.model"),
            "samples": (16, "r000/round.json: samples 1"),
        },
    ),
    "Plato": (
        lay.plato,
        {
            "lr": (0.01, "fedavg_lenet5.yml: parameters.optimizer. lr"),
            "momentum": (0.0, "fedavg_lenet5.yml: parameters.optimizer. momentum"),
            "batch_size": (8, "fedavg_lenet5.yml: trainer. batch_size"),
            "epochs": (1, "fedavg_lenet5.yml: trainer. epochs"),
            "samples": (16, "fedavg_lenet5.yml: data. partition_size"),
            "model": ("lenet5", "fedavg_lenet5.yml: trainer.model_name"),
            "scheme": ("fedavg", "fedavg_lenet5.yml: algorithm.type"),
        },
    ),
    "HF Trainer": (
        lay.hf_trainer,
        {
            "lr": (0.01, "checkpoint-3/training_args.bin: learning_rate, lr_scheduler_type"),
            "batch_size": (8, "checkpoint-5/trainer_state.json: train_batch_size × gradient_acc"),
            "epochs": (2, "steps 3 to 5 by the files' names"),
            "optimizer": ("sgd", "checkpoint-3/training_args.bin: optim"),
            "clip": (0.0, "checkpoint-3/training_args.bin: max_grad_norm"),
        },
    ),
    "Lightning": (
        lay.lightning,
        {
            "lr": (0.01, "lightning_logs/version_1/hparams.yaml: lr"),
            "batch_size": (8, "lightning_logs/version_1/hparams.yaml: batch_size"),
            "epochs": (2, "steps 8 to 10 by the files' names"),
        },
    ),
}


def _folder(place: Path, world: World, write: lay.Write) -> Path:
    folder = place / "run"
    folder.mkdir()
    write(folder, *world.states)
    return folder


def _attack(rlu: Command, run: Path, world: World, *more: object) -> Outcome:
    known = ("--model-arg", "act=relu", "--normalize", "half", "--draws", 200)
    return rlu("attack", "--run", run, "--aux", world.aux, *known, "--format", "json", *more)


@pytest.mark.parametrize("system", SYSTEMS)
def test_everything_is_found_and_the_counts_are_those_known(
    system: str, world: World, tmp_path: Path, rlu: Command
) -> None:
    write, expected = SYSTEMS[system]
    result = _attack(rlu, _folder(tmp_path, world, write), world)
    settings = result.report["settings"]
    for name, (value, source) in expected.items():
        found = settings[name]
        assert (found["value"], source in found["source"]) == (value, True), (name, found)
    assert result.counts == world.counts
    note = next(line for line in result.report["assumptions"] if "run folder" in line)
    assert f"({system})" in note
    assert str(tmp_path) not in note
    assert not (Path.cwd() / "ran").exists()


def test_a_run_of_our_own_needs_nothing_else(world: World, tmp_path: Path, rlu: Command) -> None:
    folder = _folder(tmp_path, world, lay.simulated(world.run))
    result = rlu("attack", "--run", folder, "--format", "json", "--draws", 200)
    assert result.counts == world.counts
    source = result.report["settings"]["lr"]["source"]
    assert source == str(folder / "rlu.toml")


def test_round_and_client_are_chosen_and_said(world: World, tmp_path: Path, rlu: Command) -> None:
    run = _folder(tmp_path, world, lay.flower)
    last = rlu("inspect", "--run", run).out
    assert "client c10 of round 2; --round and --client choose one of 2 others" in last
    other = rlu("inspect", "--run", run, "--round", 1).out
    assert "client c0 of round 1" in other
    by_number = rlu("inspect", "--run", run, "--client", 9)
    assert by_number.status == 3  # the file of c9 is the global model
    assert "E213" in by_number.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--round", 7), "--round takes one of 1, 2"),
        (("--client", "c7"), "--client takes one of c0, c9, c10"),
        (("--round", 2, "--client", "c0"), "--client takes one of c9, c10"),
    ],
)
def test_a_pair_that_is_not_there(
    words: tuple[Any, ...], said: str, world: World, tmp_path: Path, refused: Refused
) -> None:
    run = _folder(tmp_path, world, lay.flower)
    aux = ("--aux", world.aux)
    assert said in refused("E101", 2, ["attack", "--run", run, *aux, *words])


def test_inspect_shows_the_run(world: World, tmp_path: Path, rlu: Command) -> None:
    result = rlu("inspect", "--run", _folder(tmp_path, world, lay.nvflare))
    assert result.status == 0, result.err
    for line in ("system              NVFlare", "clients             site-1, site-2", "lr   "):
        assert line in result.out


def test_passes_over_unknown_samples_are_not_read_as_batches(
    world: World, tmp_path: Path, rlu: Command, refused: Refused
) -> None:
    run = _folder(tmp_path, world, lay.flower)
    (run / "rounds" / "r002" / "round.json").unlink()
    error = refused("E102", 2, ["attack", "--run", run, "--aux", world.aux])
    assert "the run's 1 epochs" in error
    assert "--samples N" in error
    assert _attack(rlu, run, world, "--samples", 16).counts == world.counts


def test_what_is_typed_goes_before_what_is_found(
    world: World, tmp_path: Path, rlu: Command
) -> None:
    run = _folder(tmp_path, world, lay.plato)
    result = _attack(rlu, run, world, "--epochs", 2, "--steps-per-epoch", 1, "--lr", 0.01)
    settings = result.report["settings"]
    assert settings["lr"]["source"] == "flag"
    assert "samples" not in settings
    assert result.counts == world.counts


def test_a_file_beside_the_round_goes_before_the_systems(
    world: World, tmp_path: Path, rlu: Command
) -> None:
    run = _folder(tmp_path, world, lay.flower)
    lay.write(run / "rounds" / "rlu.toml", "seed = 5")
    assert _attack(rlu, run, world).report["settings"]["seed"]["value"] == 5


def test_a_global_model_that_was_not_kept_is_asked_for(
    world: World, tmp_path: Path, rlu: Command, refused: Refused
) -> None:
    run = tmp_path / "run"
    lay.nvflare(run, *world.states)
    for site in ("site-1", "site-2"):
        job = run / site / "simulate_job"
        shutil.rmtree(job / "r000")
        torch.save(world.states[1], job / "local_model.pt")
    words = ["attack", "--run", run, "--aux", world.aux]
    error = refused("E232", 3, words, "site-2", "--global")
    assert "no client started from that" in error
    found = _attack(rlu, run, world, "--global", world.before, "--samples", 16)
    assert found.counts == world.counts


def test_a_first_checkpoint_has_no_global_model(
    world: World, tmp_path: Path, refused: Refused
) -> None:
    run = _folder(tmp_path, world, lay.lightning)
    words = ["attack", "--run", run, "--aux", world.aux, "--round", 8]
    refused("E232", 3, words, "the file of step 8", "--global")


def test_a_folder_of_no_system(tmp_path: Path, refused: Refused) -> None:
    lay.write(tmp_path / "run" / "notes.txt", "nothing")
    words = ["attack", "--run", tmp_path / "run", "--aux", "none"]
    assert "Flower" in refused("E232", 3, words, tmp_path / "run")


def test_a_run_without_a_client(world: World, tmp_path: Path, refused: Refused) -> None:
    lay.write(tmp_path / "run" / "pyproject.toml", lay.FLOWER)
    words = ["attack", "--run", tmp_path / "run", "--aux", "none"]
    refused("E232", 3, words, "no client's checkpoint", "docs/runs.md")


def test_no_run_folder(tmp_path: Path, refused: Refused) -> None:
    refused("E201", 3, ["attack", "--run", tmp_path / "gone", "--aux", "none"], "gone")


@pytest.mark.parametrize("option", [("--round", 1), ("--client", "c1"), ("--trust-code",)])
def test_choices_without_a_run(option: tuple[Any, ...], refused: Refused) -> None:
    refused("E106", 2, ["attack", "--aux", "none", *option], option[0], "--run")


@pytest.mark.parametrize("missing", ["--global", "--local", "--aux"])
def test_options_that_only_a_run_replaces(missing: str, world: World, refused: Refused) -> None:
    words = ["attack", *world.pair, "--aux", str(world.aux)]
    place = words.index(missing)
    refused("E102", 2, [*words[:place], *words[place + 2 :]], missing)


NET = """
import pathlib

import torch.nn as nn

pathlib.Path("ran").touch()


class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 12), nn.ReLU())
        self.out = nn.Linear(12, classes)

    def forward(self, x):
        return self.out(self.body(x))
"""


@pytest.mark.parametrize("system", ["Flower", "NVFlare"])
def test_code_in_the_folder_runs_only_when_it_is_trusted(
    system: str, world: World, tmp_path: Path, rlu: Command
) -> None:
    """And then it is the model: the counts are those of the client."""
    from cli_world import trained_client

    lay.write(tmp_path / "net.py", NET)
    before, after, counts = trained_client(_net(tmp_path / "net.py"))
    (Path.cwd() / "ran").unlink()
    run = tmp_path / "run"
    SYSTEMS[system][0](run, before, after)
    place = "app/task.py" if system == "Flower" else "server/custom/nets/simple.py"
    lay.write(run / place, NET)
    attack = ("attack", "--run", run, "--aux", world.aux, "--format", "json")
    plain = rlu(*attack, "--normalize", "half")
    assert (plain.status, "E215" in plain.err, "--trust-code" in plain.err) == (3, True, True)
    assert rlu("inspect", "--run", run).status == 0
    assert not (Path.cwd() / "ran").exists()
    trusted = rlu(*attack, "--normalize", "half", "--trust-code")
    assert trusted.counts == counts
    assert (Path.cwd() / "ran").exists()
    assert trusted.report["settings"]["model"]["value"].endswith(f"{place}:Net")


def _net(path: Path) -> Any:
    from rlu_cli.models import build_model

    return lambda: build_model(f"{path}:Net", state=None, arguments={}, classes=10)


def test_a_redacted_report_names_no_file_of_the_run(
    world: World, tmp_path: Path, rlu: Command
) -> None:
    run = _folder(tmp_path, world, lay.flower)
    shown = _attack(rlu, run, world, "--redact").out
    assert json.loads(shown)["redacted"] is True
    for private in ("pyproject", "round.json", str(tmp_path)):
        assert private not in shown
