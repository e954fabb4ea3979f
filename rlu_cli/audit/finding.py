"""What came of one case: by each method, and in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rlu_cli.audit.scoring import Score
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.build import Case
from rlu_cli.case.hypotheses import ModelHypothesis
from rlu_cli.types import Recovery, Setting


@dataclass(frozen=True)
class MethodFinding:
    """What one method found; one that refuses the case has no recovery and a reason.

    chosen  why, where the user left the choice of the method to `auto`
    """

    method: str
    recovery: Recovery | None
    score: Score | None
    warnings: tuple[FindingWarning, ...]
    refused: str | None = None
    chosen: str | None = None


@dataclass(frozen=True)
class CaseFinding:
    """What came of one case.

    settings     as resolved, with what was inferred from the files
    readings     the ways to read the files that were measured, the one taken first
    diagnostics  figures of the update
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

    @property
    def first(self) -> MethodFinding:
        """The first method that answered; an attack that none answers is an error."""
        return next(method for method in self.methods if method.recovery is not None)
