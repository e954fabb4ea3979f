"""NVFlare workspaces: the client's and the server's JSON configuration, and saved rounds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from rlu_cli.runs.code import file_of_class
from rlu_cli.runs.folder import RunFolder
from rlu_cli.runs.names import COMMON, settings_in
from rlu_cli.runs.rounds import in_order, rounds_in
from rlu_cli.runs.run import Code, Exchange, Run, System
from rlu_cli.types import Setting

_CLIENT, _SERVER = "config_fed_client.json", "config_fed_server.json"
_LOCAL_MODEL = "local_model.pt"
_SITE = re.compile(r"(?:app_)?(site-\d+)")
_NAMES = {**COMMON, "epochs": (*COMMON["epochs"], "epochs")}  # of one round, in a client's part
_SCRIPT = ("task_script_args", "app_config", "script_args")  # a command line in a text
_MAX_DEPTH = 12


def matches(folder: RunFolder) -> bool:
    return bool(folder.named(_CLIENT, _SERVER))


def read(folder: RunFolder, name: str) -> Run:
    """Settings from executors, components and script arguments; the pairs are saved rounds.

    Where none are saved, each site's last `local_model.pt`, whose global model is then missing.
    """
    exchanges = rounds_in(folder) or _local_models(folder)
    clients = folder.named(_CLIENT)
    by_site = {site: _client_settings(folder, file) for file in clients if (site := _site(file))}
    shared = _client_settings(folder, clients[0]) if clients else {}
    return Run(
        folder.path,
        name,
        tuple(
            replace(one, values={**by_site.get(one.client, {}), **one.values}) for one in exchanges
        ),
        {**shared, **_server_scheme(folder)},
        code=_code(folder),
        no_global="NVFlare keeps the averaged model of the last round alone, and no client started "
        "from that",
    )


def _local_models(folder: RunFolder) -> tuple[Exchange, ...]:
    found = [(file, _site(file)) for file in folder.named(_LOCAL_MODEL)]
    return in_order([Exchange(0, site, None, folder.file(file)) for file, site in found if site])


def _site(file: str) -> str | None:
    """The site in whose folder a file lies."""
    return next((match[1] for part in file.split("/") if (match := _SITE.fullmatch(part))), None)


def _client_settings(folder: RunFolder, file: str) -> dict[str, Setting]:
    """The first value of each setting, from the outside of the file in."""
    found: dict[str, Setting] = {}
    for place, table in _tables(folder.json(file), "", _MAX_DEPTH):
        scripts = {n: t for n in _SCRIPT if isinstance(t := table.get(n), str)}
        for name, text in scripts.items():
            found = {**settings_in(_words(text), f"{file}: {place}{name}", _NAMES), **found}
        inner = place.endswith("args.")  # elsewhere `name` or `epochs` may mean anything
        if inner:
            found = {**settings_in(table, f"{file}: {place}", _NAMES), **found}
    return found


def _tables(value: Any, place: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object in a JSON value, with the way to it."""
    if isinstance(value, dict):
        yield place, value
        items: list[tuple[str, Any]] = list(value.items())
    elif isinstance(value, list):
        items = [(f"{place.removesuffix('.')}[{number}]", one) for number, one in enumerate(value)]
        place = ""
    else:
        return
    if depth:
        for name, one in items:
            yield from _tables(one, f"{place}{name}.", depth - 1)


def _words(text: str) -> dict[str, str]:
    """`--lr 0.1 --epochs=2` as a table."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that does not close
        return {}
    found: dict[str, str] = {}
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            found.setdefault(name, value if equals else after)
    return found


def _server_scheme(folder: RunFolder) -> dict[str, Setting]:
    """Scaffold, where the server's workflow is NVFlare's own; otherwise clients of FedAvg."""
    for file in folder.named(_SERVER):
        for place, table in _tables(folder.json(file), "", _MAX_DEPTH):
            path = table.get("path", table.get("class_path"))
            if isinstance(path, str) and "scaffold" in path.lower():
                return {"scheme": Setting("scaffold", f"{file}: {place}path")}
    return {}


def _code(folder: RunFolder) -> Code | None:
    """The model class that the server's persistor builds, where its file is in the workspace."""
    for file in folder.named(_SERVER, _CLIENT):
        for place, table in _tables(folder.json(file), "", _MAX_DEPTH):
            dotted = table.get("path", table.get("class_path"))
            if not isinstance(dotted, str):
                continue
            is_model = place.endswith("model.") or table.get("id") in ("model", "net")
            found = file_of_class(folder, dotted) if is_model else None
            if found is not None:
                arguments = table.get("args")
                given = arguments if isinstance(arguments, dict) else {}
                return Code(found, given, f"{file}: {place}path")
    return None


SYSTEM = System(matches, read)
