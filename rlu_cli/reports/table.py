"""The report for a reader: what was assumed, the counts, the scores, what looks off."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rlu_cli.diagnostics import label
from rlu_cli.reports.schema import ClassCount, Report

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
    for part in (_readings(report), _counts(report), *_methods(report)):
        if part is not None:
            console.print(part)
    for line in _closing(report):
        console.print(line)
    return text.getvalue()


def _readings(report: Report) -> Table | None:
    measured = [r for r in report.readings if r.embedding_cosine is not None]
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
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    largest = max((row.share or 0.0) for row in rows) or 1.0
    for row in shown:
        counts = [_whole(row.count)]
        if report.result.passes > 1:
            counts.append(_whole(row.per_pass))
        share = f"{(row.share or 0.0):.1%}"
        name = Text(label(row.index, row.name or "", _LONGEST_NAME))
        table.add_row(name, *counts, share, _bar(row, largest))
    hidden = len(rows) - len(shown)
    if hidden:
        table.caption = f"{hidden} classes without a label are not shown"
    return table


def _whole(value: int | None) -> str:
    return "–" if value is None else str(value)


def _title(report: Report) -> str:
    total = report.result.total
    what = "label shares" if total is None else f"{total} labels"
    return f"{what} recovered by {report.methods[0].method}"


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
        table.add_row(method.method, f"{m.iacc:.4f}", f"{m.cacc:.3f}", f"{m.exact:.3f}")
    floor = scored[0].metrics
    assert floor is not None
    table.add_row("even guess", f"{floor.floor_iacc:.4f}", f"{floor.floor_cacc:.3f}", "")
    yield table


def _closing(report: Report) -> Iterator[str]:
    figures = report.diagnostics
    yield f"status: {escape(report.result.status)}"
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
    for warning in report.warnings:
        yield f"[yellow]warning[{warning.code}][/yellow]: {escape(warning.text)}".replace(
            f"[{warning.code}]", rf"\[{warning.code}]", 1
        )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
