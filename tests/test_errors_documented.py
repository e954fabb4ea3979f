"""Every code of an error or a warning is documented, and some test names it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import rlu_cli

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"(?<![A-Za-z0-9])[EW]\d{3}(?!\d)")


def _texts(path: Path) -> Iterator[str]:
    """String constants of a file, its docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.value


def _raised() -> set[str]:
    """Codes in the package: string constants that are a code and nothing else."""
    files = Path(rlu_cli.__file__).parent.rglob("*.py")
    return {text for path in files for text in _texts(path) if CODE.fullmatch(text)}


def _rows(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith("|")]


def _documented_errors() -> list[str]:
    """Codes in the first column of the table of errors."""
    found = (re.match(r"\| (E\d{3}) \| \S", row) for row in _rows("errors.md"))
    return [match[1] for match in found if match is not None]


def _documented_warnings() -> list[str]:
    """Codes in the first column of the table of checks."""
    return [
        code
        for row in _rows("diagnostics.md")
        for code in CODE.findall(row.split("|")[1])
        if code.startswith("W")
    ]


def _tested() -> set[str]:
    """Codes in texts of the tests."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {code for path in files for text in _texts(path) for code in CODE.findall(text)}


def test_the_package_has_codes() -> None:
    assert {"E101", "E201", "E900", "W301"} <= _raised()


def test_every_error_is_documented_and_every_documented_one_exists() -> None:
    raised = {code for code in _raised() if code.startswith("E")}
    assert sorted(raised) == sorted(set(_documented_errors()))


def test_every_warning_is_documented_and_every_documented_one_exists() -> None:
    raised = {code for code in _raised() if code.startswith("W")}
    assert sorted(raised) == sorted(set(_documented_warnings()))


def test_errors_are_listed_once_and_in_order() -> None:
    listed = _documented_errors()
    assert listed == sorted(set(listed))


def test_every_code_is_named_by_a_test() -> None:
    assert sorted(_raised() - _tested()) == []
