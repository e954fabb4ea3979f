"""Tests of hostile files share the makers of checkpoint files."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "checkpoints"))
