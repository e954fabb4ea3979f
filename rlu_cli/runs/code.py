"""The model code of a run: found by name in its source text, never imported here."""

from __future__ import annotations

import ast
import warnings

from rlu_cli.errors import InputError
from rlu_cli.runs.folder import RunFolder

_MAX_SOURCE = 2**19
_MODULES = ("Module", "LightningModule")


def file_of_class(folder: RunFolder, dotted: str) -> str | None:
    """`PATH.py:NAME` for `package.module.NAME`; None if no file of the run is that module."""
    module, _, name = dotted.rpartition(".")
    tail = f"{module.replace('.', '/')}.py"
    for file in folder.ending(".py"):
        if (file == tail or file.endswith(f"/{tail}")) and module and name.isidentifier():
            return f"{folder.file(file).resolve()}:{name}"
    return None


def only_model(folder: RunFolder, files: list[str]) -> str | None:
    """`PATH.py:NAME` of the one class derived from a torch module in these files."""
    found = [
        f"{folder.file(file).resolve()}:{name}" for file in files for name in _models(folder, file)
    ]
    return found[0] if len(found) == 1 else None


def _models(folder: RunFolder, file: str) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in the text
            tree = ast.parse(folder.text(file, _MAX_SOURCE))
    except (InputError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(_last(base) in _MODULES for base in node.bases)
    ]


def _last(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
