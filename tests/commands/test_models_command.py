"""`rlu models`: everything in the table is shown, and asking for help does not load torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rlu_cli
from rlu_cli.commands.models import models
from rlu_cli.models import ARCHITECTURES, SOURCES


def test_every_architecture_and_option_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    models()
    out, err = capsys.readouterr()
    assert err == ""
    for architecture in ARCHITECTURES.values():
        assert architecture.name in out
        assert architecture.summary in out
        assert all(option in out for option in architecture.usage())


def test_every_package_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    models()
    out, _ = capsys.readouterr()
    assert set(SOURCES) == {"torchvision", "timm", "hf"}
    for source in SOURCES.values():
        assert source.usage in out
        assert source.summary in out


def test_importing_the_command_does_not_import_torch() -> None:
    code = "import sys, rlu_cli.commands.models; sys.exit('torch' in sys.modules)"
    root = Path(rlu_cli.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
