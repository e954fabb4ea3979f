"""How many local steps a client took, and the size of each batch."""

from __future__ import annotations

from dataclasses import dataclass

from rlu_cli.errors import UsageError
from rlu_cli.settings.client import MAX_STEPS


@dataclass(frozen=True)
class StepPlan:
    """The local steps of one round.

    steps        m
    batch_sizes  (m,) images in each batch; None if |B| is unknown
    passes       full passes over the client's samples; 1 if epochs are not full passes
    whole        whether every pass contains every sample, so that all passes have the same labels
    assumed      sentence for the report if an epoch was assumed to be one batch, else None
    """

    steps: int
    batch_sizes: tuple[int, ...] | None
    passes: int = 1
    whole: bool = False
    assumed: str | None = None

    @property
    def total(self) -> int | None:
        """K, the number of labels in the update; None if |B| is unknown."""
        return None if self.batch_sizes is None else sum(self.batch_sizes)


def plan_steps(
    epochs: int,
    batch_size: int | None = None,
    samples: int | None = None,
    steps_per_epoch: int | None = None,
    *,
    drop_last: bool = False,
) -> StepPlan:
    """Plan the steps and batch sizes of `epochs` epochs.

    With `samples` n, an epoch is a full pass of ⌈n / |B|⌉ batches; the last one is smaller, or
    omitted with `drop_last`. With `steps_per_epoch`, an epoch is that many full batches. With
    neither, an epoch is one batch, as in the paper.

    Raises UsageError E101 for too many steps, E102 for n without |B|, E106 for contradictory
    settings.
    """
    if samples is not None:
        if batch_size is not None:
            whole = samples // batch_size
            more = 0 if drop_last else bool(samples % batch_size)
            _affordable((whole + more) * epochs)  # before anything of that size is allocated
        one_pass = _batches_of_a_pass(samples, batch_size, drop_last=drop_last)
        if steps_per_epoch is not None and steps_per_epoch != len(one_pass):
            raise UsageError(
                "E106",
                f"{samples} samples in batches of {batch_size} are {len(one_pass)} steps per "
                f"epoch, not {steps_per_epoch}",
                hint="give --samples or --steps-per-epoch, not both",
            )
        sizes = one_pass * epochs
        return StepPlan(len(sizes), sizes, epochs, sum(one_pass) == samples)
    steps = _affordable(epochs * (steps_per_epoch or 1))
    full = None if batch_size is None else (batch_size,) * steps
    assumed = (
        f"--epochs {steps} read as {steps} batch{'es' * (steps > 1)} in total. "
        "If clients make full passes over their data, add --samples N."
        if steps_per_epoch is None
        else None
    )
    return StepPlan(steps, full, assumed=assumed)


def _batches_of_a_pass(samples: int, batch_size: int | None, *, drop_last: bool) -> tuple[int, ...]:
    if batch_size is None:
        raise UsageError(
            "E102",
            "--samples needs --batch-size: a full pass takes one step per batch",
            hint="give --batch-size B with --samples, or --steps-per-epoch S instead",
        )
    whole, rest = divmod(samples, batch_size)
    if drop_last and not whole:
        raise UsageError(
            "E106",
            f"{samples} samples do not fill a batch of {batch_size}, so --drop-last leaves none",
            hint="check --samples, --batch-size and --drop-last",
        )
    return (batch_size,) * whole + ((rest,) if rest and not drop_last else ())


def _affordable(steps: int) -> int:
    if steps > MAX_STEPS:
        raise UsageError(
            "E101",
            f"{steps:,} steps in one round exceed the limit of {MAX_STEPS:,}",
            hint="check --epochs, --samples and --batch-size",
        )
    return steps
