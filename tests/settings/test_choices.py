"""Names of tables are read from source; they are those that the tables really have."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlu_cli.attacks import ATTACKS
from rlu_cli.models import ARCHITECTURES
from rlu_cli.reports import FORMATS
from rlu_cli.schemes import SCHEMES
from rlu_cli.settings import choices
from rlu_cli.settings.choices import table_names

TABLES = {
    ("attacks/__init__.py", "ATTACKS"): tuple(ATTACKS),
    ("schemes/__init__.py", "SCHEMES"): tuple(SCHEMES),
    ("models/table.py", "ARCHITECTURES"): tuple(ARCHITECTURES),
    ("reports/__init__.py", "FORMATS"): tuple(FORMATS),
}


@pytest.mark.parametrize("place", TABLES, ids=lambda place: place[1])
def test_names_read_from_source_are_those_of_the_table(place: tuple[str, str]) -> None:
    assert table_names(*place) == TABLES[place]
    assert TABLES[place]


def test_a_package_without_its_source_has_no_names_to_offer() -> None:
    assert table_names("attacks/gone.py", "ATTACKS") == ()


def test_a_table_that_is_not_there_has_no_names() -> None:
    assert table_names("attacks/__init__.py", "SCHEMES") == ()


def test_only_texts_of_an_annotated_dict_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "_ROOT", tmp_path)
    lines = [
        'PLAIN = {"a": 1}',
        'LISTED: list[str] = ["a"]',
        'TABLE: dict[object, int] = {"a": 1, 2: 2, name: 3, **others, "b": 4}',
    ]
    (tmp_path / "table.py").write_text("\n".join(lines), encoding="utf-8")
    assert table_names("table.py", "PLAIN") == ()
    assert table_names("table.py", "LISTED") == ()
    assert table_names("table.py", "TABLE") == ("a", "b")
