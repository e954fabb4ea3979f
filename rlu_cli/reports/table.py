"""The report for a reader: what was assumed, the counts, the scores, what looks off."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rlu_cli.audit.diagnostics import OF_METHOD
from rlu_cli.audit.verdict import RELIABLE, ROUGH, UNRELIABLE
from rlu_cli.reports.by_method import by_method, scores
from rlu_cli.reports.columns import bar, bar_length, class_name, hidden_line, shown_rows
from rlu_cli.reports.expected import expected_lines
from rlu_cli.reports.joint_table import joint_lines
from rlu_cli.reports.schema import ClassCount, Notice, Report

T = TypeVar("T")
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
    for line in _verdict(report):
        console.print(line)
    for line in report.assumptions:
        console.print(f"[dim]{escape(line)}[/dim]")
    for method in report.methods:
        if method.chosen is not None:
            console.print(f"[dim]{escape(f'method {method.method}: {method.chosen}')}[/dim]")
    console.print(_local_training(report))
    answered = [method for method in report.methods if method.result is not None]
    counts = (
        [_counts(report, console.width)] if len(answered) == 1 else by_method(report, console.width)
    )
    for part in (_hypotheses(report), *counts, *scores(report)):
        if part is not None:
            console.print(part)
    if report.expected is not None:
        for said in expected_lines(report.expected):
            console.print(escape(said))
    for more in joint_lines(report, console.width):
        console.print(more)
    for line in _closing(report):
        console.print(line)
    return text.getvalue()


_COLOURS = {RELIABLE: "green", ROUGH: "yellow", UNRELIABLE: "red"}


def _verdict(report: Report) -> Iterator[str]:
    """Whether to rely on the answer, what accuracy to expect, and what to do about it."""
    judged = report.verdict
    if judged is None:
        return
    because = f": {judged.cause}" if judged.cause else ""
    colour = _COLOURS[judged.level]
    yield f"[bold {colour}]{judged.level}[/bold {colour}]{escape(because)}"
    expected = report.result.expected_iacc
    if expected is None:
        yield "expected iAcc: unknown"
    else:
        yield escape(
            f"expected iAcc: {expected.value:.3f} ({_level(report)}: {expected.low:.3f} to "
            f"{expected.high:.3f}); uniform guess {report.result.expected_floor:.3f}"
        )
    if judged.advice:
        yield escape(f"next: {judged.advice}")


def _hypotheses(report: Report) -> Table | None:
    measured = [r for r in report.hypotheses if r.embedding_cosine is not None]
    if not measured:
        return None
    table = Table(
        title="candidate architectures and scalings (weight: probability)",
        title_justify="left",
        box=None,
    )
    for column in ("model", "arguments", "scaling", "weight", "embedding cosine", "norm ratio"):
        table.add_column(column, no_wrap=True)
    for one in measured:
        arguments = " ".join(f"{k}={v}" for k, v in one.arguments.items())
        figures = (
            "–" if one.weight is None else f"{one.weight:.3f}",
            f"{one.embedding_cosine:.3f}",
            f"{one.embedding_norm_ratio:.3f}",
        )
        table.add_row(escape(one.model), escape(arguments), escape(one.normalize), *figures)
    return table


_TRAINING_LABELS = {
    "lr": "learning rate",
    "batch_size": "batch size",
    "steps": "steps",
    "samples": "samples",
}


def _local_training(report: Report) -> Table:
    """How the client trained, as the attack took it: each value with its source."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    for name, label_ in _TRAINING_LABELS.items():
        used = report.local_training[name]
        table.add_row(label_, _number(used.value), escape(_shortened(used.source)))
    return table


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _shortened(source: str) -> str:
    """A source, with paths relative to the working directory where they lie below it."""
    here = f"{Path.cwd()}{os.sep}"
    return source.replace(here, "")


def _counts(report: Report, width: int) -> Table | None:
    """Class, count, share and a bar; absent classes are left out of long lists."""
    if report.redacted:
        return None
    rows = report.result.counts
    shown = shown_rows(rows)
    table = Table(title=_title(report), title_justify="left", title_style="bold")
    table.add_column("class", overflow="fold")
    table.add_column("count", justify="right", no_wrap=True)
    if report.result.passes > 1:
        table.add_column("per pass", justify="right", no_wrap=True)
    table.add_column(_level(report), justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    length = bar_length(width)
    if length:
        table.add_column("", no_wrap=True)
    largest = max((row.share or 0.0) for row in rows) or 1.0
    for row in shown:
        counts = [_whole(row.count)]
        if report.result.passes > 1:
            counts.append(_whole(row.per_pass))
        counts.append(_interval(row))
        share = f"{(row.share or 0.0):.1%}"
        name = Text(class_name(row))
        table.add_row(name, *counts, share, *[bar(row.share, largest, length)] * bool(length))
    table.caption = hidden_line(len(rows), len(shown))
    return table


def _level(report: Report) -> str:
    confidence = report.settings["confidence"].value
    return f"{confidence:.0%}"


def _interval(row: ClassCount) -> str:
    """Bounds of the count, or of the share where K is not known."""
    if row.low is not None:
        return f"{row.low}–{row.high}"
    if row.share_low is None:
        return "unknown"
    return f"{row.share_low or 0.0:.1%}–{row.share_high or 0.0:.1%}"


def _whole(value: int | None) -> str:
    return "–" if value is None else str(value)


def _title(report: Report) -> str:
    total = report.result.total
    what = "label shares" if total is None else f"{total} labels"
    method = next(method for method in report.methods if method.result is not None)
    return f"{what} recovered by {method.method}"


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
