"""Which classes of an answer are identifiable, and whether it says anything at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlu_cli.audit.class_label import label
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.numerics.identifiability import unidentifiable_groups, uninformative
from rlu_cli.types import Recovery, Status

_GROUPS_LISTED = 5  # groups of classes in a warning


def check_informative(recovery: Recovery) -> Recovery:
    """The recovery, with status UNINFORMATIVE if by its own error it beats no uniform guess."""
    if recovery.covariance is None or not recovery.status.ok:
        return recovery
    free = recovery.shares if recovery.unconstrained is None else recovery.unconstrained
    if not uninformative(recovery.shares, free, recovery.covariance):
        return recovery
    return replace(recovery, status=Status.UNINFORMATIVE)


def unidentifiable(recovery: Recovery) -> tuple[tuple[int, ...], ...]:
    """Groups of classes for which only the sum is identifiable; empty if the error is unknown."""
    if recovery.covariance is None or not recovery.status.ok:
        return ()
    return unidentifiable_groups(recovery.shares, recovery.covariance)


def identifiability_warnings(recovery: Recovery, names: Sequence[str]) -> list[FindingWarning]:
    """A warning that names the classes for which only the sum is identifiable."""
    groups = unidentifiable(recovery)
    if not groups:
        return []
    listed = "; ".join(
        f"{_listed(group, names)} sum to {float(recovery.shares[list(group)].sum()):.1%}"
        for group in groups[:_GROUPS_LISTED]
    )
    more = f"; and {len(groups) - _GROUPS_LISTED} more groups" * (len(groups) > _GROUPS_LISTED)
    classes = sum(map(len, groups))
    only = "only the sum of each group is identifiable"
    text = f"{only}: {listed}{more}"
    hidden = f"{only}: {classes} classes in {len(groups)} group{'s' * (len(groups) > 1)}"
    return [FindingWarning("W321", text, hidden)]


def _listed(group: Sequence[int], names: Sequence[str], limit: int = 6) -> str:
    shown = [label(n, names[n]) for n in group[:limit]]
    if len(group) > limit:
        return ", ".join(shown) + f" and {len(group) - limit} more"
    return ", ".join(shown[:-1]) + f" and {shown[-1]}"
