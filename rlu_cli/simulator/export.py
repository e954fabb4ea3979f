"""The folder of a simulated federation: open, describe, resume or replace it.

RUN/rlu.toml, RUN/run.json, RUN/aux/CLASS/*.png and, for round 0,
RUN/r000/{global.pt, c3.pt, c3.truth.json, round.json}; from round 1 on also server.pt, if the
scheme's server keeps a value. Every file is written under a temporary name in its own folder and
then renamed, so that an existing file is complete.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rlu_cli import __version__
from rlu_cli.errors import UsageError, printable
from rlu_cli.simulator.files import PARTIAL, read_json, write_json, write_whole
from rlu_cli.simulator.pool import Holding
from rlu_cli.simulator.run_folder import NOTES, RunFolder, settings_hash

WRITTEN = (
    "run.json",
    "rlu.toml",
    "aux/*/[0-9][0-9][0-9][0-9][0-9].png",
    "r[0-9]*/round.json",
    "r[0-9]*/global.pt",
    "r[0-9]*/server.pt",
    "r[0-9]*/c[0-9]*.pt",
    "r[0-9]*/c[0-9]*.truth.json",
)


def open_run(
    path: Path, settings: Mapping[str, Any], classes: tuple[str, ...], *, force: bool = False
) -> RunFolder:
    """Start a run in an empty folder, or resume one with the same settings.

    force  delete the files of an earlier run with other settings; nothing else is ever deleted, and
           a run that has not yet written a model needs no force
    Raises UsageError E106 for a folder that holds anything else.
    """
    _make(path)
    earlier = read_json(path / "run.json")
    begun = path / f".run.json{PARTIAL}"
    if earlier is None and any(entry != begun for entry in path.iterdir()):
        raise _occupied(path, "it is not empty and is no run of rlu simulate", "an empty folder")
    if earlier is not None and earlier.get("settings_sha256") != settings_hash(settings):
        if not force and any(path.glob("r[0-9]*/*")):
            raise _occupied(path, _difference(earlier, settings), "another folder, or --force")
        _delete_run(path)
    _delete_partial(path)
    return RunFolder(path, settings, classes)


def write_description(
    run: RunFolder, toml: Mapping[str, Any], holding: Holding, record: Mapping[str, Any]
) -> None:
    """Write the files that all rounds share: run.json, rlu.toml and the auxiliary images.

    toml    the flat table that `rlu attack` reads beside the checkpoints
    record  further facts for run.json, such as the partition
    """
    digest = settings_hash(run.settings)
    facts = {"version": __version__, "settings": dict(run.settings), "settings_sha256": digest}
    noted = {name: value for name in NOTES if (value := run.noted(name)) is not None}
    write_json(run.path / "run.json", {**facts, **record, **noted})
    write_whole(run.path / "rlu.toml", _as_toml(toml).encode())
    numbers = np.zeros(len(run.classes), dtype=np.int64)
    for image, label in zip(holding.aux_images, holding.aux_labels, strict=True):
        file = run.auxiliary / run.classes[label] / f"{numbers[label]:05d}.png"
        numbers[label] += 1
        if not file.exists():
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="PNG")
            write_whole(file, buffer.getvalue())


def _difference(earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    before = earlier.get("settings")
    before = before if isinstance(before, dict) else {}
    changed = [
        f"{printable(name, 40)} {printable(before.get(name), 40)} → "
        f"{printable(settings.get(name), 40)}"
        for name in {**settings, **before}
        if before.get(name) != settings.get(name)
    ]
    return "it holds a run with other settings: " + "; ".join(changed)


def _occupied(path: Path, why: str, instead: str) -> UsageError:
    return UsageError(
        "E106", f"refused to write into {printable(path)}", why=why, hint=f"use {instead}"
    )


def _delete_run(path: Path) -> None:
    """Delete what a run wrote, run.json last, and the folders that this leaves empty."""
    home = path.resolve()
    found = [file for pattern in WRITTEN[::-1] for file in path.glob(pattern)]
    # A linked folder leads to files outside the run.
    files = [file for file in found if file.parent.resolve().is_relative_to(home)]
    for file in files:
        file.unlink()
    for folder in sorted({f.parent for f in files} | {path / "aux"}, reverse=True):
        if folder != path and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _delete_partial(path: Path) -> None:
    """Delete what a killed run left half-written."""
    for folder in ("", "aux/*/", "r[0-9]*/"):
        for file in path.glob(f"{folder}.*{PARTIAL}"):
            file.unlink()


def _as_toml(table: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in table.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {_toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    # JSON numbers, booleans and strings are valid TOML, except for DEL, which JSON does not escape
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _occupied(path, printable(error), "a folder that can be created") from error
