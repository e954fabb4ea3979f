"""The verdict: when an answer is reliable, and the cause that is named where it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlu_cli.audit.credibility import Credibility
from rlu_cli.audit.explanations import Explanation
from rlu_cli.audit.verdict import RELIABLE, ROUGH, UNRELIABLE, Circumstances, verdict
from rlu_cli.types import Recovery, Status

PLAIN = Circumstances(mistaken=None, images=100, folds=0.1, separates=True)


def answer(**diagnostics: object) -> Recovery:
    shares = torch.tensor([0.5, 0.5], dtype=torch.float64)
    return Recovery(shares, None, Status.SOLVED, diagnostics)


def known(expected: float, low: float, floor: float) -> Credibility:
    bounds = torch.zeros(2), torch.ones(2)
    return Credibility(*bounds, None, None, (expected, low, 1.0), floor, own=True)


@pytest.mark.parametrize(
    ("expected", "low", "floor", "level"),
    [
        (0.98, 0.95, 0.5, RELIABLE),
        (0.97, 0.95, 0.96, RELIABLE),  # near even shares, and known to be
        (0.92, 0.6, 0.5, ROUGH),
        (0.8, 0.7, 0.5, ROUGH),
        (0.6, 0.4, 0.5, UNRELIABLE),
    ],
)
def test_the_level_follows_from_the_expected_accuracy(
    expected: float, low: float, floor: float, level: str
) -> None:
    assert verdict(answer(), known(expected, low, floor), PLAIN).level == level


def test_a_reliable_answer_has_no_cause() -> None:
    found = verdict(answer(), known(0.98, 0.95, 0.5), PLAIN)
    assert found.cause is None
    assert found.advice is None


def test_a_mistake_makes_any_answer_unreliable() -> None:
    mistake = Explanation("swapped", 50.0, "the files are swapped", "swap them")
    found = verdict(answer(), known(0.98, 0.95, 0.5), replace(PLAIN, mistaken=mistake))
    assert (found.level, found.cause, found.advice) == (
        UNRELIABLE,
        "the files are swapped",
        "swap them",
    )
    assert found.redacted is None


def test_a_mistake_that_names_classes_is_hidden_in_a_redacted_report() -> None:
    mistake = Explanation("class order", 50.0, "2 is named cat", "rename it", private=True)
    found = verdict(answer(), None, replace(PLAIN, mistaken=mistake))
    assert found.redacted is not None
    assert "cat" not in found.redacted


def test_a_solver_that_failed_is_unreliable() -> None:
    failed = replace(answer(), status=Status.UNSOLVED)
    found = verdict(failed, known(0.98, 0.95, 0.5), PLAIN)
    assert found.level == UNRELIABLE
    assert found.cause == Status.UNSOLVED.value


def test_an_unknown_error_is_rough() -> None:
    found = verdict(answer(), None, PLAIN)
    assert found.level == ROUGH
    assert found.advice is not None


@pytest.mark.parametrize(
    ("diagnostics", "changes", "words"),
    [
        ({}, {"folds": 4.0}, "adapted"),
        ({"noise": {"discrepancy": 0.2}}, {}, "differ from the client's"),
        ({}, {"images": 5}, "only 5 auxiliary images"),
        ({"error_ratio": 0.5}, {}, "trained on the client's images"),
        ({}, {}, "does not single out"),
    ],
)
def test_the_most_likely_cause_is_named(
    diagnostics: dict[str, object], changes: dict[str, object], words: str
) -> None:
    case = replace(PLAIN, **changes)  # type: ignore[arg-type]
    found = verdict(answer(**diagnostics), known(0.8, 0.7, 0.5), case)
    assert found.cause is not None
    assert words in found.cause
    assert found.advice
