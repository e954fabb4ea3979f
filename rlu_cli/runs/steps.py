"""Trainers that keep a checkpoint every so many steps: each follows the one before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlu_cli.runs.run import Exchange
from rlu_cli.types import Setting


def by_steps(files: Mapping[int, Path]) -> tuple[Exchange, ...]:
    """Exchanges from checkpoints by the step at which each was written.

    The steps of a pair are the difference; the first has no global model, and its own number of
    steps where the trainer began at 0.
    """
    steps = sorted(files)
    return tuple(
        Exchange(
            after,
            "",
            files.get(before),
            files[after],
            taken(after - before, f"steps {before} to {after} by the files' names"),
        )
        for before, after in zip([0, *steps], steps, strict=False)
        if after > 0
    )


def taken(steps: int, source: str) -> dict[str, Setting]:
    """So many local steps, of one batch each."""
    return {"epochs": Setting(steps, source), "steps_per_epoch": Setting(1, source)}
