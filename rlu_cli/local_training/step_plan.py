"""How many steps a client made and how large its batches were."""

from __future__ import annotations

from dataclasses import dataclass

from rlu_cli.errors import UsageError
from rlu_cli.settings.client import MAX_STEPS


@dataclass(frozen=True)
class StepPlan:
    """The steps of one round.

    steps        m
    batch_sizes  (m,) images in each batch; None when |B| is not known
    passes       full passes over the client's samples; 1 where batches are drawn afresh
    whole        whether every pass holds every sample, so that all passes have the same labels
    assumed      sentence for the report, when the meaning of an epoch was assumed
    """

    steps: int
    batch_sizes: tuple[int, ...] | None
    passes: int = 1
    whole: bool = False
    assumed: str | None = None

    @property
    def total(self) -> int | None:
        """K, the labels that go into the update."""
        return None if self.batch_sizes is None else sum(self.batch_sizes)


def plan_steps(
    epochs: int,
    batch_size: int | None = None,
    samples: int | None = None,
    steps_per_epoch: int | None = None,
    *,
    drop_last: bool = False,
) -> StepPlan:
    """Steps and batch sizes of `epochs` epochs.

    With `samples` n, an epoch is a full pass of ⌈n / |B|⌉ batches, the last one smaller, or left
    out with `drop_last`; with `steps_per_epoch`, that many full batches; with neither it is one
    batch, as in the paper.

    Raises UsageError E106 for settings that contradict each other, E102 for n without |B|.
    """
    if samples is not None:
        if batch_size is not None:
            _affordable(-(-samples // batch_size) * epochs)  # before anything of that size is made
        one_pass = _batches_of_a_pass(samples, batch_size, drop_last=drop_last)
        if steps_per_epoch is not None and steps_per_epoch != len(one_pass):
            raise UsageError(
                "E106",
                f"{samples} samples in batches of {batch_size} are {len(one_pass)} steps an "
                f"epoch, not {steps_per_epoch}",
                hint="give --samples or --steps-per-epoch, not both",
            )
        sizes = one_pass * epochs
        return StepPlan(len(sizes), sizes, epochs, sum(one_pass) == samples)
    steps = _affordable(epochs * (steps_per_epoch or 1))
    full = None if batch_size is None else (batch_size,) * steps
    assumed = (
        f"assumed {steps} step{'s' * (steps > 1)}, one batch an epoch; "
        "for full passes give --samples"
        if steps_per_epoch is None
        else None
    )
    return StepPlan(steps, full, assumed=assumed)


def _batches_of_a_pass(samples: int, batch_size: int | None, *, drop_last: bool) -> tuple[int, ...]:
    if batch_size is None:
        raise UsageError(
            "E102",
            "a full pass over the samples has as many steps as there are batches",
            hint="give --batch-size B beside --samples, or --steps-per-epoch S",
        )
    whole, rest = divmod(samples, batch_size)
    if drop_last and not whole:
        raise UsageError(
            "E106",
            f"{samples} samples fill no batch of {batch_size}, and the last one is dropped",
            hint="check --samples, --batch-size and --drop-last",
        )
    return (batch_size,) * whole + ((rest,) if rest and not drop_last else ())


def _affordable(steps: int) -> int:
    if steps > MAX_STEPS:
        raise UsageError(
            "E101",
            f"{steps:,} steps in one round are more than {MAX_STEPS:,}",
            hint="check --epochs, --samples and --batch-size",
        )
    return steps
