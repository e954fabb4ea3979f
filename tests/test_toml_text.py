"""TOML of others: names that nest without end are refused before they are parsed."""

from __future__ import annotations

import time

import pytest

from rlu_cli.toml_text import parse_toml


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 20_000 + " = 1",
        'a."="' * 20_000 + " = 1",
        "[a" + " . a" * 20_000 + "]",
        'x = {b = "\\"", a' + '."="' * 20_000 + " = 1}",
        "x = [{a" + ".','" * 20_000 + " = 1}]",
    ],
)
def test_names_of_many_parts(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="parts"):
        parse_toml(text)
    assert time.process_time() - started < 20


def test_what_has_many_points_and_is_no_name() -> None:
    listed = ", ".join(["0.25"] * 1000)
    text = f'class_weights = [{listed}]\npath = "{"a." * 100}"\na.b.c = 1\r\n'
    found = parse_toml(text)
    assert len(found["class_weights"]) == 1000
    assert found["a"] == {"b": {"c": 1}}


@pytest.mark.parametrize(
    "text", ['"' * 2**19, "'" * 2**19, "a" * 2**20, "\\" * 2**20, '"\\' * 2**19]
)
def test_looking_for_them_takes_no_time(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match=r"\S"):
        parse_toml(text)
    assert time.process_time() - started < 20
