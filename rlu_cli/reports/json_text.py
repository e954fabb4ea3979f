"""The report as JSON, in the order of its schema."""

from __future__ import annotations

import json

from rlu_cli.reports.schema import Report


def render(report: Report, *, terminal: bool = False) -> str:
    # Figures that are not finite become null, and other letters escapes: any pipe can carry it.
    content = json.loads(report.model_dump_json(by_alias=True))
    return json.dumps(content, indent=2) + "\n"
