"""One method's part of the report: counts, intervals, scores, warnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rlu_cli.attacks import ATTACKS, COUNTS, SET
from rlu_cli.audit.credibility import Credibility
from rlu_cli.audit.finding import CaseFinding, MethodFinding
from rlu_cli.audit.identifiability import unidentifiable
from rlu_cli.audit.scoring import Score
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.errors import printable
from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.reports.schema import (
    LONGEST_TEXT,
    ClassCount,
    Interval,
    MethodResult,
    Metrics,
    Notice,
    Result,
    VerdictPart,
)
from rlu_cli.types import Recovery


def method_part(finding: CaseFinding, found: MethodFinding, *, redact: bool) -> MethodResult:
    recovery = found.recovery
    return MethodResult(
        method=found.method,
        title=ATTACKS[found.method].title,
        refused=found.refused,
        chosen=found.chosen,
        result=None if recovery is None else _result(finding, found, recovery, redact=redact),
        metrics=_metrics(found.score, finding.floor),
        diagnostics={} if recovery is None else dict(recovery.diagnostics),
        warnings=notices(found.warnings, redact=redact),
    )


def _result(
    finding: CaseFinding, found: MethodFinding, recovery: Recovery, *, redact: bool
) -> Result:
    names, present = finding.case.auxiliary.class_names, recovery.present
    shares = recovery.shares.tolist()
    counts = [None] * len(names) if recovery.counts is None else recovery.counts.tolist()
    per_pass = _per_pass(finding, recovery.counts)
    known = {**_bounds(found.credibility), **_unidentifiable(recovery)}
    rows = [
        ClassCount(index=n, name=None, count=None, share=None)
        if redact
        else ClassCount(
            index=n,
            name=printable(names[n], LONGEST_TEXT),
            count=counts[n],
            share=shares[n],
            per_pass=per_pass[n],
            present=None if present is None else bool(present[n]),
            **{name: values[n] for name, values in known.items()},
        )
        for n in range(len(names))
    ]
    return Result(
        gives=COUNTS if present is None else SET,
        counts=rows,
        total=finding.case.plan.total,
        passes=finding.case.plan.passes,
        status=recovery.status.value,
        ok=recovery.status.ok,
        **_worth(found, redact=redact),
    )


def _bounds(known: Credibility | None) -> dict[str, list[Any]]:
    """Intervals of shares and counts by field; nothing where the error is not known."""
    if known is None:
        return {}
    found = {"share_low": known.low.tolist(), "share_high": known.high.tolist()}
    if known.count_low is not None and known.count_high is not None:
        found |= {"low": known.count_low.tolist(), "high": known.count_high.tolist()}
    return found


def _worth(found: MethodFinding, *, redact: bool) -> dict[str, Any]:
    """Expected accuracy and verdict of an answer, by field."""
    known, judged = found.credibility, found.verdict
    part = None
    if judged is not None:
        cause = judged.redacted if redact and judged.redacted is not None else judged.cause
        advice = None if redact and judged.redacted is not None else judged.advice
        part = VerdictPart(level=judged.level, cause=cause, advice=advice)
    if known is None:
        return {"verdict": part}
    value, low, high = known.expected_iacc
    return {
        "expected_iacc": Interval(value=value, low=low, high=high),
        "expected_floor": known.floor,
        "verdict": part,
    }


def _unidentifiable(recovery: Recovery) -> dict[str, list[Any]]:
    """Per class, those with which only the sum is identifiable; empty if the error is unknown."""
    if recovery.covariance is None or not recovery.status.ok:
        return {}
    others: list[list[int]] = [[] for _ in recovery.shares]
    for group in unidentifiable(recovery):
        for n in group:
            others[n] = [other for other in group if other != n]
    return {"not_identifiable_from": others, "confused_with": others}


def _per_pass(finding: CaseFinding, counts: Tensor | None) -> list[int | None]:
    """Counts of one full pass; None where an epoch was no full pass."""
    plan = finding.case.plan
    if counts is None or plan.total is None or plan.passes == 1:
        return [None] * finding.case.auxiliary.classes
    return list(round_to_total(counts / plan.total, plan.total // plan.passes).tolist())


def _metrics(scored: Score | None, floor: Score | None) -> Metrics | None:
    if scored is None or floor is None:
        return None
    return Metrics(
        cacc=scored.cacc,
        iacc=scored.iacc,
        exact=scored.exact,
        floor_cacc=floor.cacc,
        floor_iacc=floor.iacc,
    )


def notices(warnings: Sequence[FindingWarning], *, redact: bool) -> list[Notice]:
    return [
        Notice(code=w.code, text=w.redacted if redact and w.redacted is not None else w.text)
        for w in warnings
    ]
