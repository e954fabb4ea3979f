"""A finding in a notebook: one table of HTML, everything from files escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rlu_cli.reports.schema import ClassCount, Report


def finding_html(report: Report) -> str:
    """Counts, shares and intervals of each class, then status and warnings."""
    confidence = f"{report.settings['confidence'].value:.0%}"
    rows = [_row(row) for row in report.result.counts]
    table = table_html(("class", "count", "share", f"{confidence} interval"), rows)
    method = next(method for method in report.methods if method.result is not None)
    lines = [f"method: {method.method}", f"status: {report.result.status}"]
    if report.metrics is not None:
        scored = report.metrics
        lines.append(f"iAcc {scored.iacc:.4f}, uniform guess {scored.floor_iacc:.4f}")
    lines += [f"warning [{warning.code}]: {warning.text}" for warning in report.warnings]
    return table + "".join(f"<p>{escape(line)}</p>" for line in lines)


def table_html(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(row: ClassCount) -> tuple[str, str, str, str]:
    """One class; an interval of the count, or of the share where counts are not known."""
    if row.low is not None:
        interval = f"{row.low}–{row.high}"
    elif row.share_low is not None and row.share_high is not None:
        interval = f"{row.share_low:.1%}–{row.share_high:.1%}"
    else:
        interval = "–"
    count = "–" if row.count is None else str(row.count)
    share = "–" if row.share is None else f"{row.share:.1%}"
    return row.name or str(row.index), count, share, interval
