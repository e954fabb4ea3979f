"""Plato: its YAML or TOML, the server's `checkpoint_MODEL_ROUND.pth`, `MODEL_CLIENT_RUN.pth`."""

from __future__ import annotations

import re
from typing import Any

from rlu_cli.runs.folder import RunFolder
from rlu_cli.runs.names import COMMON, leaves, scheme_of, settings_in
from rlu_cli.runs.rounds import in_order, rounds_in
from rlu_cli.runs.run import Exchange, Run, System
from rlu_cli.types import Setting

_SERVER = re.compile(r"checkpoint_(.+)_(\d{1,6})\.pth")
_CLIENT = re.compile(r"(.+)_(\d{1,9})_(\d{1,19})\.pth")
_TRAINER = {"batch_size": ("batch_size",), "epochs": ("epochs",), "optimizer": ("optimizer",)}
_SAMPLES = {"samples": ("partition_size",)}


def matches(folder: RunFolder) -> bool:
    return _config(folder) is not None


def read(folder: RunFolder, name: str) -> Run:
    """Settings of trainer, parameters.optimizer, data and algorithm; saved rounds, or Plato's own.

    Plato's server keeps the model after each round, and its clients their last one: they started
    from the server's last but one.
    """
    config = _config(folder)
    assert config is not None
    file, content = config
    trainer, parameters = content["trainer"], content.get("parameters")
    optimizer = parameters.get("optimizer") if isinstance(parameters, dict) else None
    data = content.get("data")
    given = dict(leaves(optimizer)) if isinstance(optimizer, dict) else {}
    values = settings_in(trainer, f"{file}: trainer.", _TRAINER)
    values |= settings_in(given, f"{file}: parameters.optimizer.", COMMON)
    values |= settings_in(data, f"{file}: data.", _SAMPLES) if isinstance(data, dict) else {}
    kind = content["algorithm"].get("type")
    scheme, notes = scheme_of(kind, f"{file}: algorithm.type")
    model = trainer.get("model_name")
    return Run(
        folder.path,
        name,
        rounds_in(folder) or _own_files(folder),
        {**values, **scheme},
        model=Setting(model, f"{file}: trainer.model_name") if isinstance(model, str) else None,
        notes=notes,
        no_global="Plato's server keeps the model after each round; that before the first is not "
        "kept",
    )


def _config(folder: RunFolder) -> tuple[str, dict[str, Any]] | None:
    """The outermost file with the settings of a Plato run."""
    for file in folder.ending(".yml", ".yaml", ".toml"):
        text = folder.text(file)
        if "trainer" in text and "algorithm" in text:
            content = folder.toml(file) if file.endswith(".toml") else folder.yaml(file)
            parts = content.get("trainer"), content.get("algorithm")
            if all(isinstance(part, dict) for part in parts):
                return file, content
    return None


def _own_files(folder: RunFolder) -> tuple[Exchange, ...]:
    names = {file: file.rpartition("/")[2] for file in folder.ending(".pth")}
    server = {(m[1], m[2]): file for file, name in names.items() if (m := _SERVER.fullmatch(name))}
    found = []
    for file, name in names.items():
        match = _CLIENT.fullmatch(name)
        if match is None or _SERVER.fullmatch(name):
            continue
        rounds = sorted(int(number) for model, number in server if model == match[1])
        last = rounds[-1] if rounds else 0
        start = server.get((match[1], str(last - 1)))
        before = None if start is None else folder.file(start)
        found.append(Exchange(last, match[2], before, folder.file(file)))
    return in_order(found)


SYSTEM = System(matches, read)
