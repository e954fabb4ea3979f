"""What the functions of the API return."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from torch import device

from rlu_cli.audit.expected_accuracy import ExpectedAccuracy
from rlu_cli.audit.finding import CaseFinding, MethodFinding
from rlu_cli.audit.joint_estimate import JointEstimate
from rlu_cli.audit.scoring import Score
from rlu_cli.audit.verdict import UNRELIABLE, Verdict
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.build import Case
from rlu_cli.errors import UsageError, printable
from rlu_cli.reports import FORMATS, Report, build_calibration, build_report
from rlu_cli.reports.html import finding_html, table_html
from rlu_cli.reports.json_text import as_dict
from rlu_cli.reports.schema import Calibration as CalibrationReport
from rlu_cli.types import Recovery

Interval = tuple[int, int] | tuple[float, float]


@dataclass(frozen=True, eq=False, repr=False)
class Finding:
    """What one client's update reveals.

    case_finding  what each method found, with everything it was found from
    joint         one estimate over several rounds of the client, where there was a history
    expected      accuracy to expect, where virtual clients were asked for
    extra         warnings on parts of the result that could not be made
    """

    case_finding: CaseFinding
    joint: JointEstimate | None = None
    expected: ExpectedAccuracy | None = None
    extra: tuple[FindingWarning, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the output layer."""
        return self.case_finding.case.auxiliary.class_names

    @property
    def first(self) -> MethodFinding:
        """The first method that answered; counts, shares and intervals are its own."""
        return self.case_finding.first

    @property
    def method(self) -> str:
        """Name of that method."""
        return self.first.method

    @property
    def counts(self) -> dict[str, int] | None:
        """Labels of each class; None where the batch size is not known."""
        counts = self._recovery.counts
        return None if counts is None else self._by_class(counts.tolist())

    @property
    def shares(self) -> dict[str, float]:
        """Share of the labels in each class."""
        return self._by_class(self._recovery.shares.tolist())

    @property
    def intervals(self) -> dict[str, Interval] | None:
        """Interval of each class's count, or of its share where counts are not known.

        At the setting `confidence`; None for a method that does not know its error.
        """
        known = self.first.credibility
        if known is None:
            return None
        low, high = known.low, known.high
        if known.count_low is not None and known.count_high is not None:
            low, high = known.count_low, known.count_high
        return self._by_class(list(zip(low.tolist(), high.tolist(), strict=True)))

    @property
    def verdict(self) -> Verdict:
        """Whether the answer is reliable, rough or unreliable, with the most likely cause."""
        assert self.first.verdict is not None
        return self.first.verdict

    @property
    def expected_iacc(self) -> tuple[float, float, float] | None:
        """Expected iAcc and the bounds of its interval; None where the error is not known."""
        known = self.first.credibility
        return None if known is None else known.expected_iacc

    @property
    def warnings(self) -> tuple[FindingWarning, ...]:
        """Everything that may be wrong with the result, each with a stable code."""
        methods = (w for method in self.case_finding.methods for w in method.warnings)
        joint = () if self.joint is None else self.joint.warnings
        return (*self.case_finding.warnings, *methods, *joint, *self.extra)

    @property
    def status(self) -> str:
        """How the estimate ended, in a sentence."""
        return self._recovery.status.value

    @property
    def ok(self) -> bool:
        """Whether the estimate converged and is not unreliable."""
        return self._recovery.status.ok and self.verdict.level != UNRELIABLE

    @property
    def score(self) -> Score | None:
        """Score against the truth, where that was given or found."""
        return self.first.score

    def report(self, *, redact: bool = False) -> Report:
        """The finding as data, in the published schema; redacted, without the client's labels."""
        return build_report(
            self.case_finding, self.joint, self.expected, extra=self.extra, redact=redact
        )

    def to_dict(self, *, redact: bool = False) -> dict[str, Any]:
        """What `rlu attack --format json` prints, as a dict."""
        return as_dict(self.report(redact=redact))

    def to_text(self, format: str = "table", *, redact: bool = False) -> str:
        """The report in one of the command's formats. Raises UsageError E101 for an unknown one."""
        if format not in FORMATS:
            raise UsageError(
                "E101", f"unknown format: {printable(format)}", hint=f"one of {', '.join(FORMATS)}"
            )
        return FORMATS[format](self.report(redact=redact))

    def __repr__(self) -> str:
        return f"<Finding by {self.method}: {self.counts or self.shares}, {self.status}>"

    def _repr_html_(self) -> str:
        return finding_html(self.report())

    @property
    def _recovery(self) -> Recovery:
        assert self.first.recovery is not None
        return self.first.recovery

    def _by_class(self, values: list[Any]) -> dict[str, Any]:
        return dict(zip(self.classes, values, strict=True))


@dataclass(frozen=True)
class Calibration:
    """The accuracy to expect of attacks on clients of a global model.

    case          the global model, and how clients train on it
    expectations  one for each method
    device        that everything was computed on
    """

    case: Case
    expectations: tuple[ExpectedAccuracy, ...]
    device: device

    def report(self) -> CalibrationReport:
        """The same as data, in the published schema."""
        return build_calibration(self.case, self.expectations, self.device)

    def to_dict(self) -> dict[str, Any]:
        """What `rlu calibrate --format json` prints, as a dict."""
        return as_dict(self.report())

    def _repr_html_(self) -> str:
        headings = ("method", "expected iAcc", "cAcc", "uniform guess")
        rows = [(e.method, f"{e.iacc:.3f}", f"{e.cacc:.3f}", f"{e.floor:.3f}") for e in self]
        return table_html(headings, rows)

    def __iter__(self) -> Iterator[ExpectedAccuracy]:
        return iter(self.expectations)


@dataclass(frozen=True)
class SimulatedClient:
    """The files of one client in the last round.

    global_path  checkpoint it started from
    local_path   checkpoint it sent back
    truth_path   its true label counts
    """

    global_path: Path
    local_path: Path
    truth_path: Path


@dataclass(frozen=True)
class SimulatedFederation:
    """A federation on disk, its label counts known.

    path      the run folder
    aux       the server's auxiliary images
    clients   those trained in the last round, by number
    accuracy  of the global model of the last round, on the test images
    """

    path: Path
    aux: Path
    clients: dict[int, SimulatedClient]
    accuracy: float

    def _repr_html_(self) -> str:
        rows = [(str(n), str(client.local_path)) for n, client in self.clients.items()]
        return f"<p>{escape(str(self.path))}</p>" + table_html(("client", "checkpoint"), rows)
