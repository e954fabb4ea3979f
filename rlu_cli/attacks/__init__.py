"""Label-recovery attacks: one paper, one file; each maps `Evidence` to a `Recovery`."""

from __future__ import annotations

from rlu_cli.attacks.rlu import RLU, SEARCHES

ATTACKS = {"rlu": RLU}

__all__ = ["ATTACKS", "RLU", "SEARCHES"]
