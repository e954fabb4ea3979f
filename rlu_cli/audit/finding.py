"""The result of one case: for each method, and as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rlu_cli.audit.credibility import Credibility
from rlu_cli.audit.explanations import Explanation
from rlu_cli.audit.scoring import Score
from rlu_cli.audit.verdict import Verdict
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.build import Case
from rlu_cli.case.hypotheses import ModelHypothesis
from rlu_cli.types import Recovery, Setting


@dataclass(frozen=True)
class MethodFinding:
    """The result of one method.

    method    name of the method
    recovery  None if the method cannot be used on the case
    score     against the truth; None without truth or counts
    refused   why the method cannot be used; None if it can
    chosen    why `auto` chose the method; None if the user did
    credibility  what is known of the error; None if nothing is, or without a recovery
    verdict   whether the answer can be relied on; None without a recovery
    """

    method: str
    recovery: Recovery | None
    score: Score | None
    warnings: tuple[FindingWarning, ...]
    refused: str | None = None
    chosen: str | None = None
    credibility: Credibility | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class CaseFinding:
    """The result of one case.

    settings        resolved settings, including those inferred from the files
    device          that ran the model
    hypotheses      model hypotheses, the selected one first
    evidence_width  L, width of the input of the output layer
    biased          whether the output layer has a bias update of its own
    diagnostics     of the update
    assumptions     behind the result, in sentences
    methods         result of each method
    floor           score of a uniform guess; None without truth
    explanation     the mistake that explains the evidence better than the settings; None for none
    """

    case: Case
    settings: Mapping[str, Setting]
    device: torch.device
    hypotheses: tuple[ModelHypothesis, ...]
    evidence_width: int
    biased: bool
    diagnostics: Mapping[str, Any]
    assumptions: tuple[str, ...]
    warnings: tuple[FindingWarning, ...]
    methods: tuple[MethodFinding, ...]
    floor: Score | None
    explanation: Explanation | None = None

    @property
    def first(self) -> MethodFinding:
        """The first method with a recovery; `attack` raises if there is none."""
        return next(method for method in self.methods if method.recovery is not None)
