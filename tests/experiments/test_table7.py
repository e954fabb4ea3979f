"""Table 7: what the table of methods says beside what the paper prints."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from rlu_cli.attacks import ATTACKS
from rlu_cli.experiments import TARGETS
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.scale import SCALES
from rlu_cli.experiments.table7 import BASES, COLUMNS, PRINTED, REASONS, differences, printed


@pytest.fixture
def written(tmp_path: Path) -> list[Path]:
    lab = Lab(None, tmp_path, SCALES["full"], torch.device("cpu"), "rlu reproduce table7")
    return TARGETS["table7"].load()(lab, "table7")


def test_every_printed_row_is_a_method_and_has_every_column() -> None:
    assert set(PRINTED) <= set(ATTACKS)
    assert {len(marks) for marks in PRINTED.values()} == {len(COLUMNS)}
    assert {mark for marks in PRINTED.values() for mark in marks} == {"x", "v"}


def test_every_difference_from_the_print_has_its_reason_and_no_other() -> None:
    assert set(differences()) == set(REASONS)
    assert all(REASONS.values())


def test_printed_rows_themselves_are_as_printed() -> None:
    assert not [name for name, _ in differences() if name not in BASES]


def test_a_method_without_a_row_in_print_differs_from_nothing() -> None:
    unprinted = [name for name in ATTACKS if BASES.get(name, name) not in PRINTED]
    assert unprinted
    assert {printed(name) for name in unprinted} == {None}
    assert not {name for name, _ in differences()} & set(unprinted)


def test_markdown_marks_each_difference_and_shows_every_method(written: list[Path]) -> None:
    text = written[0].read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {m.title}" for m in ATTACKS.values()]
    assert sum(row.count("**") for row in rows) == 2 * len(differences())
    for name, field in differences():
        assert f"{ATTACKS[name].title}, " in text
        assert REASONS[name, field] in text


def test_csv_holds_the_same(written: list[Path]) -> None:
    with written[1].open(encoding="utf-8", newline="") as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream)}
    assert list(rows) == list(ATTACKS)
    for name, row in rows.items():
        marks = printed(name) or {}
        for field in COLUMNS.values():
            assert (row[field] == "yes") is getattr(ATTACKS[name], field)
            assert (row[f"printed_{field}"] or None) == (
                {True: "yes", False: "no"}.get(marks[field]) if marks else None
            )
