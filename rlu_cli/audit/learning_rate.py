"""The learning rate where nobody gave one: as a method estimated it from the files."""

from __future__ import annotations

from collections.abc import Sequence

from rlu_cli.audit.finding import MethodFinding
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.build import Case
from rlu_cli.errors import UsageError
from rlu_cli.settings.parsers import INFER
from rlu_cli.types import Setting

_RATE_LIMIT = 0.1  # an inferred learning rate less certain than this is none
_NINETY = 1.645  # standard deviations on either side that hold 90 %


def inferred_rate(found: Sequence[MethodFinding], *, asked: bool) -> Setting:
    """The learning rate nobody told, as a method found it.

    asked  whether the user takes it with any interval: `--lr infer`

    Raises UsageError E102 where none found it, or unasked not within ±10 % (90 %).
    """
    rate, error = _found_rate(found) or (0.0, float("inf"))
    if not rate or (error > _RATE_LIMIT * rate and not asked):
        raise UsageError(
            "E102",
            "nobody said what the learning rate was",
            why=f"the files tell it only as {rate:.3g} ± {error:.2g} (90 %)"
            if rate
            else "the files do not tell it",
            hint=f"give it with --lr ETA{', or take what they tell: --lr infer' if rate else ''}",
        )
    return Setting(rate, f"inferred from BatchNorm means and Δb, ± {error:.2g} (90 %)")


def _found_rate(found: Sequence[MethodFinding]) -> tuple[float, float] | None:
    """The learning rate as the first method that could tell it found it, and its 90 % interval."""
    told = [one.recovery.lr for one in found if one.recovery is not None and one.recovery.lr]
    return (told[0][0], _NINETY * told[0][1]) if told else None


def rate_warnings(case: Case, found: Sequence[MethodFinding]) -> list[FindingWarning]:
    """A sentence on a learning rate that is taken on request though the files hardly tell it."""
    rate = _found_rate(found)
    if case.value("lr") != INFER or rate is None or rate[1] <= _RATE_LIMIT * rate[0]:
        return []
    return [
        FindingWarning(
            "W322",
            f"the learning rate is taken as {rate[0]:.3g} ± {rate[1]:.2g} (90 %), which is all the "
            "files tell of it; the intervals of the answer allow for that",
        )
    ]
