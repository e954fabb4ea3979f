"""CaseFinding → Report."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy
import scipy
import torch
from torch import Tensor

from rlu_cli import __version__
from rlu_cli.attacks import ATTACKS, COUNTS, SET
from rlu_cli.audit.diagnostics import unidentifiable
from rlu_cli.audit.expected_accuracy import ExpectedAccuracy
from rlu_cli.audit.finding import CaseFinding, MethodFinding
from rlu_cli.audit.joint_estimate import JointEstimate
from rlu_cli.audit.scoring import Score
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.auxiliary import is_noise
from rlu_cli.case.build import Case
from rlu_cli.case.hypotheses import ModelHypothesis
from rlu_cli.errors import printable
from rlu_cli.hashing import file_sha256
from rlu_cli.models import runs_code
from rlu_cli.numerics.intervals import count_intervals, share_intervals
from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.reports.expected import expected_part
from rlu_cli.reports.joint import joint_part
from rlu_cli.reports.schema import (
    Calibration,
    ClassCount,
    Hypothesis,
    Input,
    MethodResult,
    Metrics,
    Notice,
    OutputLayer,
    Report,
    Result,
    SettingValue,
)
from rlu_cli.types import Recovery, Setting

_PRIVATE = ("classes", "truth", "output", "history")
_OWN_CODE = ("model", "model_args")  # may name files
_LONG = 4096


def build_report(
    finding: CaseFinding,
    joint: JointEstimate | None = None,
    expected: ExpectedAccuracy | None = None,
    *,
    extra: Sequence[FindingWarning] = (),
    redact: bool = False,
) -> Report:
    """The finding as data; redacted, it keeps scores and diagnostics, and nothing about the client.

    joint     one estimate over several rounds, where they were read
    expected  accuracy to expect of the first method, where virtual clients were asked for
    extra     warnings on parts of the report that could not be made
    redact    leave out class names, counts, shares and paths
    """
    methods = [_method(finding, found, redact=redact) for found in finding.methods]
    hypotheses = [_hypothesis(one, redact=redact) for one in finding.hypotheses]
    first = next(method for method in methods if method.result is not None)
    assert first.result is not None
    return Report(
        tool="rlu",
        version=__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        environment=environment(finding.device),
        seed=finding.case.value("seed"),
        redacted=redact,
        inputs=_inputs(finding, redact=redact),
        settings=_settings(finding, redact=redact),
        local_training=_local_training(finding, redact=redact),
        output_layer=OutputLayer(
            name=printable(finding.case.layer),
            classes=finding.case.auxiliary.classes,
            width=finding.evidence_width,
            bias=finding.biased,
        ),
        hypotheses=hypotheses,
        readings=hypotheses,
        assumptions=_assumptions(finding, redact=redact),
        result=first.result,
        metrics=first.metrics,
        diagnostics={**finding.diagnostics, **first.diagnostics},
        warnings=_notices(finding.warnings, redact=redact)
        + [w for m in methods for w in m.warnings]
        + _notices((*(() if joint is None else joint.warnings), *extra), redact=redact),
        methods=methods,
        expected=None if expected is None else expected_part(expected),
        joint=None if joint is None else joint_part(finding, joint, redact=redact),
    )


def build_calibration(
    case: Case, expectations: Sequence[ExpectedAccuracy], device: torch.device
) -> Calibration:
    """What virtual clients say of methods on a global model."""
    path, digest = case.auxiliary.source, case.auxiliary.sha256
    return Calibration(
        tool="rlu",
        version=__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        environment=environment(device),
        seed=case.value("seed"),
        inputs={
            "global": Input(
                path=printable(case.pair.before.path, _LONG), sha256=case.pair.before.sha256
            ),
            "aux": Input(path=printable(path, _LONG), sha256=digest),
        },
        settings={
            name: SettingValue(value=_plain(setting.value), source=setting.source)
            for name, setting in sorted(case.settings.items())
        },
        expected=[expected_part(one) for one in expectations],
    )


def environment(device: torch.device) -> dict[str, str]:
    """Versions and device a result depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "device": f"{device} ({name})",
    }


def _method(finding: CaseFinding, found: MethodFinding, *, redact: bool) -> MethodResult:
    recovery = found.recovery
    return MethodResult(
        method=found.method,
        title=ATTACKS[found.method].title,
        refused=found.refused,
        chosen=found.chosen,
        result=None if recovery is None else _result(finding, recovery, redact=redact),
        metrics=_metrics(found.score, finding.floor),
        diagnostics={} if recovery is None else dict(recovery.diagnostics),
        warnings=_notices(found.warnings, redact=redact),
    )


