"""`rlu methods`: every method is shown whole, whatever it is shown on."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from rlu_cli.attacks import ATTACKS
from rlu_cli.commands import methods as command
from rlu_cli.commands.methods import CAPABILITIES, methods

Shown = tuple[str, str, str]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """The tables of what methods can do, of what they need, and of their papers."""
    methods()
    out, err = capsys.readouterr()
    assert err == ""
    table, _, rest = out.partition(command.LEGEND)
    needs, _, papers = rest.partition("method ")
    return table, papers, needs


def test_every_method_is_shown_with_its_title_and_paper(shown: Shown) -> None:
    rows = {line.split()[0]: line for line in shown[1].splitlines() if line.strip()}
    for name, method in ATTACKS.items():
        assert method.title in rows[name]
        assert method.paper in rows[name]


def test_every_capability_is_the_methods_own(shown: Shown) -> None:
    rows = {line.split()[0]: line.split()[1:] for line in shown[0].splitlines() if line.strip()}
    marks = {"yes": True, "no": False}
    for name, method in ATTACKS.items():
        gives, *can = rows[name][: 1 + len(CAPABILITIES)]
        assert gives == method.gives
        assert [marks[mark] for mark in can] == [getattr(method, f) for f in CAPABILITIES.values()]


def test_what_a_method_needs_is_named_with_all_that_need_it(shown: Shown) -> None:
    rows = {line.split("  ")[0].strip(): line for line in shown[2].splitlines() if line.strip()}
    needs = {need for method in ATTACKS.values() for need in method.needs}
    for need in needs:
        row = next(row for start, row in rows.items() if start.startswith(need.name))
        assert need.summary in row
        users = [name for name, method in ATTACKS.items() if need in method.needs]
        assert row.rstrip().endswith(", ".join(users))
    images = next(row for start, row in rows.items() if start.startswith("images"))
    assert images.rstrip().endswith(", ".join(n for n, m in ATTACKS.items() if m.auxiliary))


def test_what_methods_can_do_fits_a_terminal_of_80_columns(shown: Shown) -> None:
    lines = [*shown[0].splitlines(), *command.LEGEND.splitlines()]
    assert max(cell_len(line.rstrip()) for line in lines) <= 80


def test_a_narrow_encoding_does_not_cost_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", narrow)
    methods()
    assert b"Ramakrishna-D" in narrow.buffer.getvalue()
