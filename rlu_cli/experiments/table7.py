"""Table 7: applicability of each method, here and as printed. Nothing is simulated."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from rlu_cli.attacks import ATTACKS
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.write import caption, markdown_table, write_csv, write_text

# Printed column: field of a method.
COLUMNS: Mapping[str, str] = {
    "Batch": "batch",
    "Repeating Labels": "repeated",
    "Activation-agnostic": "any_activation",
    "Multiple Epochs": "several_steps",
    "Trained Model": "trained",
}
_FIELDS = tuple(COLUMNS.values())
PRINTED: Mapping[str, str] = {  # x for a cross, v for a check mark, in the order of the columns
    "idlg": "xxxxv",
    "gi": "vxxxv",
    "rlg": "vxvvv",
    "llg": "vvxxv",
    "zlg": "vvxxx",
    "irlg": "vvvxx",
    "rlu": "vvvvv",
}
BASES: Mapping[str, str] = {"llg-star": "llg", "llg+": "llg", "zlg+": "zlg"}  # method: printed row
REASONS: Mapping[tuple[str, str], str] = {
    ("llg-star", "several_steps"): "its dummy images are evaluated on both models of the round",
    ("llg+", "several_steps"): "its auxiliary images are evaluated on both models of the round",
    ("zlg+", "several_steps"): "its auxiliary images are evaluated on both models of the round",
}
EXPLAINED = (
    "Each cell: here / as printed, – if the paper has no such row. LLG*, LLG+ and ZLG+, which "
    "the paper's tables run but Table 7 does not list, are compared with the row of the method "
    "they derive from. **Bold**: not as printed."
)


def printed(method: str) -> dict[str, bool] | None:
    """Field → printed mark of a method or of its base method; None if it has no row."""
    marks = PRINTED.get(BASES.get(method, method))
    if marks is None:
        return None
    return {field: mark == "v" for field, mark in zip(_FIELDS, marks, strict=True)}


def differences() -> list[tuple[str, str]]:
    """Method and field of every cell that differs from the print."""
    return [
        (name, field)
        for name, method in ATTACKS.items()
        for field, mark in (printed(name) or {}).items()
        if getattr(method, field) is not mark
    ]


def run(lab: Lab, name: str) -> list[Path]:
    """Write the table and a CSV."""
    header = ["Method", *COLUMNS, "gives", "any optimiser", "paper"]
    parts = [
        "# Table 7: applicability of each method",
        caption(lab, [date.today().isoformat()]),
        EXPLAINED,
        markdown_table(header, [_row(method) for method in ATTACKS]),
        "Not as printed:",
        "\n".join(f"- {_why(*cell)}" for cell in differences()) or "- nothing",
    ]
    return [
        write_text(lab.out / f"{name}.md", "\n\n".join(parts) + "\n"),
        write_csv(lab.out / f"{name}.csv", [_line(method) for method in ATTACKS]),
    ]


def _row(name: str) -> list[str]:
    method, marks = ATTACKS[name], printed(name)
    cells = [_cell(getattr(method, f), None if marks is None else marks[f]) for f in _FIELDS]
    return [method.title, *cells, method.gives, _said(method.any_optimiser), method.paper]


def _cell(here: bool, print_: bool | None) -> str:
    if print_ is None:
        return f"{_said(here)} / –"
    text = f"{_said(here)} / {_said(print_)}"
    return text if here is print_ else f"**{text}**"


def _said(value: bool) -> str:
    return "yes" if value else "no"


def _why(name: str, field: str) -> str:
    column = next(column for column, known in COLUMNS.items() if known == field)
    return f"{ATTACKS[name].title}, {column}: {REASONS[name, field]}"


def _line(name: str) -> dict[str, Any]:
    method, marks = ATTACKS[name], printed(name) or {}
    here = {field: _said(getattr(method, field)) for field in _FIELDS}
    there = {f"printed_{f}": _said(marks[f]) if f in marks else None for f in _FIELDS}
    return {"method": name, "title": method.title, **here, **there, "gives": method.gives}
