"""`rlu`: how many examples of each class a federated-learning update reveals.

The package reads as its pipeline runs: settings → case → evidence → attacks → audit → reports.
Every file and folder stands in one row of this map, and imports from lower rows only; those in one
row never import one another. (`tests/test_structure.py` reads the map and holds the rule.)

    __main__                       python -m rlu_cli
    cli                            the typer app, exit statuses, the one place that shows errors
    commands                       one command, one file; the only ones that print and exit
    api                            the same as Python functions, and what they return
    reports experiments            a finding as text, one format a file; the paper's tables, figures
    audit                          one case → one finding: attack, diagnose, score, pool rounds
    evidence                       what both models and the images show, one observation a file
    case simulator                 what the user gave, checked once; labelled federations on disk
    local_training                 how a client trained: optimiser, steps, order of batches
    settings                       every setting: its parser, option, default; its value and source
    runs                           run folders of other systems, one system a file
    attacks schemes checkpoints models datasets        families: one method, format, … a file
    numerics hashing ledger        tensors in, tensors out; content hashes; resumable results
    regular_files toml_text        files that others made: regular ones only, size first; their TOML
    types                          the values that pass between the steps
    errors                         every way a command can end
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rlu_cli.api.attack import attack as attack
    from rlu_cli.api.calibrate import calibrate as calibrate
    from rlu_cli.api.finding import Finding as Finding
    from rlu_cli.api.open_checkpoint import open_checkpoint as open_checkpoint
    from rlu_cli.api.score import score as score
    from rlu_cli.api.simulate import simulate as simulate
    from rlu_cli.errors import RluError as RluError

# The Python API: what each name stands for, imported when it is first used.
_API = {
    "attack": "rlu_cli.api.attack",
    "calibrate": "rlu_cli.api.calibrate",
    "Finding": "rlu_cli.api.finding",
    "open_checkpoint": "rlu_cli.api.open_checkpoint",
    "score": "rlu_cli.api.score",
    "simulate": "rlu_cli.api.simulate",
    "RluError": "rlu_cli.errors",
}
__all__ = ["__version__", *_API]


if not TYPE_CHECKING:  # so that a type checker sees a misspelt name

    def __getattr__(name: str) -> Any:
        if name not in _API:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])
