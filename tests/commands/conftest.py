"""`rlu` as a user types it, in this process, on one tiny simulated run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
import typer.main
from cli_world import Command, Outcome, Words, World, simulated, write_pair

from rlu_cli.cli import main


@pytest.fixture(scope="session", autouse=True)
def _one_core() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _one_command() -> Iterator[None]:
    """Build the command line once: doing so for every call is half of the time of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """An untrained LeNet-5, one client's two steps of it, and four images a class."""
    return simulated(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no setting in the environment."""
    for name in [n for n in os.environ if n.startswith("RLU_") or n == "NO_COLOR"]:
        monkeypatch.delenv(name)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def rlu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """rlu("attack", "--lr", 0.1, …) → status, stdout and stderr."""

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["rlu", *map(str, words)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        shown = capsys.readouterr()
        return Outcome(status, shown.out, shown.err)

    return run


@pytest.fixture
def refused(rlu: Command, tmp_path: Path) -> Callable[..., str]:
    """refused(code, status, words, *named): the error, with nothing printed or left behind."""

    def check(code: str, status: int, words: Words, *named: object) -> str:
        reports = tmp_path / "reports"
        reports.mkdir(exist_ok=True)
        out = [] if "--output" in words else ["--output", str(reports / "report.json")]
        result = rlu(*words, *out)
        assert (result.status, result.err[:11]) == (status, f"error[{code}]"), result.err
        if "json" in words:  # the same error on stdout
            assert json.loads(result.out)["error"]["code"] == code
        else:
            assert result.out == ""
        assert "\n  next:  " in result.err
        assert "Traceback" not in result.err
        assert "\x1b" not in result.err
        for name in named:
            assert str(name) in result.err
        assert not list(reports.iterdir())
        return result.err

    return check


@pytest.fixture
def files(world: World, tmp_path: Path) -> Callable[..., Words]:
    """files(before, after): an attack on these two states, all settings given as flags."""

    def words(before: object, after: object, *more: object, save: object = torch.save) -> Words:
        pair = write_pair(tmp_path / "pair", before, after, save)
        return ["attack", *pair, "--aux", str(world.aux), *world.told, *map(str, more)]

    return words


@pytest.fixture
def told(world: World) -> Words:
    """An attack on the shared run's bare pair, all settings given as flags."""
    return ["attack", *world.pair, "--aux", str(world.aux), *world.told]


@pytest.fixture
def untold(world: World) -> Words:
    """The same without a single setting."""
    return ["attack", *world.pair, "--aux", str(world.aux)]
