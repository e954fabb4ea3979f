"""Run folders of federated-learning systems: the pairs in them, and how their clients trained.

A system is one file and one line in `SYSTEMS`. Nothing in a run folder is run, links in it are not
followed, and what is found carries its source.
"""

from __future__ import annotations

from pathlib import Path

from rlu_cli.errors import InputError, printable
from rlu_cli.runs import fedml, flower, hf_trainer, lightning, nvflare, plato, simulate
from rlu_cli.runs.choice import Chosen, choose
from rlu_cli.runs.folder import RunFolder, open_run_folder
from rlu_cli.runs.run import Exchange, Run, System

__all__ = ["SYSTEMS", "Chosen", "Exchange", "Run", "choose", "open_run"]

# The first that matches counts: those with files of their own name come first.
SYSTEMS: dict[str, System] = {
    "rlu simulate": simulate.SYSTEM,
    "Flower": flower.SYSTEM,
    "NVFlare": nvflare.SYSTEM,
    "FedML": fedml.SYSTEM,
    "Plato": plato.SYSTEM,
    "HF Trainer": hf_trainer.SYSTEM,
    "Lightning": lightning.SYSTEM,
}


def open_run(path: Path) -> Run:
    """What the folder of a run holds: its system, its pairs and its settings.

    Raises InputError E201 for a folder or a file that cannot be read, E232 for one of no known
    system, UsageError E107 where the system's files need an optional package.
    """
    folder = open_run_folder(path)
    for name, system in SYSTEMS.items():
        if system.matches(folder):
            return system.read(folder, name)
    raise _unknown(folder)


def _unknown(folder: RunFolder) -> InputError:
    return InputError(
        "E232",
        f"{printable(folder.path)} is the run folder of no known system",
        why=f"it has the files of none of {', '.join(SYSTEMS)}",
        hint="give the folder that holds the run's configuration, or the pair itself with --global "
        "and --local",
    )
