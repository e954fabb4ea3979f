"""Joint → its part of the report."""

from __future__ import annotations

from dataclasses import asdict

import torch

from rlu_cli.audit.finding import CaseFinding
from rlu_cli.audit.joint_estimate import JointEstimate
from rlu_cli.errors import printable
from rlu_cli.numerics.intervals import share_intervals
from rlu_cli.numerics.pooling import Agreement, Pooled
from rlu_cli.reports import schema


def joint_part(finding: CaseFinding, joint: JointEstimate, *, redact: bool) -> schema.Joint:
    """The joint estimate as data; redacted, without shares, class names and files."""
    pooled = joint.pooled
    agreement = None if pooled is None else pooled.agreement
    return schema.Joint(
        shares=[] if pooled is None else _shares(finding, pooled, redact=redact),
        rounds=[
            schema.RoundUsed(round=printable(one.name), method=one.method, total=one.total)
            for one in joint.rounds
        ],
        left_out=[
            schema.RoundLeftOut(
                round=printable(one.name),
                code=one.code,
                reason=None if redact else printable(one.reason, schema.LONGEST_TEXT),
            )
            for one in joint.left_out
        ],
        agreement=None if agreement is None else _agreement(agreement),
        metrics=_metrics(joint),
        notes=list(joint.notes),
    )


def _shares(finding: CaseFinding, pooled: Pooled, *, redact: bool) -> list[schema.JointShare]:
    names = finding.case.auxiliary.class_names
    if redact:
        return [schema.JointShare(index=n, name=None, share=None) for n in range(len(names))]
    low: list[float | None] = [None] * len(names)
    high = list(low)
    if pooled.covariance is not None:
        confidence = finding.case.value("confidence")
        bounds = share_intervals(pooled.shares, pooled.covariance, confidence)
        low, high = (bound.tolist() for bound in bounds)
    return [
        schema.JointShare(
            index=n,
            name=printable(name, schema.LONGEST_TEXT),
            share=share,
            low=low[n],
            high=high[n],
        )
        for n, (name, share) in enumerate(zip(names, pooled.shares.tolist(), strict=True))
    ]


def _agreement(found: Agreement) -> schema.Agreement:
    return schema.Agreement(**asdict(found), widened=found.variance_inflation)


def _metrics(joint: JointEstimate) -> schema.JointMetrics | None:
    if joint.pooled is None or joint.truth is None:
        return None
    even = torch.full_like(joint.truth, 1 / len(joint.truth))
    return schema.JointMetrics(
        iacc=float(torch.minimum(joint.pooled.shares, joint.truth).sum()),
        floor_iacc=float(torch.minimum(even, joint.truth).sum()),
    )
