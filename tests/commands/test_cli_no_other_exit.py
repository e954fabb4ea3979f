"""Whatever happens to a command, it ends as the documentation says, and 70 is not among it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_world import Command, Words, World

from rlu_cli.commands.alone import alone_in
from rlu_cli.errors import InputError, UsageError, from_system

RLU = [sys.executable, "-m", "rlu_cli"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="shells there close no streams")

NET = """
import sys
from rlu_cli.models.lenet import lenet5
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10, where="forward", what="exit"):
        super().__init__()
        self.__dict__["told"] = (where, what)
        for name, child in lenet5(num_classes=num_classes).named_children():
            setattr(self, name, child)
        self.end("init")
    def end(self, where):
        if self.told[0] == where:
            kinds = {"exit": SystemExit(0), "generator": GeneratorExit(), "base": BaseException()}
            raise kinds[self.told[1]]
    def forward(self, images):
        self.end("forward")
        for child in self.children():
            images = child(images)
        return images
    def train(self, mode=True):
        self.end("train")
        return super().train(mode)
    def load_state_dict(self, *args, **options):
        self.end("load")
        return super().load_state_dict(*args, **options)
"""


def _shell(words: Words, end: str) -> subprocess.CompletedProcess[str]:
    """`rlu` with these words and this redirection, in a shell."""
    line = f"{shlex.join([*RLU, *map(str, words)])} {end}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, check=False, env=environment
    )


@posix
def test_a_closed_stderr_costs_no_report(told: Words) -> None:
    done = _shell(told, "2>&-")
    assert done.returncode == 0
    assert "labels recovered" in done.stdout


@posix
def test_a_closed_stdout_costs_no_written_report(told: Words, work: Path) -> None:
    done = _shell([*told, "--output", "report.txt"], ">&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert "labels recovered" in (work / "report.txt").read_text("utf-8")


@posix
@pytest.mark.parametrize(
    "end",
    [
        ">&-",
        pytest.param(
            ">/dev/full", marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such")
        ),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "attack", "methods"])
def test_a_report_that_cannot_be_printed_is_an_error(
    command: str, end: str, told: Words, world: World
) -> None:
    words = {"inspect": ["inspect", str(world.before)], "attack": told, "methods": ["methods"]}
    done = _shell(words[command], end)
    assert (done.returncode, done.stderr[:11]) == (3, "error[E201]")
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr


@pytest.mark.parametrize(
    ("where", "what"),
    [
        *(("init", what) for what in ("exit", "generator", "base")),
        *(("forward", what) for what in ("exit", "generator", "base")),
        *(("train", "exit"), ("load", "base")),
    ],
)
def test_a_model_that_ends_the_program(
    where: str, what: str, world: World, work: Path, rlu: Command
) -> None:
    (work / "net.py").write_text(NET)
    words = ["attack", *world.pair, "--aux", str(world.aux), "--lr", "0.01", "--epochs", "2"]
    ends = ["--model-arg", f"where={where}", "--model-arg", f"what={what}"]
    done = rlu(*words, "--batch-size", "8", "--model", "net.py:Net", *ends)
    assert (done.status, done.out, done.err[:11]) == (3, "", "error[E216]")
    assert "net.py" in done.err


@posix
def test_a_working_directory_that_is_gone(told: Words, work: Path) -> None:
    line = f"rmdir {work}; exec {shlex.join([*RLU, *told])}"
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert (done.returncode, done.stderr[:11]) == (3, "error[E201]"), done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no such folder on this system")
def test_images_in_a_folder_that_is_no_folder_of_images(world: World, rlu: Command) -> None:
    done = rlu("attack", *world.pair, *world.told, "--aux", "/proc/self/fdinfo")
    assert done.status == 3
    assert done.err.startswith("error[E2")


def test_a_schedule_that_overflows(told: Words, rlu: Command) -> None:
    done = rlu(*told, "--lr-schedule", "step:1:1000000", "--epochs", 200)
    assert (done.status, done.err[:11]) == (2, "error[E101]")
    assert "finite" in done.err


@pytest.mark.parametrize("name", ["fc3.bias", "fc3.weight"])
@pytest.mark.parametrize("kind", [torch.bool, torch.int64])
def test_a_layer_of_whole_numbers(
    name: str, kind: torch.dtype, world: World, work: Path, rlu: Command
) -> None:
    for path, state in zip(("g.pt", "c.pt"), world.states, strict=True):
        torch.save({**state, name: state[name].to(kind)}, work / path)
    done = rlu("attack", "--global", "g.pt", "--local", "c.pt", "--aux", world.aux, *world.told)
    assert (done.status, done.err[:11]) == (3, "error[E206]")
    assert name in done.err


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (OSError(28, "No space left on device", "r000/c1.pt"), "E201"),
        (FileNotFoundError(2, "No such file or directory"), "E201"),
        (MemoryError(), "E209"),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"), "E209"),
        (ValueError("Unable to allocate 12 TiB"), "E209"),
        (ValueError("something else"), ""),
    ],
)
@pytest.mark.parametrize("command", ["attack", "simulate"])
def test_what_the_system_refuses_is_no_defect(
    command: str,
    problem: Exception,
    code: str,
    told: Words,
    rlu: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise problem

    if command == "attack":
        monkeypatch.setattr("rlu_cli.api.attack.attack_built", fails)
        done = rlu(*told)
    else:
        monkeypatch.setattr("rlu_cli.simulator.files.os.fsync", fails)
        done = rlu("simulate", "--out", "run", "--clients", 2, "--epochs", 1, "--no-progress")
        assert not list(Path("run").rglob("*.partial")) or not isinstance(problem, OSError)
    assert (done.status, done.err[:11]) == ((3, f"error[{code}]") if code else (70, "error[E900]"))
    known = from_system(problem)
    assert (known.code if isinstance(known, InputError) else "") == code


def test_an_interrupt_says_so(told: Words, rlu: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rlu_cli.api.attack.attack_built", interrupted)
    done = rlu(*told)
    assert (done.status, done.err) == (130, "interrupted\n")


def test_two_commands_in_one_folder(rlu: Command, tmp_path: Path) -> None:
    with alone_in(tmp_path):
        done = rlu("reproduce", "table2", "--scale", "smoke", "--out", tmp_path)
        assert (done.status, done.err[:11]) == (2, "error[E106]")
        assert "another rlu" in done.err
        with pytest.raises(UsageError), alone_in(tmp_path):
            pass
    with alone_in(tmp_path):
        pass


def test_a_resumed_run_trains_a_client_anew_whose_truth_was_changed(rlu: Command) -> None:
    words = ["simulate", "--out", "run", "--clients", 2, "--epochs", 1, "--no-progress"]
    assert rlu(*words).status == 0
    truth = Path("run/r000/c1.truth.json")
    written = truth.read_text("utf-8")
    content = json.loads(written)
    changes: tuple[dict[str, object], ...] = (
        {"counts": content["counts"][::-1]},
        {"counts": "many"},
        {"per_step": []},
        {"per_step": [[-1] * 10]},
        {"classes": ["a"]},
    )
    for change in changes:
        truth.write_text(json.dumps({**content, **change}), "utf-8")
        assert rlu(*words).status == 0, change
        assert truth.read_text("utf-8") == written, change