def _result(finding: CaseFinding, recovery: Recovery, *, redact: bool) -> Result:
    names, present = finding.case.auxiliary.class_names, recovery.present
    shares = recovery.shares.tolist()
    counts = [None] * len(names) if recovery.counts is None else recovery.counts.tolist()
    per_pass = _per_pass(finding, recovery.counts)
    known = {**_bounds(finding, recovery), **_unidentifiable(recovery)}
    rows = [
        ClassCount(index=n, name=None, count=None, share=None)
        if redact
        else ClassCount(
            index=n,
            name=printable(names[n], _LONG),
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
    )


def _bounds(finding: CaseFinding, recovery: Recovery) -> dict[str, list[Any]]:
    """Intervals of shares and counts by field; nothing where the method does not know its error."""
    if recovery.covariance is None:
        return {}
    confidence, total = finding.case.value("confidence"), finding.case.plan.total
    known = recovery.shares, recovery.covariance
    low, high = share_intervals(*known, confidence)
    found = {"share_low": low.tolist(), "share_high": high.tolist()}
    if total is not None:
        low, high = count_intervals(*known, total, confidence)
        found |= {"low": low.tolist(), "high": high.tolist()}
    return found


def _unidentifiable(recovery: Recovery) -> dict[str, list[Any]]:
    """Per class, the classes with which only the sum is identifiable; empty if errors are unknown."""
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


def _notices(warnings: Sequence[FindingWarning], *, redact: bool) -> list[Notice]:
    return [
        Notice(code=w.code, text=w.redacted if redact and w.redacted is not None else w.text)
        for w in warnings
    ]


def _inputs(finding: CaseFinding, *, redact: bool) -> dict[str, Input]:
    case = finding.case
    before, after = case.pair
    files = {
        "global": (str(before.path), before.sha256),
        "local": (str(after.path), after.sha256),
    }
    if not is_noise(case.auxiliary):
        files["aux"] = (case.auxiliary.source, case.auxiliary.sha256)
    if case.truth_path is not None and not redact:  # a hash of a few counts can be guessed
        files["truth"] = (str(case.truth_path), file_sha256(case.truth_path))
    return {
        name: Input(path=None if redact else printable(path, _LONG), sha256=digest)
        for name, (path, digest) in files.items()
    }


def _settings(finding: CaseFinding, *, redact: bool) -> dict[str, SettingValue]:
    shown: Mapping[str, Any] = {
        name: setting
        for name, setting in finding.settings.items()
        if not (redact and name in _PRIVATE)
    }
    hidden = _OWN_CODE if redact and runs_code(finding.hypotheses[0].model) else ()
    return {
        name: SettingValue(
            value=None if name in hidden else _plain(setting.value),
            source=_kind(setting.source) if redact else setting.source,
        )
        for name, setting in sorted(shown.items())
    }


def _local_training(finding: CaseFinding, *, redact: bool) -> dict[str, SettingValue]:
    """Learning rate, batch size, steps and samples as they were used, and where each is from."""
    case, settings = finding.case, finding.settings
    missing = Setting(None, "not given")
    passes = f", {case.plan.passes} full passes" if case.plan.passes > 1 else ""
    total = Setting(case.plan.total, "steps × batch size")
    used = {
        "lr": settings.get("lr", missing),
        "batch_size": settings.get("batch_size", missing),
        "steps": Setting(case.plan.steps, f"{settings['epochs'].source}{passes}"),
        "samples": settings.get("samples", missing if case.plan.total is None else total),
    }
    return {
        name: SettingValue(
            value=_plain(one.value), source=_kind(one.source) if redact else one.source
        )
        for name, one in used.items()
    }


def _plain(value: Any) -> Any:
    """A setting as JSON can hold it, its text safe to show."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {printable(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return printable(value, _LONG)


def _assumptions(finding: CaseFinding, *, redact: bool) -> list[str]:
    """Redacted: no class names, nor the files that were skipped, which lie in class folders."""
    if not redact:
        return list(finding.assumptions)
    lines = [line for line in finding.assumptions if not line.startswith("class order")]
    return [line.partition(": ")[0] if line.startswith("skipped") else line for line in lines]


def _kind(source: str) -> str:
    """A source without the file it may name."""
    return "file" if any(mark in source for mark in "/\\:") else source


def _hypothesis(one: ModelHypothesis, *, redact: bool) -> Hypothesis:
    def figure(value: float) -> float | None:
        return None if math.isnan(value) else value

    hidden = redact and runs_code(one.model)
    return Hypothesis(
        model="own code" if hidden else printable(one.model, _LONG),
        arguments={} if hidden else _plain(one.arguments),
        normalize=one.normalise,
        embedding_cosine=figure(one.cosine),
        embedding_norm_ratio=figure(one.norm_ratio),
    )
