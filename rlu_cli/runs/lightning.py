"""Lightning: `hparams.yaml` and the checkpoints of one version, each a step further."""

from __future__ import annotations

import re

from rlu_cli.runs.folder import RunFolder
from rlu_cli.runs.names import COMMON, leaves, settings_in
from rlu_cli.runs.run import Run, System
from rlu_cli.runs.steps import by_steps

_HPARAMS = "hparams.yaml"
_STEP = re.compile(r"(?:^|[-_/])step=(\d{1,9})(?!\d)")
_VERSION = re.compile(r"(?:^|/)version_(\d{1,6})/")


def matches(folder: RunFolder) -> bool:
    return bool(_checkpoints(folder)) or bool(folder.named(_HPARAMS))


def read(folder: RunFolder, name: str) -> Run:
    """Hyper-parameters of the last version; its pairs are checkpoints that follow one another.

    The optimiser's state in the client's checkpoint tells what hparams.yaml does not.
    """
    files = _last_version(list(folder.files))
    hparams = next((file for file in files if file.rpartition("/")[2] == _HPARAMS), None)
    given = dict(leaves(folder.yaml(hparams))) if hparams is not None else {}
    steps = {
        int(match[1]): folder.file(file)
        for file in reversed(files)
        if file.endswith(".ckpt") and (match := _STEP.search(file))
    }
    return Run(
        folder.path,
        name,
        by_steps(steps),
        settings_in(given, f"{hparams}:", {k: v for k, v in COMMON.items() if k != "epochs"}),
        full_passes=False,
        no_global="it is the first checkpoint of the run, which keeps no earlier one",
    )


def _checkpoints(folder: RunFolder) -> list[str]:
    return [file for file in folder.ending(".ckpt") if _STEP.search(file)]


def _last_version(files: list[str]) -> list[str]:
    """The files of the last version, or all where there are no versions."""
    versions = {int(match[1]) for file in files if (match := _VERSION.search(file))}
    if not versions:
        return files
    last = f"version_{max(versions)}/"
    return [file for file in files if f"/{last}" in f"/{file}"]


SYSTEM = System(matches, read)
