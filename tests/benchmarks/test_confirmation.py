"""The confirmation set is fixed: the draw, its groups, and what its tables count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from confirmation_grid import ALPHAS, IMAGES, MODELS, ROUNDS, SETS, WAYS, Case, draw
from confirmation_table import held, is_silent, render


def _values(cases: list[Case], name: str) -> Counter[Any]:
    return Counter(getattr(case if name in vars(case) else case.line, name) for case in cases)


@pytest.mark.parametrize("name", SETS)
def test_the_draw_is_always_the_same(name: str) -> None:
    assert draw(name) == draw(name)


@pytest.mark.parametrize("name", SETS)
def test_every_group_has_cases(name: str) -> None:
    cases = draw(name)
    assert len({case.name for case in cases}) == SETS[name].cases
    assert len({case.global_name for case in cases}) == SETS[name].lines * SETS[name].stages
    present: dict[str, Iterable[Any]] = {"data": SETS[name].data, "model": MODELS, "way": WAYS}
    for part, values in present.items():
        assert set(_values(cases, part)) == set(values)
    even: dict[str, Iterable[Any]] = {"alpha": ALPHAS, "images": IMAGES, "round": ROUNDS}
    for part, values in even.items():
        found = _values(cases, part)
        assert set(found) == set(values)
        assert max(found.values()) - min(found.values()) <= 1


def test_no_seed_is_in_both_sets() -> None:
    seeds = [{case.line.seed for case in draw(name)} for name in SETS]
    assert not seeds[0] & seeds[1]


def _line(**changes: Any) -> dict[str, Any]:
    """A recorded line: three classes, the last one absent."""
    facts = {"case": "case000", "data": "MNIST32", "model": "cnn", "head_bias": True}
    facts |= {"stage": "late", "way": "central", "alpha": 0.5, "batch_size": 16}
    facts |= {"round": "1 batch", "images": "5", "recognise": False, "reached": 0.9}
    facts |= {"method": "auto", "error": None, "exit": 0, "ok": True, "verdict": None}
    scores = {"iacc": 0.9, "cacc": 1.0, "floor": 0.5}
    found = {"truth": [6, 10, 0], "counts": [7, 9, 0], "low": [5, 7, 0], "high": [8, 9, 1]}
    expected = {"value": 0.92, "low": 0.85, "high": 0.95}
    return {**facts, **scores, **found, "expected": expected, **changes}


def test_intervals_are_counted_by_presence() -> None:
    assert held([_line()], present=True) == (1, 2)
    assert held([_line()], present=False) == (1, 1)
    assert held([_line(low=[None] * 3)], present=True) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "silent"),
    [
        ({}, False),  # half of the intervals miss, and yet the counts are close
        ({"iacc": 0.6}, True),
        ({"iacc": 0.6, "exit": 4}, False),
        ({"iacc": 0.6, "low": [5, 7, 0], "high": [8, 12, 1]}, False),
        ({"iacc": None, "error": "E215"}, False),
    ],
)
def test_silent_wrong_answers(changes: dict[str, Any], silent: bool) -> None:
    assert is_silent(_line(**changes)) == silent


def test_tables_show_every_method_and_failure() -> None:
    below = _line(case="case001", verdict="reliable", iacc=0.4, method="rlu")
    failed = {k: v for k, v in _line(case="case002").items() if k != "iacc"} | {"error": "E215"}
    text = render([_line(), below, failed])
    assert "| MNIST32 | 1 of 2 | 2 |" in text
    assert "auto: E215, 1" in text
    assert "Reliable, but below the uniform guess: 1 of 1" in render([_line(), below], "rlu")
