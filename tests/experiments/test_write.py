"""What tables say of measurements that are made up."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from rlu_cli.experiments.cell import Cell, printed
from rlu_cli.experiments.figure2 import losses
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.measure import Left, Row
from rlu_cli.experiments.scale import SCALES
from rlu_cli.experiments.setup import usual
from rlu_cli.experiments.summary import best_other, cell_text, mean_of, verdict
from rlu_cli.experiments.table6 import fits
from rlu_cli.experiments.write import markdown_table, write_table

SPLIT = {"error": 0.02, "weights": 0.01, "rounding": 0.0}


def _record(client: int, own: int = 1000, **iacc: float) -> dict[str, Any]:
    return {
        "client": client,
        "own": own,
        "images": 20_000,
        "reached": None,
        "floor": {"cacc": 0.1, "iacc": 0.4, "exact": 0.0},
        "methods": {
            name.replace("_plus", "+"): {"cacc": 1.0, "iacc": value, "exact": 0.5, "status": "ok"}
            for name, value in iacc.items()
        },
        "split": SPLIT,
        "date": f"2026-01-0{client + 1}",
    }


def _row(*records: dict[str, Any], paper: float = 0.9, **changes: Any) -> Row:
    cell = Cell("SVHN-relu", usual("SVHN", **changes), printed(0.5, 0.6, 0.7, paper))
    return Row(cell, cell.setup, "MNIST32 (stand-in for SVHN)", "MNIST32", 100, records)


def test_a_mean_has_its_standard_error_and_number() -> None:
    found = mean_of([0.8, 1.0])
    assert found is not None
    assert str(found) == "0.900 ± 0.100 (2)"
    assert str(mean_of([0.5])) == "0.500 (1)"
    assert mean_of([]) is None


def test_a_cell_puts_the_papers_figure_beside_ours() -> None:
    row = _row(_record(0, rlu=0.8), _record(1, rlu=1.0))
    assert cell_text(row, "rlu", "iacc") == "0.900 ± 0.100 (2) / 0.900"
    assert cell_text(row, "irlg", "iacc") == "– / 0.700"
    assert cell_text(row, "rlu", "cacc") == "1.000 ± 0.000 (2)"


@pytest.mark.parametrize(
    ("rlu", "irlg", "said"),
    [
        ((0.95, 0.95), (0.9, 0.9), "reached"),
        ((0.8, 0.98), (0.7, 0.8), "reached"),  # within two standard errors of the paper's 0.9
        ((0.8, 0.8), (0.7, 0.8), "below the paper (-0.100)"),
        ((0.95, 0.95), (0.97, 0.97), "below irlg (-0.020)"),
        ((0.8997, 0.8997), (0.1, 0.1), "reached"),  # it prints as the paper's figure does
    ],
)
def test_the_verdict(rlu: tuple[float, float], irlg: tuple[float, float], said: str) -> None:
    row = _row(*(_record(n, rlu=a, irlg=b) for n, (a, b) in enumerate(zip(rlu, irlg, strict=True))))
    assert verdict(row) == said


def test_a_single_client_has_no_standard_error_to_hide_behind() -> None:
    assert verdict(_row(_record(0, rlu=0.85))) == "below the paper (-0.050)"


def test_the_best_other_method_is_no_floor() -> None:
    row = _row(_record(0, rlu=1.0, uniform=0.9, prior=0.95, gi=0.7, llg_plus=0.8))
    assert best_other(row) == "llg+"
    assert best_other(_row(_record(0, rlu=1.0, uniform=0.9))) is None


def _written(tmp_path: Path, rows: list[Row], left: list[Left]) -> tuple[str, list[dict[str, str]]]:
    lab = Lab(None, tmp_path, SCALES["small"], torch.device("cpu"), "rlu reproduce table9")
    markdown, table = write_table(lab, "table9", "Table 9", rows, left, notes=["A note."])
    with table.open(newline="") as stream:
        return markdown.read_text("utf-8"), list(csv.DictReader(stream))


def test_the_files_say_what_was_run_and_what_was_not(tmp_path: Path) -> None:
    row = _row(_record(0, own=100, rlu=0.8, irlg=0.7), _record(1, rlu=1.0, irlg=0.7))
    left = [Left("SVHN-tanh", "no SVHN nor MNIST32 in DATA")]
    text, lines = _written(tmp_path, [row], left)
    line = next(part for part in text.splitlines() if part.startswith("| SVHN-relu"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert "MNIST32 (stand-in for SVHN), 20,000 training images" in line
    assert cells[2:5] == ["100 of MNIST32", "2 of 10", "1"]  # client 0 has fewer than 10 · 32
    assert "iRLG 0.700 ± 0.000 (2) / 0.700" in cells
    assert "0.020 / 0.010 / 0.000" in cells
    for said in ("`rlu reproduce table9`", "2026-01-01 to 2026-01-02", "scale small", "A note."):
        assert said in text
    assert "- SVHN-tanh: no SVHN nor MNIST32 in DATA" in text
    assert [(one["client"], one["method"], one["iacc"]) for one in lines] == [
        ("0", "rlu", "0.8"),
        ("0", "irlg", "0.7"),
        ("1", "rlu", "1.0"),
        ("1", "irlg", "0.7"),
    ]
    assert [one["lost_error"] for one in lines] == ["0.02", "", "0.02", ""]
    assert {one["paper_iacc"] for one in lines} == {"0.9", "0.7"}


def test_a_refusal_is_shown_and_not_averaged(tmp_path: Path) -> None:
    record = _record(0, rlu=0.9)
    record["methods"]["irlg"] = {"refused": "not for this client"}
    text, lines = _written(tmp_path, [_row(record)], [])
    assert "| – / 0.700 |" in text
    assert [one["status"] for one in lines] == ["ok", "not for this client"]


def test_pipes_stay_inside_their_cell() -> None:
    assert markdown_table(["a"], [["x|y"]]).splitlines()[-1] == "| x\\|y |"


def test_the_reading_of_the_noise_that_fits_is_named() -> None:
    rows = [
        _row(_record(0, rlu=0.91), _record(1, rlu=0.89), noise=0.1, noise_on="sample"),
        _row(_record(0, rlu=0.3), _record(1, rlu=0.31), noise=0.1, noise_on="batch"),
    ]
    said = " ".join(fits(rows))
    assert "*sample* is the nearer" in said
    assert "none" in said
    assert "(-0.595)" in " ".join(fits(rows[1:]))


def test_what_fewer_images_cost_is_said_in_points() -> None:
    most = _row(_record(0, rlu=0.95), _record(1, rlu=0.95))
    from dataclasses import replace

    fewer = replace(_row(_record(0, rlu=0.93), _record(1, rlu=0.93)), per_class=5)
    (sentence,) = losses([most, fewer])
    assert "5 images a class instead of 100 lose 2.000 ± 0.000 (2) points" in sentence
