"""Several methods beside one another: a row for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rlu_cli.attacks import SET, UNIFORM
from rlu_cli.reports.columns import all_shown, class_name, hidden_line
from rlu_cli.reports.schema import ClassCount, MethodResult, Report

_GAP = 2  # blanks between columns


def by_method(report: Report, width: int) -> Iterator[Table | Text]:
    """What each method found, a column for each class; several tables where they do not fit.

    width  of the terminal, in characters
    """
    if report.redacted:
        return
    answered = [method for method in report.methods if method.result is not None]
    shown = _shown(answered)
    titles = [method.title for method in answered]
    columns = [_column(answered, n) for n in shown]
    total = report.result.total
    title = f"{'label shares' if total is None else f'{total} labels'} recovered, by class"
    for number, block in enumerate(_blocks(columns, width - max(map(len, titles)))):
        table = Table(title=None if number else title, title_justify="left", box=None)
        table.add_column("method", no_wrap=True)
        for heading, *_ in block:
            table.add_column(heading, justify="right", no_wrap=True)
        for row, name in enumerate(titles, 1):
            table.add_row(escape(name), *(column[row] for column in block))
        yield table
    yield from _notes(report, answered, len(shown))


def _shown(answered: Sequence[MethodResult]) -> list[int]:
    """Classes that are shown: of long lists only those that some method gives labels."""
    results = [method.result for method in answered if method.result is not None]
    classes = range(len(results[0].counts))
    if all_shown(len(classes)):
        return list(classes)
    return [n for n in classes if any(result.counts[n].share for result in results)]


def _column(answered: Sequence[MethodResult], n: int) -> list[str]:
    """Heading and cells of one class: its index, and what each method found."""
    cells = [_found(method.result.counts[n]) for method in answered if method.result is not None]
    return [str(n), *cells]


def _blocks(columns: Sequence[list[str]], width: int) -> Iterator[list[list[str]]]:
    """Columns that fit beside one another."""
    block: list[list[str]] = []
    used = 0
    for column in columns:
        needed = max(map(len, column)) + _GAP
        if block and used + needed > width - _GAP:
            yield block
            block, used = [], 0
        block.append(column)
        used += needed
    yield block


def _notes(report: Report, answered: Sequence[MethodResult], shown: int) -> Iterator[Text]:
    rows = report.result.counts
    if any(row.name != str(row.index) for row in rows):
        names = ", ".join(class_name(row) for row in rows)
        yield Text(f"classes: {names}", style="dim")
    if any(method.result is not None and method.result.gives == SET for method in answered):
        yield Text("* in the set of classes found; its count is spread over the set", style="dim")
    hidden = hidden_line(len(rows), shown)
    if hidden is not None:
        yield Text(hidden, style="dim")


def _found(row: ClassCount) -> str:
    """A count, or a share where K is not known; starred where the class is in the set found."""
    figure = f"{(row.share or 0.0):.1%}" if row.count is None else str(row.count)
    return f"{figure}*" if row.present else figure


def scores(report: Report) -> Iterator[Table]:
    """Each method's scores, where the truth is known, and those of a uniform guess."""
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
        table.add_row("uniform guess", f"{floor.floor_iacc:.4f}", f"{floor.floor_cacc:.3f}", "")
    yield table
