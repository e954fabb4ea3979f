"""The recipe in CONTRIBUTING.md for a new attack works as written."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from rlu_cli.attacks import ATTACKS, Method
from rlu_cli.cli import main

ROOT = Path(__file__).parents[1]


def _example(name: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_an_attack_is_one_file_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = _example("attack")
    assert len(code.splitlines()) <= 24
    module: dict[str, object] = {"__name__": "negative_gradient"}
    exec(compile(code, "negative_gradient.py", "exec"), module)
    method = module["METHOD"]
    assert isinstance(method, Method)
    monkeypatch.setitem(ATTACKS, "negative-gradient", method)
    sample = ROOT / "sample_data"
    words = ["rlu", "attack", "--method", "negative-gradient", "--format", "json"]
    files = ["--global", sample / "g.pt", "--local", sample / "c3.pt", "--aux", sample / "aux"]
    monkeypatch.setattr(sys, "argv", [*words, *map(str, files)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (None, 0)
    report = json.loads(capsys.readouterr().out)
    counts = [row["count"] for row in report["result"]["counts"]]
    assert sum(counts) == 320
    assert report["metrics"]["iacc"] > report["metrics"]["floor_iacc"]
    assert "made for one step" in report["warnings"][0]["text"]


def test_the_guide_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:rlu_cli|tests|docs)/[\w/.]+\.(?:py|md))`", text))
    assert named
    assert not [name for name in named if "NAME" not in name and not (ROOT / name).is_file()]
