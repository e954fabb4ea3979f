"""The report for a reader: what was assumed, the counts, the scores, what looks off."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rlu_cli.attacks import SET, UNIFORM
from rlu_cli.audit.diagnostics import OF_METHOD, label
from rlu_cli.reports.expected import expected_lines
from rlu_cli.reports.joint_table import joint_lines
from rlu_cli.reports.schema import ClassCount, MethodResult, Notice, Report

T = TypeVar("T")
_BAR = 24
_ALL_SHOWN = 24  # classes up to which empty ones are listed too
_LONGEST_NAME = 1000
_PLAIN_WIDTH = 4096  # not a terminal: wide enough that no cell is cut


def render(report: Report, *, terminal: bool = False) -> str:
    """The report as text; only for a terminal has it colours and a width to keep to."""
    text = io.StringIO()
    plain = bool(os.environ.get("NO_COLOR")) or not terminal
    console = Console(
        file=text,
        force_terminal=terminal,
        width=None if terminal else _PLAIN_WIDTH,
        color_system=None if plain else "auto",
        emoji=False,
        legacy_windows=False,
        highlight=False,
        soft_wrap=not terminal,
    )
    for line in report.assumptions:
        console.print(f"[dim]{escape(line)}[/dim]")
    for method in report.methods:
        if method.chosen is not None:
            console.print(f"[dim]{escape(f'method {method.method}: {method.chosen}')}[/dim]")
    answered = [method for method in report.methods if method.result is not None]
    counts = _counts(report) if len(answered) == 1 else _side_by_side(report, answered)
    for part in (_readings(report), counts, *_methods(report)):
        if part is not None:
            console.print(part)
    if report.expected is not None:
        for said in expected_lines(report.expected):
            console.print(escape(said))
    for more in joint_lines(report):
        console.print(more)
    for line in _closing(report):
        console.print(line)
    return text.getvalue()


def _readings(report: Report) -> Table | None:
    measured = [r for r in report.hypotheses if r.embedding_cosine is not None]
    if not measured:
        return None
    table = Table(
        title="ways to read the files, the first is taken", title_justify="left", box=None
    )
    for column in ("model", "arguments", "scaling", "embedding cosine", "norm ratio"):
        table.add_column(column, no_wrap=True)
    for reading in measured:
        arguments = " ".join(f"{k}={v}" for k, v in reading.arguments.items())
        figures = (f"{reading.embedding_cosine:.3f}", f"{reading.embedding_norm_ratio:.3f}")
        table.add_row(escape(reading.model), escape(arguments), escape(reading.normalize), *figures)
    return table


def _side_by_side(report: Report, answered: Sequence[MethodResult]) -> Table | None:
    """A row for each class, a column for each method; a set shows as marks."""
    if report.redacted:
        return None
    results = [method.result for method in answered if method.result is not None]
    shown = [
        n
        for n in range(len(report.result.counts))
        if len(report.result.counts) <= _ALL_SHOWN or any(r.counts[n].share for r in results)
    ]
    total = report.result.total
    title = "label shares" if total is None else f"{total} labels"
    table = Table(title=f"{title} recovered", title_justify="left", title_style="bold")
    table.add_column("class", no_wrap=True)
    for method in answered:
        table.add_column(escape(method.title), justify="right", no_wrap=True)
    for n in shown:
        row = report.result.counts[n]
        name = Text(label(row.index, row.name or "", _LONGEST_NAME))
        table.add_row(name, *(_found(result.counts[n]) for result in results))
    notes = ["* in the set of classes found; its count is spread over the set"]
    hidden = len(report.result.counts) - len(shown)
    table.caption = "; ".join(
        [n for n in notes if any(r.gives == SET for r in results)]
        + [f"{hidden} classes without a label are not shown"] * bool(hidden)
    )
    return table


def _found(row: ClassCount) -> str:
    """A count, or a share where K is not known; starred where the class is in the set found."""
    figure = f"{(row.share or 0.0):.1%}" if row.count is None else str(row.count)
    return f"{figure}*" if row.present else figure


def _counts(report: Report) -> Table | None:
    """Class, count, share and a bar; absent classes are left out of long lists."""
    if report.redacted:
        return None
    rows = report.result.counts
    shown = rows if len(rows) <= _ALL_SHOWN else [row for row in rows if row.share]
    table = Table(title=_title(report), title_justify="left", title_style="bold")
    table.add_column("class", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    if report.result.passes > 1:
        table.add_column("per pass", justify="right", no_wrap=True)
    bounded = any(row.share_low is not None for row in rows)
    if bounded:
        table.add_column(_level(report), justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    largest = max((row.share or 0.0) for row in rows) or 1.0
    for row in shown:
        counts = [_whole(row.count)]
        if report.result.passes > 1:
            counts.append(_whole(row.per_pass))
        if bounded:
            counts.append(_interval(row))
        share = f"{(row.share or 0.0):.1%}"
        name = Text(label(row.index, row.name or "", _LONGEST_NAME))
        table.add_row(name, *counts, share, _bar(row, largest))
    hidden = len(rows) - len(shown)
    if hidden:
        table.caption = f"{hidden} classes without a label are not shown"
    return table


def _level(report: Report) -> str:
    confidence = report.settings["confidence"].value
    return f"{confidence:.0%}"


def _interval(row: ClassCount) -> str:
    """Bounds of the count, or of the share where K is not known."""
    if row.low is not None:
        return f"{row.low}–{row.high}"
    return f"{row.share_low or 0.0:.1%}–{row.share_high or 0.0:.1%}"


def _whole(value: int | None) -> str:
    return "–" if value is None else str(value)


def _title(report: Report) -> str:
    total = report.result.total
    what = "label shares" if total is None else f"{total} labels"
    method = next(method for method in report.methods if method.result is not None)
    return f"{what} recovered by {method.method}"


def _bar(row: ClassCount, largest: float) -> str:
    return "█" * round(_BAR * (row.share or 0.0) / largest)


def _methods(report: Report) -> Iterator[Table]:
    """Methods side by side, when there are several or the truth is known."""
    scored = [m for m in report.methods if m.metrics is not None]
    if not scored:
        return
    table = Table(title="against the truth", title_justify="left", box=None)
    for column in ("method", "iAcc", "cAcc", "exact"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for method in scored:
        m = method.metrics
        assert m is not None
        table.add_row(escape(method.title), f"{m.iacc:.4f}", f"{m.cacc:.3f}", f"{m.exact:.3f}")
    floor = scored[0].metrics
    assert floor is not None
    if UNIFORM not in [method.method for method in scored]:
        table.add_row("even guess", f"{floor.floor_iacc:.4f}", f"{floor.floor_cacc:.3f}", "")
    yield table


def _closing(report: Report) -> Iterator[str]:
    figures = report.diagnostics
    statuses = [(m.title, m.result.status) for m in report.methods if m.result is not None]
    for titles, status in _together(statuses):
        yield escape(f"status: {status}" if len(statuses) == 1 else f"{titles}: {status}")
    for method in report.methods:
        if method.refused is not None:
            yield escape(f"{method.title}: not run: {method.refused}")
    yield "checks: " + ", ".join(
        f"{label} {_figure(figures.get(name))}"
        for label, name in (
            ("residual", "residual"),
            ("condition", "condition"),
            ("embedding cosine", "embedding_cosine"),
            ("norm ratio", "embedding_norm_ratio"),
            ("accuracy before", "accuracy_before"),
            ("after", "accuracy_after"),
            ("erroneous confidence", "confidence_sum_before"),
        )
        if figures.get(name) is not None
    )
    for warning in _warnings(report):
        yield f"[yellow]warning\\[{warning.code}][/yellow]: {escape(warning.text)}"


def _warnings(report: Report) -> Iterator[Notice]:
    """The warnings, what is said alike of several methods said once."""
    of_methods = [w for method in report.methods for w in method.warnings]
    yield from (w for w in report.warnings if w not in of_methods)
    said = [
        (method.title, (w.code, w.text.removeprefix(f"{method.title}: ")))
        for method in report.methods
        for w in method.warnings
    ]
    for titles, (code, text) in _together(said):
        named = code == OF_METHOD or len(report.methods) > 1
        yield Notice(code=code, text=f"{titles}: {text}" if named else text)


def _together(said: Sequence[tuple[str, T]]) -> list[tuple[str, T]]:
    """(name, what) pairs with the names of the same what joined, in order."""
    names: dict[T, list[str]] = {}
    for name, what in said:
        names.setdefault(what, []).append(name)
    return [(", ".join(listed), what) for what, listed in names.items()]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
