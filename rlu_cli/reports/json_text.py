"""The report as JSON, in the order of its schema."""

from __future__ import annotations

from rlu_cli.reports.schema import Report


def render(report: Report) -> str:
    return report.model_dump_json(by_alias=True, indent=2) + "\n"
