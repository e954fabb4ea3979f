"""How many virtual clients an effort trains, and when `auto` goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rlu_cli
from rlu_cli import Finding
from rlu_cli.errors import UsageError
from rlu_cli.evidence import observations

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_data"


def found(folder: Path = SAMPLE / "trained", **settings: Any) -> Finding:
    return rlu_cli.attack(
        folder / "g.pt", folder / "c3.pt", SAMPLE / "aux", method="pooled", device="cpu", **settings
    )


def tried(finding: Finding) -> int:
    recovery = finding.first.recovery
    assert recovery is not None
    count: int = recovery.diagnostics["virtual_trials"]
    return count


def test_quick_trains_none_and_thorough_eight() -> None:
    quick, thorough = found(effort="quick"), found(effort="thorough")
    assert tried(quick) == 0
    assert tried(thorough) == observations.MOST_TRIALS
    weights = thorough.first.recovery.diagnostics["weights"]  # type: ignore[union-attr]
    assert sum(weights.values()) == pytest.approx(1)
    assert sum(thorough.counts.values()) == 320  # type: ignore[union-attr]


def test_auto_goes_on_where_the_answer_is_not_reliable_and_the_cost_is_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert found(effort="quick").verdict.level != "reliable"
    monkeypatch.setattr(observations, "_TIMES", 0.1)
    assert tried(found()) == 0
    monkeypatch.setattr(observations, "_TIMES", 1e3)
    assert tried(found()) == observations.MOST_TRIALS
    assert tried(found(SAMPLE)) == 0  # reliable already


def test_an_unknown_effort_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="auto, quick, standard") as refused:
        found(effort="much")
    assert refused.value.code == "E101"


def test_a_prior_is_one_concentration_or_a_range() -> None:
    few, even = found(prior=0.05, effort="quick"), found(prior="50:100", effort="quick")
    concentration = [one.first.recovery.diagnostics["concentration"] for one in (few, even)]  # type: ignore[union-attr]
    assert concentration[0] == pytest.approx(0.05)
    assert 50 <= concentration[1] <= 100


@pytest.mark.parametrize("given", ["0.1:0.01", "a", "1:2:3", 0, -1])
def test_what_is_no_concentration_is_refused(given: Any) -> None:
    with pytest.raises(UsageError) as refused:
        found(prior=given)
    assert refused.value.code == "E101"
