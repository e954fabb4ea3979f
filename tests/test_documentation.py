"""What the README, the guide and the API page show works as written, on a copy of sample_data."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlu_cli.cli import main

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/guide.md", "docs/api.md")


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of sample_data as the working directory, and no setting in the environment."""
    copy = tmp_path / "sample_data"
    shutil.copytree(ROOT / "sample_data", copy)
    for name in [n for n in os.environ if n.startswith("RLU_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(copy)
    return copy


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _text(page), re.DOTALL)


def _commands(page: str) -> list[str]:
    """Lines of the page's shell blocks, but for those that set up an environment."""
    lines = [line for block in _blocks(page, "sh") for line in block.splitlines() if line]
    return [line for line in lines if "python3 -m venv" not in line]


def _run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of one line: `cd`, `mkdir -p`, or `rlu` with variables before it."""
    words = shlex.split(line, comments=True)
    if words[0] == "cd":
        monkeypatch.chdir(words[1])
        return 0
    if words[:2] == ["mkdir", "-p"]:
        Path(words[2]).mkdir(parents=True, exist_ok=True)
        return 0
    with monkeypatch.context() as patch:
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            patch.setenv(name, value)
        assert words[0] == "rlu", f"not a command of these pages: {line}"
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_every_command_runs_as_written(
    page: str,
    sample: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = _commands(page)
    assert len(commands) >= 5
    for line in commands:
        status = _run(line, monkeypatch)
        assert status == 0, f"{line}\n{capsys.readouterr().err}"


def test_the_readme_shows_what_its_first_command_prints(
    sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for the digits of the checks, which depend on the machine."""
    found = re.search(r"<!-- output -->\n```\n(.*?)```", _text("README.md"), re.DOTALL)
    assert found is not None
    command, *shown = found[1].splitlines()
    line = command.removeprefix("$ ")
    assert line in _blocks("README.md", "sh")[0]
    capsys.readouterr()
    assert _run(line, monkeypatch) == 0
    printed = [one.rstrip() for one in capsys.readouterr().out.splitlines()]
    assert list(map(_rough, shown)) == list(map(_rough, printed))


def _rough(line: str) -> str:
    return re.sub(r"\d[\d.e-]*", "#", line) if line.startswith("checks:") else line.rstrip()


def test_every_example_of_the_api_runs(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {"__name__": "example"}
    blocks = _blocks("docs/api.md", "python")
    assert len(blocks) >= 7
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert "pooled\n" in printed
    assert "E201" in printed


def test_the_python_of_the_readme_runs(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = _blocks("README.md", "python")
    exec(compile(block, "README.md", "exec"), {"__name__": "example"})
    assert "'2': 123" in capsys.readouterr().out


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "SECURITY.md"])
def test_links_lead_somewhere(page: str) -> None:
    here = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", _text(page))
    local = [link for link in links if "://" not in link]
    assert not [link for link in local if not (here / link).exists()]


def test_the_picture_is_what_its_script_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope: dict[str, Any] = {"__name__": "picture", "__file__": str(ROOT / "docs/make_picture.py")}
    exec(compile(_text("docs/make_picture.py"), "make_picture.py", "exec"), scope)
    draw: Callable[[], str] = scope["picture"]
    assert draw() == _text("docs/leak.svg")
