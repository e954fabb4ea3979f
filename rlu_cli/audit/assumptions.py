"""What the answer takes for granted, in sentences for the report."""

from __future__ import annotations

from collections.abc import Sequence

from rlu_cli.audit.class_label import label
from rlu_cli.case.batchnorm_counters import INFERRED
from rlu_cli.case.build import Case
from rlu_cli.settings.layers import contradictions


def assumptions(case: Case, batch: int, *, training: bool) -> list[str]:
    """The assumptions behind the result, in sentences, that on epochs first.

    batch     batch size of the training-mode passes
    training  whether the models were evaluated in training mode
    """
    lines = [*_epochs_assumed(case), *contradictions(case.settings)]
    if case.plan.batch_sizes is None:
        lines.append("no batch size: shares only; give --batch-size for counts")
        also = " and training-mode passes" * training
        lines.append(f"intervals{also} assume batches of {batch}, because |B| is unknown")
        lines += ["not scored: without --batch-size there are no counts"] * (case.truth is not None)
    narrow = sorted({c.narrow for c in case.pair if c.narrow})
    lines += [f"checkpoints in {name}, converted to float32" for name in narrow]
    lines += [*case.pair.notes, *case.notes, *case.history.notes]
    if case.training.recursion.momentum:
        found = case.velocity is not None
        lines.append(
            "the momentum buffer in the files is modelled as part of the gradient-free offset"
            if found
            else "momentum assumed reset at the start of the round"
            + " (the buffer in the client's file is from the end of the round)"
            * bool(case.pair.after.momentum)
        )
    names = case.auxiliary.class_names
    lines.append(f"class order: {_shortened(names)}")
    return lines + list(case.auxiliary.notes)


def _epochs_assumed(case: Case) -> list[str]:
    """The number of steps if it was inferred, or if an epoch was assumed to be one batch."""
    source, plan = case.settings["epochs"].source, case.plan
    if not source.startswith(INFERRED):
        return [plan.assumed] if plan.assumed else []
    hint = ". If clients make full passes over their data, add --samples N." * bool(plan.assumed)
    return [f"{plan.steps} steps {source}{hint}"]


def _shortened(names: Sequence[str], limit: int = 12) -> str:
    shown = [label(n, name) for n, name in enumerate(names[:limit])]
    if len(names) > limit:
        shown += ["…", label(len(names) - 1, names[-1])]
    return ", ".join(shown)
