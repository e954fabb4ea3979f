"""Earlier rounds of the client under study → one joint estimate of its label shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlu_cli.attacks import ATTACKS, AUTO
from rlu_cli.audit.attack import attack
from rlu_cli.audit.finding import CaseFinding, MethodFinding
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.build import Case, build_case
from rlu_cli.case.round_folders import PastRound, earlier_folders, open_round, round_name
from rlu_cli.errors import InputError, RluError
from rlu_cli.numerics.pooling import Agreement, Pooled, RoundShares, pool
from rlu_cli.settings.layers import flag_layer
from rlu_cli.types import ProgressCallback, Recovery

DISAGREE, NONE_USED = "W340", "W341"
STUDIED = "under study"
_UNLIKELY = 0.01  # p-value below which a warning says that rounds disagree
_OF_THIS_ROUND = ("truth", "output", "joint")  # settings that earlier rounds do not share
_READ_FROM_FILES = ("model", "model_args", "normalize", "mode")


@dataclass(frozen=True)
class AttackedRound:
    """One round of the client, attacked.

    name      of its folder
    method    name of the method
    recovery  result of the method
    total     K, the labels in the update; None if |B| is unknown
    shares    label shares and their error, as input to pooling
    truth     (N,) true label counts; None if missing
    """

    name: str
    method: str
    recovery: Recovery
    total: int | None
    shares: RoundShares
    truth: Tensor | None


@dataclass(frozen=True)
class LeftOut:
    """A round that could not be used, and why; `code` is that of the error, if there was one."""

    name: str
    reason: str
    code: str | None = None


@dataclass(frozen=True)
class JointEstimate:
    """One estimate of the client's label shares from several rounds.

    rounds    rounds used, in order, the one under study last
    left_out  the client's rounds that were not used
    pooled    None if fewer than two rounds can be used
    truth     (N,) true shares over the rounds used; None if any of them has no truth
    notes     on the estimate, in sentences
    """

    rounds: tuple[AttackedRound, ...]
    left_out: tuple[LeftOut, ...]
    pooled: Pooled | None
    truth: Tensor | None
    notes: tuple[str, ...]
    warnings: tuple[FindingWarning, ...]


def joint_estimate(
    finding: CaseFinding, progress: ProgressCallback = lambda text: None
) -> JointEstimate | None:
    """Attack the client's earlier rounds and pool all rounds; None if not requested.

    It is requested by `--joint`, or by a history alone if the scheme has no memory. Each round is
    attacked by the first method of `finding` (or by `auto`, if that chose it), with the settings
    and images of the round under study. A round that raises an error is left out.
    """
    case = finding.case
    if not _wanted(case):
        return None
    history, local = Path(case.value("history")), case.pair.after.path
    first = finding.first
    method = AUTO if first.chosen is not None else first.method
    rounds: list[AttackedRound] = []
    left_out: list[LeftOut] = []
    used = {case.pair.after.sha256}
    folders = earlier_folders(history, local)
    for number, folder in enumerate(folders, 1):
        progress(f"attacking earlier round {folder.name} ({number} of {len(folders)})")
        try:
            past = open_round(folder, local)
            if past is None:
                continue
            earlier = _earlier_case(finding, past)
            _refuse_repeated(earlier, used)
            found = attack(earlier, (method,), progress=progress, judge=False)
        except RluError as problem:
            left_out.append(LeftOut(folder.name, problem.message, problem.code))
            continue
        used.add(earlier.pair.after.sha256)
        rounds.append(_attacked(folder.name, earlier, found.methods[0]))
    rounds.append(_attacked(round_name(history, local) or STUDIED, case, first))
    return _joined(rounds, left_out)


def _wanted(case: Case) -> bool:
    """Whether a joint estimate is requested."""
    requested = case.value("joint")
    given = case.value("history") is not None
    return given and (not case.training.scheme.remembers if requested is None else bool(requested))


def _earlier_case(finding: CaseFinding, past: PastRound) -> Case:
    """The earlier round as a case, with the settings of the round under study.

    Raises the errors of `build_case`, and InputError E231 for a different number of steps.
    """
    case = finding.case
    planned = case.plan.steps
    if past.steps is not None and past.steps != planned:
        raise InputError(
            "E231",
            f"the client took {past.steps:g} steps in this round, the settings give {planned}",
            hint="a joint estimate needs the same settings in every round",
        )
    return build_case(past.start, past.end, case.auxiliary, flag_layer(_flags(finding, past)))


def _flags(finding: CaseFinding, past: PastRound) -> Mapping[str, Any]:
    """All known settings as options, with the learning rate of the round if that is given.

    A learning rate inferred for the round under study is not passed on, but inferred again.
    """
    settings = dict(finding.case.settings)
    settings |= {n: finding.settings[n] for n in _READ_FROM_FILES if n in finding.settings}
    flags = {n: s.value for n, s in settings.items() if n not in _OF_THIS_ROUND}
    if past.lr is not None and "lr" in flags:
        flags["lr"] = past.lr
    return flags


def _refuse_repeated(case: Case, used: set[str]) -> None:
    if case.pair.after.sha256 in used:
        raise InputError(
            "E231",
            "the client's file is the same as in another round",
            hint="include every round only once",
        )


def _attacked(name: str, case: Case, found: MethodFinding) -> AttackedRound:
    """The result of a round as input to pooling; a covariance that is not finite is dropped."""
    assert found.recovery is not None, "attack() raises if no method can be used"
    recovery = found.recovery
    covariance = recovery.covariance
    if covariance is not None and not bool(torch.isfinite(covariance).all()):
        covariance = None
    held, total = case.value("samples"), case.plan.total
    drawn = total if total is None or held is None else min(total, held)
    free = covariance is not None and recovery.unconstrained is not None
    shares = (
        recovery.unconstrained if free and recovery.unconstrained is not None else recovery.shares
    )
    bounded = recovery.shares
    pooled = RoundShares(shares, covariance, recovery.shared_covariance, drawn, held, bounded)
    return AttackedRound(name, found.method, recovery, total, pooled, case.truth)


def _joined(rounds: Sequence[AttackedRound], left_out: Sequence[LeftOut]) -> JointEstimate:
    """Pool the rounds, without those that failed.

    If two or more rounds have a covariance, those without one are left out too.
    """
    solved = [one for one in rounds if one.recovery.status.ok]
    failed = [LeftOut(r.name, r.recovery.status.value) for r in rounds if not r.recovery.status.ok]
    used = [one for one in solved if one.shares.covariance is not None]
    without_error = [
        LeftOut(r.name, f"{ATTACKS[r.method].title} gives no error here, but does for other rounds")
        for r in solved
        if r.shares.covariance is None and len(used) > 1
    ]
    used = used if len(used) > 1 else solved
    out = tuple(sorted((*left_out, *failed, *without_error), key=lambda one: one.name))
    if len(used) < 2:
        return JointEstimate(tuple(used), out, None, None, (), (_none_used(out),))
    pooled = pool([one.shares for one in used])
    return JointEstimate(
        rounds=tuple(used),
        left_out=out,
        pooled=pooled,
        truth=_true_shares(used),
        notes=tuple(_notes(used, pooled)),
        warnings=tuple(_warnings(pooled.agreement)),
    )


def _true_shares(rounds: Sequence[AttackedRound]) -> Tensor | None:
    counts = [one.truth for one in rounds if one.truth is not None]
    if len(counts) < len(rounds):
        return None
    total = torch.stack(counts).sum(0).double()
    return total / total.sum()


def _notes(rounds: Sequence[AttackedRound], pooled: Pooled) -> list[str]:
    found = []
    if pooled.covariance is None:
        methods = dict.fromkeys(
            ATTACKS[one.method].title for one in rounds if one.shares.covariance is None
        )
        found.append(f"plain mean of the rounds, no intervals: {', '.join(methods)} gives no error")
    elif any(one.shares.drawn is None for one in rounds):
        found.append("no batch size: the intervals ignore that each round uses a sample of images")
    if pooled.covariance is not None and all(one.shares.overlap == 1 for one in rounds):
        found.append("every round uses the same images: more rounds add little")
    return found


def _warnings(agreement: Agreement | None) -> list[FindingWarning]:
    if agreement is None or agreement.p_value >= _UNLIKELY:
        return []
    return [
        FindingWarning(
            DISAGREE,
            f"the rounds differ by more than their errors allow (χ² {agreement.chi_square:.0f} for "
            f"{agreement.degrees} degrees of freedom, p = {agreement.p_value:.1g}): the client's "
            "labels may have changed between rounds, or a round's error is underestimated; the "
            "variance of the rounds' own errors is inflated by a factor of "
            f"{agreement.variance_inflation:.1f}",
        )
    ]


def _none_used(left_out: Sequence[LeftOut]) -> FindingWarning:
    reasons = dict.fromkeys(one.code or "no result" for one in left_out)
    why = f" ({', '.join(reasons)})" if reasons else ""
    return FindingWarning(NONE_USED, f"no joint estimate: fewer than two rounds can be used{why}")
