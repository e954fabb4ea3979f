"""What the round under study started from besides the global model: earlier rounds, old momentum."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlu_cli.case.round_history import RoundHistory, check_history, last_file, read_history
from rlu_cli.checkpoints import CheckpointPair, momentum_head, open_checkpoint
from rlu_cli.local_training.description import LocalTraining
from rlu_cli.types import Head


def earlier_rounds(
    training: LocalTraining, pair: CheckpointPair, value: Callable[[str], Any]
) -> RoundHistory:
    """The client's earlier rounds, where the scheme's steps depend on them.

    Raises InputError E231 for a history that is missing or incomplete.
    """
    if value("history") is not None:
        check_history(Path(value("history")))
    if not training.scheme.remembers:
        return RoundHistory()
    assert pair.layer is not None
    return read_history(
        Path(value("history")),
        pair.after.path,
        pair.before,
        pair.layer,
        rate=training.recursion.rate,
        needs_server=training.scheme.server_value,
        max_bytes=value("max_bytes"),
    )


def old_momentum(
    training: LocalTraining, pair: CheckpointPair, value: Callable[[str], Any]
) -> Head | None:
    """The momentum buffer the client began with: in the global file, or in its own last one."""
    if not training.recursion.momentum:
        return None
    assert pair.layer is not None
    found = momentum_head(pair.before, pair.layer)
    if found is not None or value("history") is None:
        return found
    earlier = last_file(Path(value("history")), pair.after.path)
    if earlier is None:
        return None
    return momentum_head(open_checkpoint(earlier, max_bytes=value("max_bytes")), pair.layer)
