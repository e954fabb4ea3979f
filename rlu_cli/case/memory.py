"""The client's state at the start of the round: its earlier rounds and its momentum buffer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlu_cli.case.round_folders import check_history, last_file
from rlu_cli.case.round_history import RoundHistory, read_history
from rlu_cli.checkpoints import CheckpointPair, momentum_head, open_checkpoint
from rlu_cli.local_training.description import LocalTraining
from rlu_cli.types import Head


def earlier_rounds(
    training: LocalTraining, pair: CheckpointPair, value: Callable[[str], Any]
) -> RoundHistory:
    """The client's earlier rounds if the scheme depends on them, else an empty history.

    Raises InputError E231 for a missing or incomplete history.
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
    """The initial momentum buffer of the output layer, from the global or client's last file."""
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
