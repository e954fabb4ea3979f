"""Flower apps: `[tool.flwr.app.config]` in pyproject.toml, and the rounds that a strategy saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlu_cli.runs.code import only_model
from rlu_cli.runs.folder import RunFolder
from rlu_cli.runs.names import leaves, scheme_of, settings_in
from rlu_cli.runs.rounds import rounds_in
from rlu_cli.runs.run import Code, Run, System

_PROJECT = "pyproject.toml"
_PLACE = "[tool.flwr.app.config]"


def matches(folder: RunFolder) -> bool:
    return _project(folder) is not None


def read(folder: RunFolder, name: str) -> Run:
    """Settings of the app; its rounds are in the layout of docs/runs.md."""
    file = _project(folder)
    assert file is not None
    app = _app(folder, file)
    config = dict(leaves(_table(app, "config")))
    values = settings_in(config, f"{file}: {_PLACE}")
    scheme, notes = scheme_of(config.get("strategy"), f"{file}: {_PLACE} strategy")
    return Run(
        folder.path,
        name,
        rounds_in(folder),
        {**scheme, **values},
        code=_code(folder, file, app),
        notes=notes,
        no_global="Flower keeps no model by itself, and its usual recipe keeps the averaged one",
    )


def _project(folder: RunFolder) -> str | None:
    """The outermost pyproject.toml of a Flower app."""
    return next((file for file in folder.named(_PROJECT) if _app(folder, file)), None)


def _app(folder: RunFolder, file: str) -> dict[str, Any]:
    return _table(_table(_table(folder.toml(file), "tool"), "flwr"), "app")


def _table(outer: Mapping[str, Any], name: str) -> dict[str, Any]:
    inner = outer.get(name)
    return inner if isinstance(inner, dict) else {}


def _code(folder: RunFolder, file: str, app: Mapping[str, Any]) -> Code | None:
    """The one torch module in the package of the client app."""
    target = _table(app, "components").get("clientapp")
    if not isinstance(target, str):
        return None
    base = file.removesuffix(_PROJECT)
    package = target.partition(":")[0].partition(".")[0]
    files = [one for one in folder.ending(".py") if one.startswith(f"{base}{package}/")]
    found = only_model(folder, files)
    return None if found is None else Code(found, {}, f"{file}: [tool.flwr.app.components]")


SYSTEM = System(matches, read)
