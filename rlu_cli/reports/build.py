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

from rlu_cli import __version__
from rlu_cli.audit.expected_accuracy import ExpectedAccuracy
from rlu_cli.audit.explanations import Explanation
from rlu_cli.audit.finding import CaseFinding
from rlu_cli.audit.joint_estimate import JointEstimate
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.auxiliary import is_noise
from rlu_cli.case.build import NOT_BUILT, Case
from rlu_cli.case.hypotheses import ModelHypothesis
from rlu_cli.errors import printable
from rlu_cli.hashing import file_sha256
from rlu_cli.models import names_files
from rlu_cli.reports.expected import expected_part
from rlu_cli.reports.joint import joint_part
from rlu_cli.reports.method_part import method_part, notices
from rlu_cli.reports.schema import (
    LONGEST_TEXT,
    Calibration,
    ExplanationPart,
    Hypothesis,
    Input,
    OutputLayer,
    Report,
    SettingValue,
)
from rlu_cli.types import Setting

_PRIVATE = ("classes", "truth", "output", "history")
_OWN_CODE = ("model", "model_args")  # may name files


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
    methods = [method_part(finding, found, redact=redact) for found in finding.methods]
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
        verdict=first.result.verdict,
        metrics=first.metrics,
        diagnostics={**finding.diagnostics, **first.diagnostics},
        warnings=notices(finding.warnings, redact=redact)
        + [w for m in methods for w in m.warnings]
        + notices((*(() if joint is None else joint.warnings), *extra), redact=redact),
        explanation=_explanation(finding.explanation, redact=redact),
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
                path=printable(case.pair.before.path, LONGEST_TEXT), sha256=case.pair.before.sha256
            ),
            "aux": Input(path=printable(path, LONGEST_TEXT), sha256=digest),
        },
        settings={
            name: _setting(setting, redact=False) for name, setting in sorted(case.settings.items())
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


def _explanation(found: Explanation | None, *, redact: bool) -> ExplanationPart | None:
    if found is None:
        return None
    shown = found.redacted() if redact else found
    return ExplanationPart(
        name=shown.name,
        gain=shown.gain,
        text=printable(shown.sentence, LONGEST_TEXT),
        advice=printable(shown.advice, LONGEST_TEXT),
    )


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
        name: Input(path=None if redact else printable(path, LONGEST_TEXT), sha256=digest)
        for name, (path, digest) in files.items()
    }


def _settings(finding: CaseFinding, *, redact: bool) -> dict[str, SettingValue]:
    shown = {
        name: setting
        for name, setting in finding.settings.items()
        if not (redact and name in _PRIVATE)
    }
    hidden = _OWN_CODE if redact and names_files(finding.hypotheses[0].model) else ()
    return {
        name: _setting(Setting(None, setting.source) if name in hidden else setting, redact=redact)
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
    return {name: _setting(one, redact=redact) for name, one in used.items()}


def _setting(given: Setting, *, redact: bool) -> SettingValue:
    """A setting's part of a report; redacted, its source does not name a file."""
    source = _kind(given.source) if redact else given.source
    return SettingValue(value=_plain(given.value), source=source)


def _plain(value: Any) -> Any:
    """A setting as JSON can hold it, its text safe to show."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {printable(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return printable(value, LONGEST_TEXT)


def _assumptions(finding: CaseFinding, *, redact: bool) -> list[str]:
    """Redacted: no class names, nor files: those that were skipped lie in class folders.

    Neither are the objects in a file listed, whose classes may have private names.
    """
    if not redact:
        return list(finding.assumptions)
    lines = [line for line in finding.assumptions if not line.startswith("class order")]
    cut = ("skipped", "contradiction", NOT_BUILT)
    return [line.partition(": ")[0] if line.startswith(cut) else line for line in lines]


def _kind(source: str) -> str:
    """A source without the file it may name."""
    return "file" if any(mark in source for mark in "/\\:") else source


def _hypothesis(one: ModelHypothesis, *, redact: bool) -> Hypothesis:
    def figure(value: float) -> float | None:
        return None if math.isnan(value) else value

    hidden = redact and names_files(one.model)
    return Hypothesis(
        model="own code" if hidden else printable(one.model, LONGEST_TEXT),
        arguments={} if hidden else _plain(one.arguments),
        normalize=one.normalise,
        embedding_cosine=figure(one.cosine),
        embedding_norm_ratio=figure(one.norm_ratio),
        weight=figure(one.weight),
    )
