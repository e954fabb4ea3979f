"""Settings files: rlu.toml beside the checkpoints, of a run, upwards from the working directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rlu_cli.errors import InputError, printable
from rlu_cli.regular_files import read_regular
from rlu_cli.settings.layers import Layer
from rlu_cli.toml_text import parse_toml
from rlu_cli.types import Setting

FILE_NAME = "rlu.toml"
_MAX_TOML = 2**20


def file_layers(inspected: Sequence[Path], working: Path) -> tuple[list[Layer], list[Layer]]:
    """Settings files that describe the evidence, and the user's own, each in order of rank.

    The first are beside the inspected files, then in the run folder that they lie in. The second is
    the nearest one upwards from the working directory.
    """
    beside = list(dict.fromkeys(path.parent.resolve() for path in inspected))
    runs = [folder.parent for folder in beside if (folder / "round.json").is_file()]
    evidence = list(dict.fromkeys([*beside, *runs]))
    upwards = [f for f in (working.resolve(), *working.resolve().parents) if f not in evidence]
    own = list(islice(_toml_layers(upwards, trusted=True), 1))
    return list(_toml_layers(evidence, trusted=False)), own


def _toml_layers(folders: Any, *, trusted: bool) -> Iterator[Layer]:
    for folder in folders:
        own, project = folder / FILE_NAME, folder / "pyproject.toml"
        if own.is_file():
            yield Layer(_flat(_parsed(own), printable(own)), trusted, folder)
        elif trusted and project.is_file():
            tools = _parsed(project).get("tool")
            table = tools.get("rlu") if isinstance(tools, dict) else None
            if isinstance(table, dict):
                source = f"{printable(project)} [tool.rlu]"
                yield Layer(_flat(table, source), trusted, folder)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(read_regular(path, _MAX_TOML).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(
            "E201",
            f"cannot read settings from {printable(path)}",
            why=printable(problem),
            hint="repair the file or move it away",
        ) from None


def _flat(table: Mapping[str, Any], source: str) -> dict[str, Setting]:
    return {name.replace("-", "_"): Setting(value, source) for name, value in table.items()}
