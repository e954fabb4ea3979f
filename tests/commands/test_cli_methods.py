"""`rlu methods`: every method is shown whole, whatever it is shown on."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from rlu_cli.attacks import ATTACKS
from rlu_cli.commands import methods as command
from rlu_cli.commands.methods import CAPABILITIES, methods


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What is printed, as the table of what methods can do and that of their papers."""
    methods()
    out, err = capsys.readouterr()
    assert err == ""
    table, _, papers = out.partition(command.LEGEND)
    return table, papers


def test_every_method_is_shown_with_its_title_and_paper(shown: tuple[str, str]) -> None:
    rows = {line.split()[0]: line for line in shown[1].splitlines() if line.strip()}
    for name, method in ATTACKS.items():
        assert method.title in rows[name]
        assert method.paper in rows[name]


def test_every_capability_is_the_methods_own(shown: tuple[str, str]) -> None:
    rows = {line.split()[0]: line.split()[1:] for line in shown[0].splitlines() if line.strip()}
    marks = {"yes": True, "no": False}
    for name, method in ATTACKS.items():
        gives, *can = rows[name][: 1 + len(CAPABILITIES)]
        assert gives == method.gives
        assert [marks[mark] for mark in can] == [getattr(method, f) for f in CAPABILITIES.values()]
        assert ("images" in rows[name]) is method.auxiliary


def test_what_a_method_needs_besides_is_named(shown: tuple[str, str]) -> None:
    for need in {need for method in ATTACKS.values() for need in method.needs}:
        assert need.name in shown[0]
        assert f"{need.name}:" in command.LEGEND


def test_what_methods_can_do_fits_a_terminal_of_80_columns(shown: tuple[str, str]) -> None:
    lines = [*shown[0].splitlines(), *command.LEGEND.splitlines()]
    assert max(cell_len(line.rstrip()) for line in lines) <= 80


def test_a_narrow_encoding_does_not_cost_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", narrow)
    methods()
    assert b"Ramakrishna-D" in narrow.buffer.getvalue()
