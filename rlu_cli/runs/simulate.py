"""Run folders of `rlu simulate`: its rlu.toml is read beside the checkpoints, as always."""

from __future__ import annotations

from rlu_cli.runs.folder import RunFolder
from rlu_cli.runs.rounds import rounds_in
from rlu_cli.runs.run import Run, System


def matches(folder: RunFolder) -> bool:
    return {"run.json", "rlu.toml"} <= set(folder.files)


def read(folder: RunFolder, name: str) -> Run:
    """The pairs and the auxiliary images; settings are those of rlu.toml."""
    aux = folder.path / "aux"
    held = any(file.startswith("aux/") for file in folder.files)
    return Run(folder.path, name, rounds_in(folder), aux=aux if held else None)


SYSTEM = System(matches, read)
