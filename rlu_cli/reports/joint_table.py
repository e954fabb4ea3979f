"""The joint estimate for a reader: shares over all rounds, how they agree, what is left out."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rlu_cli.reports.columns import bar, bar_length, class_name, hidden_line, shown_rows
from rlu_cli.reports.schema import Joint, Report

_ROUNDS_NAMED = 8


def joint_lines(report: Report, width: int) -> Iterator[Table | str]:
    """What the report says about several rounds; nothing if only one was read."""
    joint = report.joint
    if joint is None:
        return
    if joint.shares and not report.redacted:
        yield _shares(joint, f"{report.settings['confidence'].value:.0%}", bar_length(width))
    if joint.agreement is not None:
        found = joint.agreement
        verdict = f"χ² {found.chi_square:.1f} for {found.degrees} degrees of freedom"
        yield escape(f"agreement of the rounds: {verdict}, p = {found.p_value:.2g}")
    if joint.metrics is not None:
        scored = joint.metrics
        yield f"joint iAcc {scored.iacc:.4f} of the shares, uniform guess {scored.floor_iacc:.4f}"
    for note in joint.notes:
        yield escape(f"joint estimate: {note}")
    for names, reason in _left_out(joint):
        yield escape(f"left out of the joint estimate: {_listed(names)}: {reason}")


def _shares(joint: Joint, level: str, length: int) -> Table:
    """Class, share, interval and a bar; absent classes are left out of long lists."""
    rows = joint.shares
    shown = shown_rows(rows)
    rounds = _listed([one.round for one in joint.rounds])
    title = f"label shares over {len(joint.rounds)} rounds ({rounds})"
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("class", overflow="fold")
    bounded = any(row.low is not None for row in rows)
    if bounded:
        table.add_column(level, justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    if length:
        table.add_column("", no_wrap=True)
    largest = max((row.share or 0.0) for row in rows) or 1.0
    for row in shown:
        bounds = [f"{row.low or 0.0:.1%}–{row.high or 0.0:.1%}"] * bounded
        name = Text(class_name(row))
        bars = [bar(row.share, largest, length)] * bool(length)
        table.add_row(name, *bounds, f"{(row.share or 0.0):.1%}", *bars)
    table.caption = hidden_line(len(rows), len(shown))
    return table


def _left_out(joint: Joint) -> list[tuple[list[str], str]]:
    """Rounds and the reason, those with the same error together."""
    groups: dict[str, tuple[list[str], str]] = {}
    for one in joint.left_out:
        reason = one.reason or one.code or "no answer"
        said = reason if one.code is None or one.reason is None else f"{reason} ({one.code})"
        groups.setdefault(one.code or reason, ([], said))[0].append(one.round)
    return list(groups.values())


def _listed(names: list[str]) -> str:
    if len(names) <= _ROUNDS_NAMED:
        return ", ".join(names)
    return f"{names[0]}, {names[1]}, …, {names[-1]}"
