"""Reports: one format, one file; each renders the same `Report` value to text."""

from __future__ import annotations

from collections.abc import Callable

from rlu_cli.reports import json_text, table
from rlu_cli.reports.build import build_calibration, build_report
from rlu_cli.reports.expected import FORMATS as CALIBRATION_FORMATS
from rlu_cli.reports.schema import Report

FORMATS: dict[str, Callable[..., str]] = {  # (report, terminal=whether one will show it)
    "table": table.render,
    "json": json_text.render,
}

__all__ = ["CALIBRATION_FORMATS", "FORMATS", "Report", "build_calibration", "build_report"]
