"""`--format json`: whatever goes wrong, stdout holds one JSON document, and no input is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_world import Command, Words, World


@pytest.mark.parametrize(
    ("more", "code", "status"),
    [
        (["--epochs", "ten"], "E101", 2),
        (["--no-such-option"], "E100", 2),
        (["--local", "missing.pt"], "E201", 3),
    ],
)
def test_an_error_is_json_with_the_same_status(
    more: Words, code: str, status: int, told: Words, rlu: Command
) -> None:
    plain, machine = rlu(*told, *more), rlu(*told, *more, "--format", "json")
    assert plain.status == machine.status == status
    assert plain.out == ""
    error = json.loads(machine.out)["error"]
    assert (error["code"], error["exit_status"]) == (code, status)
    assert machine.err == plain.err


def test_an_error_after_a_json_report_is_plain_again(told: Words, rlu: Command) -> None:
    assert rlu(*told, "--format", "json").status == 0
    assert rlu("inspect", "missing.pt").out == ""


def test_settings_are_shown_as_json(told: Words, rlu: Command) -> None:
    shown = json.loads(rlu(*told, "--show-settings", "--format", "json").out)["settings"]
    assert shown["lr"] == {"value": 0.01, "source": "flag"}


@pytest.mark.parametrize("which", ["before", "after"])
def test_a_report_never_replaces_its_own_input(
    which: str, told: Words, world: World, rlu: Command
) -> None:
    file: Path = getattr(world, which)
    content = file.read_bytes()
    done = rlu(*told, "--output", file, "--force")
    assert (done.status, done.err[:11]) == (2, "error[E106]")
    assert file.read_bytes() == content


def test_a_device_is_no_output_even_by_force(told: Words, rlu: Command) -> None:
    done = rlu(*told, "--output", "/dev/null", "--force")
    assert (done.status, done.err[:11]) == (3, "error[E201]")


def test_a_runs_own_settings_and_truth_go_before_those_of_the_working_directory(
    world: World, work: Path, rlu: Command
) -> None:
    """Attacking another run from a folder with an rlu.toml of its own gave a false report."""
    run = work / "run"
    shutil.copytree(world.run, run)
    wrong = [0, *world.counts[:-1]]
    (work / "rlu.toml").write_text('epochs = 7\nlr = 0.5\ntruth = "t.json"', encoding="utf-8")
    (work / "t.json").write_text(json.dumps(wrong), encoding="utf-8")
    pair = ["--global", run / "r000" / "global.pt", "--local", run / "r000" / "c1.pt"]
    report = rlu("attack", *pair, "--aux", run / "aux", "--format", "json").report
    assert report["settings"]["epochs"]["source"] == str(run / "rlu.toml")
    assert report["inputs"]["truth"]["path"] == str(run / "r000" / "c1.truth.json")
    assert report["local_training"]["steps"]["value"] == 2
