"""The learning rate if it is missing: as estimated from the files by a method."""

from __future__ import annotations

from collections.abc import Sequence

from rlu_cli.audit.finding import MethodFinding
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.build import Case
from rlu_cli.errors import UsageError
from rlu_cli.settings.parsers import INFER
from rlu_cli.types import Setting

_RATE_LIMIT = 0.1  # largest relative error of an inferred learning rate
_NINETY = 1.645  # half width of a 90 % interval in standard deviations


def inferred_rate(found: Sequence[MethodFinding], *, accept_any: bool) -> Setting:
    """The missing learning rate, as estimated by a method.

    accept_any  whether the user accepts any interval, with `--lr infer`

    Raises UsageError E102 if no method estimated it, or if its 90 % interval is wider than ±10 %
    and `accept_any` is false.
    """
    rate, error = _found_rate(found) or (0.0, float("inf"))
    if not rate or (error > _RATE_LIMIT * rate and not accept_any):
        raise UsageError(
            "E102",
            "missing setting: lr, the learning rate",
            why=f"the files determine it only as {rate:.3g} ± {error:.2g} (90 %)"
            if rate
            else "the files do not determine it",
            hint=f"give it with --lr ETA{', or accept the estimate: --lr infer' if rate else ''}",
        )
    return Setting(rate, f"inferred from BatchNorm means and Δb, ± {error:.2g} (90 %)")


def _found_rate(found: Sequence[MethodFinding]) -> tuple[float, float] | None:
    """The first learning rate that a method estimated, and half the width of its 90 % interval."""
    rates = [one.recovery.lr for one in found if one.recovery is not None and one.recovery.lr]
    return (rates[0][0], _NINETY * rates[0][1]) if rates else None


def rate_warnings(case: Case, found: Sequence[MethodFinding]) -> list[FindingWarning]:
    """A warning on a learning rate that is used on request although its interval is wide."""
    rate = _found_rate(found)
    if case.value("lr") != INFER or rate is None or rate[1] <= _RATE_LIMIT * rate[0]:
        return []
    return [
        FindingWarning(
            "W322",
            f"the learning rate is inferred as {rate[0]:.3g} ± {rate[1]:.2g} (90 %): the files "
            "determine it no better; the intervals include this uncertainty",
        )
    ]
