"""Results survive a kill, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlu_cli.ledger import Ledger, key_of


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    file = tmp_path / "out" / "results.jsonl"
    Ledger(file).add("a", {"iacc": 0.5})
    again = Ledger(file)
    assert again.get("b") is None
    again.add("b", {"iacc": 0.75})
    found = [Ledger(file).get(key) for key in ("a", "b")]
    assert [row["iacc"] if row else None for row in found] == [0.5, 0.75]


@pytest.mark.parametrize("torn", [b'{"key": "b", "ia', b"\xff\xfe", b'"b"', b"[1]"])
def test_a_torn_last_line_is_ignored_and_closed_off(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / "results.jsonl"
    Ledger(file).add("a", {"n": 1})
    with file.open("ab") as stream:
        stream.write(torn)
    ledger = Ledger(file)
    assert ledger.get("a") is not None
    assert ledger.get("b") is None
    ledger.add("c", {"n": 3})
    assert Ledger(file).get("c") == {"key": "c", "n": 3}
    assert Ledger(file).get("a") == {"key": "a", "n": 1}


def test_a_key_tells_settings_apart_and_not_their_order() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
