"""Earlier rounds of the client under study, read as well → one joint estimate of its labels."""

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
from rlu_cli.case.round_history import PastRound, earlier_folders, open_round, round_name
from rlu_cli.errors import InputError, RluError
from rlu_cli.numerics.pooling import Agreement, Pooled, RoundShares, pool
from rlu_cli.settings.layers import flag_layer
from rlu_cli.types import ProgressCallback, Recovery

DISAGREE, NONE_USED = "W340", "W341"
STUDIED = "under study"
_UNLIKELY = 0.01  # p from which on rounds are said to disagree
_OF_THIS_ROUND = ("truth", "output", "joint")  # settings that earlier rounds do not share
_READ_FROM_FILES = ("model", "model_args", "normalize", "mode")


@dataclass(frozen=True)
class AttackedRound:
    """One round of the client, attacked.

    name      of its folder
    method    that answered
    recovery  its answer
    total     K, the labels that went into its update
    told      what it says of the client's shares
    truth     (N,) its true counts, None when not told
    """

    name: str
    method: str
    recovery: Recovery
    total: int | None
    told: RoundShares
    truth: Tensor | None


@dataclass(frozen=True)
class LeftOut:
    """A round that could not be used, and why; `code` of the error it ended with, if it did."""

    name: str
    reason: str
    code: str | None = None


@dataclass(frozen=True)
class JointEstimate:
    """What all rounds of the client say together.

    rounds    the ones used, in order, the one under study last
    left_out  the others the client took part in
    pooled    None where fewer than two rounds can be used
    truth     (N,) true shares over the rounds used, None where any of them does not tell
    notes     what a reader should know of the estimate, in sentences
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
    """Attack the earlier rounds of the client too and pool them; None where nobody asks for it.

    Asked for by `--joint`, or by a history alone for schemes that have no other use for one. Each
    round is attacked by the method that gave the report's result (or by `auto`, if that chose it),
    with the settings and the images of the round under study. One that cannot be is left out.
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
        progress(f"attacking round {folder.name} ({number} of {len(folders)} before this one)")
        try:
            past = open_round(folder, local)
            if past is None:
                continue
            earlier = _earlier_case(finding, past)
            _refuse_repeated(earlier, used)
            found = attack(earlier, (method,), progress=progress)
        except RluError as problem:
            left_out.append(LeftOut(folder.name, problem.message, problem.code))
            continue
        used.add(earlier.pair.after.sha256)
        rounds.append(_read(folder.name, earlier, found.methods[0]))
    rounds.append(_read(round_name(history, local) or STUDIED, case, first))
    return _joined(rounds, left_out)


def _wanted(case: Case) -> bool:
    asked = case.value("joint")
    given = case.value("history") is not None
    return given and (not case.training.scheme.remembers if asked is None else bool(asked))


def _earlier_case(finding: CaseFinding, past: PastRound) -> Case:
    """The earlier round as a case, under the settings of the round under study.

    Raises the errors of `build_case`, and InputError E231 for another number of steps.
    """
    case = finding.case
    planned = case.plan.steps
    if past.steps is not None and past.steps != planned:
        raise InputError(
            "E231",
            f"the client took {past.steps:g} steps in it, the settings say {planned}",
            hint="rounds are read under the settings of the one under study",
        )
    return build_case(past.start, past.end, case.auxiliary, flag_layer(_flags(finding, past)))


def _flags(finding: CaseFinding, past: PastRound) -> Mapping[str, Any]:
    """Every setting that is known, as if it were typed; the rate is the round's own if it says so.

    A rate that was inferred is inferred anew.
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
            hint="count every round once",
        )


def _read(name: str, case: Case, found: MethodFinding) -> AttackedRound:
    assert found.recovery is not None, "an attack that no method answers is an error"
    recovery, told = found.recovery, case.value
    covariance = recovery.covariance
    if covariance is not None and not bool(torch.isfinite(covariance).all()):
        covariance = None
    held, total = told("samples"), case.plan.total
    drawn = total if total is None or held is None else min(total, held)
    free = covariance is not None and recovery.unconstrained is not None
    shares = (
        recovery.unconstrained if free and recovery.unconstrained is not None else recovery.shares
    )
    said = RoundShares(shares, covariance, recovery.shared_covariance, drawn, held, recovery.shares)
    return AttackedRound(name, found.method, recovery, total, said, case.truth)


def _joined(rounds: Sequence[AttackedRound], left_out: Sequence[LeftOut]) -> JointEstimate:
    """The rounds pooled, those first left out that have no answer or cannot be weighed."""
    settled = [one for one in rounds if one.recovery.status.ok]
    failed = [LeftOut(r.name, r.recovery.status.value) for r in rounds if not r.recovery.status.ok]
    weighed = [one for one in settled if one.told.covariance is not None]
    vague = [
        LeftOut(r.name, f"{ATTACKS[r.method].title} does not know its error, the others theirs")
        for r in settled
        if r.told.covariance is None and len(weighed) > 1
    ]
    weighed = weighed if len(weighed) > 1 else settled
    out = tuple(sorted((*left_out, *failed, *vague), key=lambda one: one.name))
    if len(weighed) < 2:
        return JointEstimate(tuple(weighed), out, None, None, (), (_none_used(out),))
    pooled = pool([one.told for one in weighed])
    return JointEstimate(
        rounds=tuple(weighed),
        left_out=out,
        pooled=pooled,
        truth=_true_shares(weighed),
        notes=tuple(_notes(weighed, pooled)),
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
        vague = dict.fromkeys(
            ATTACKS[one.method].title for one in rounds if one.told.covariance is None
        )
        found.append(f"the mean of the rounds, no interval: {', '.join(vague)} knows no error")
    elif any(one.told.drawn is None for one in rounds):
        found.append(
            "no batch size: that each round shows only some of the client's images is not counted"
        )
    if pooled.covariance is not None and all(one.told.overlap == 1 for one in rounds):
        found.append("every round passed over the same images: more rounds add little")
    return found


def _warnings(agreement: Agreement | None) -> list[FindingWarning]:
    if agreement is None or agreement.p_value >= _UNLIKELY:
        return []
    return [
        FindingWarning(
            DISAGREE,
            f"the rounds differ by more than their errors allow (χ² {agreement.chi_square:.0f} for "
            f"{agreement.degrees} degrees of freedom, p = {agreement.p_value:.1g}): the client's "
            "labels may have changed between rounds, or some round is further off than it knows; "
            f"the rounds' own part of the joint error is widened {agreement.variance_inflation:.1f} times",
        )
    ]


def _none_used(left_out: Sequence[LeftOut]) -> FindingWarning:
    reasons = dict.fromkeys(one.code or "no answer" for one in left_out)
    why = f" ({', '.join(reasons)})" if reasons else ""
    return FindingWarning(NONE_USED, f"no joint estimate: fewer than two rounds can be used{why}")
