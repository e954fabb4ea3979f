"""`rlu` as a process: streams, pipes, interrupts, and what is loaded to answer --help."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_world import Command, Words, World

RLU = [sys.executable, "-m", "rlu_cli"]
ONE_CORE = {"OMP_NUM_THREADS": "1"}


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, **ONE_CORE, **more}


HEAVY = ("torch", "scipy", "numpy", "PIL", "safetensors")


@pytest.mark.parametrize("words", [["--help"], ["--version"], [], ["attack", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = {['rlu', *words]!r}\n"
        "from rlu_cli.cli import main\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_help_and_version_do_not_load_the_report_schema() -> None:
    for word in ("--help", "--version"):
        code = f"import sys; sys.argv = ['rlu', {word!r}]\nfrom rlu_cli.cli import main\n"
        code += "try: main()\nfinally: print('pydantic' in sys.modules, file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert done.stderr.strip() == b"False"


def test_streams_are_kept_apart(told: list[str], world: World, tmp_path: Path) -> None:
    """The report on stdout alone, also from a model that says something; -q changes nothing."""
    code = tmp_path / "net.py"
    code.write_text(
        "print('hello from the file')\nfrom rlu_cli.models.lenet import lenet5\n"
        "def Net(num_classes):\n"
        "    print('hello from the model')\n    return lenet5(num_classes=num_classes)\n"
    )
    words = [word for word in told if word not in ("--model-arg", "act=relu")]
    done = subprocess.run(
        [*RLU, *words, "--model", f"{code}:Net", "--format", "json", "-q"],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
    )
    assert done.returncode == 0
    counts = [row["count"] for row in json.loads(done.stdout)["result"]["counts"]]
    assert counts == world.counts
    assert "hello from the file" in done.stderr
    assert "hello from the model" in done.stderr


@pytest.mark.parametrize("quiet", [[], ["-q"], ["--quiet"]])
def test_a_report_says_nothing_on_stderr(quiet: Words, told: list[str], rlu: Command) -> None:
    result = rlu(*told, *quiet)
    assert (result.status, result.err) == (0, "")


def test_errors_come_through_quiet(untold: list[str], rlu: Command) -> None:
    result = rlu(*untold, "-q")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error[E102]")


def test_progress_is_for_terminals(
    told: list[str], rlu: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert rlu(*told, "-q").err == ""


def test_a_reader_that_went_away(told: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*RLU, *told], stdout=writing, stderr=subprocess.PIPE, check=False, env=_environment()
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode in (0, 1)


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_pipe_that_knows_no_such_letters(
    form: str, told: Words, world: World, rlu: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    narrow = io.TextIOWrapper(written, "ascii", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", narrow)
        result = rlu(*told, "--format", form)
    assert (result.status, result.err) == (0, "")
    text = written.getvalue().decode("ascii")
    if form == "json":
        assert json.loads(text)["result"]["total"] == sum(world.counts)
    else:
        assert f"{sum(world.counts)} labels recovered by pooled" in text


def test_a_full_standard_output(
    told: list[str], rlu: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        result = rlu(*told)
    assert result.status == 3
    assert result.err.startswith("error[E201]: cannot write standard output")


def test_an_interrupt(
    told: list[str], rlu: Command, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rlu_cli.api.attack.attack_built", interrupted)
    result = rlu(*told, "--output", "report.json")
    assert (result.status, result.out) == (130, "")
    assert "Traceback" not in result.err
    assert not list(work.iterdir())


def test_an_interrupt_while_writing_leaves_nothing(
    told: Words, rlu: Command, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    assert rlu(*told, "--output", "report.json").status == 130
    assert not list(work.iterdir())


def test_a_defect_is_told_from_bad_input(
    told: list[str], rlu: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("rlu_cli.api.attack.attack_built", defect)
    result = rlu(*told)
    assert (result.status, result.out) == (70, "")
    assert result.err.startswith("error[E900]: internal error: RuntimeError: a defect")
    assert "RLU_DEBUG" in result.err
    assert "Traceback" not in result.err
