"""YAML of others: objects are never built, small texts stay small, absence is a sentence."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from rlu_cli.errors import UsageError
from rlu_cli.runs.yaml_text import _loader, parse_yaml

pytest.importorskip("yaml", reason='PyYAML is not installed: pip install "rlu-cli[yaml]"')


@pytest.mark.parametrize(
    "tag",
    [
        '!!python/object/apply:os.system ["touch ran"]',
        "!!python/name:os.system",
        "!!python/module:os",
        '!!python/object/new:os.system ["touch ran"]',
        "!own {a: 1}",
        "!!python/tuple [1, 2]",
    ],
)
def test_objects_are_none(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_yaml(f"lr: 0.1\nmodel: {tag}\n") == {"lr": 0.1, "model": None}
    assert not list(tmp_path.iterdir())


def test_a_few_aliases_are_read() -> None:
    assert parse_yaml("a: &a {lr: 0.1}\nb: {<<: *a, epochs: 2}")["b"] == {"lr": 0.1, "epochs": 2}


def test_merges_of_merges_are_refused() -> None:
    """Each doubles the one before: thirty of them would be a billion entries."""
    lines = ["a0: &a0 {x: 1}"] + [
        f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}" for n in range(1, 31)
    ]
    started = time.process_time()
    with pytest.raises(ValueError, match="aliases"):
        parse_yaml("\n".join(lines))
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "text",
    [
        "a: b: c",
        "a: [",
        "when: 2001-99-99",
        f"n: {'9' * 5000}",
        "? [1]\n: 2",
        "? {a: 1}\n: 2",
        "a: !!int x",
        "a: !!float ''",
        "a: !!timestamp x",
        "a: !!bool maybe",
        "\x00",
        "%YAML 9.9\n---\na: 1",
        "a: !<tag:yaml.org,2002:set> [1]",
    ],
)
def test_what_is_no_yaml_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_yaml(text)


def test_absence_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    _loader.cache_clear()
    try:
        with pytest.raises(UsageError) as caught:
            parse_yaml("lr: 1")
    finally:
        _loader.cache_clear()
    assert caught.value.code == "E107"
    assert "rlu-cli[yaml]" in caught.value.hint
