"""The names in a table of the package, read without importing it.

A shell asks for completions at every press of the tab key; importing a table would import torch.
"""

from __future__ import annotations

import ast
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def table_names(file: str, table: str) -> tuple[str, ...]:
    """Keys of an annotated dict literal; none where the package has no source beside it.

    file   path inside the package, such as "attacks/__init__.py"
    table  name of the dict, such as "ATTACKS"
    """
    path = _ROOT / file
    if not path.is_file():
        return ()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            continue
        if isinstance(node.target, ast.Name) and node.target.id == table:
            keys = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            return tuple(key for key in keys if isinstance(key, str))
    return ()
