"""A report as JSON, in the order of its schema."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel


def as_dict(report: BaseModel) -> dict[str, Any]:
    """The report as JSON values; numbers that are not finite become None."""
    content: dict[str, Any] = json.loads(report.model_dump_json(by_alias=True))
    return content


def render(report: BaseModel, *, terminal: bool = False) -> str:
    """The report as text; letters beyond ASCII are escaped, so that any pipe can carry it."""
    return json.dumps(as_dict(report), indent=2) + "\n"
