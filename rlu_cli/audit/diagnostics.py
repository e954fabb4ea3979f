"""Figures that need no truth, and a sentence for each that is off.

What each one proves and does not is in `docs/diagnostics.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.auxiliary import is_noise
from rlu_cli.case.batchnorm_counters import INFERRED
from rlu_cli.case.build import Case
from rlu_cli.errors import RluError, printable
from rlu_cli.evidence.model_selection import embedding_fit
from rlu_cli.numerics.identifiability import unidentifiable_groups, uninformative
from rlu_cli.types import Evidence, Outputs, Recovery, Status

OF_METHOD = "W320"
_SUM_TOLERANCE = 1e-3
_RESIDUAL = 0.1
_CONDITION = 100.0
_WEIGHTING_LOSS = 0.02
_ROUNDING_LIMIT = 0.05
_COSINE = 0.8
_NORM_RATIO = 1.25
_GROUPS_SAID = 5  # groups of classes that a sentence lists
_NOISE_COSINE, _NOISE_RATIO = 0.8, 2.0  # untrained models: 0.85 and more, 1.2 and less
_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, None: 2.0**-24}


def update_figures(case: Case, evidence: Evidence) -> dict[str, Any]:
    """Figures of the update, what is known of the scheme's drift removed, before any estimate."""
    update = evidence.learned
    assert update.bias is not None
    cosine, ratio = embedding_fit(update, evidence.before, evidence.after)
    steps = case.pair.steps
    return {
        "bias_sum": relative_sum(update.bias[:, None]) if evidence.biased else None,
        "weight_column_sum": relative_sum(update.weight),
        "bias_rounding": rounding_share(case, "bias"),
        "weight_rounding": rounding_share(case, "weight"),
        "embedding_cosine": cosine,
        "embedding_norm_ratio": ratio,
        "accuracy_before": _accuracy(case, evidence.before),
        "accuracy_after": _accuracy(case, evidence.after),
        "batchnorm_steps": steps,
    }


def relative_sum(update: Tensor) -> float:
    """|Σ over classes| as a share of Σ| |, for all columns together."""
    return float(update.sum(0).abs().sum() / update.abs().sum())


def rounding_share(case: Case, part: str) -> float:
    """How large the files' rounding of a part of the output layer is beside its update.

    part  "weight" or "bias"; 0 where it is missing or did not move
    """
    narrow = next((c.narrow for c in case.pair if c.narrow), None)
    before, after = (getattr(head, part) for head in case.pair.heads)
    if before is None or torch.equal(before, after):
        return 0.0
    step = float((after.abs() + before.abs()).sum())
    return _ROUNDING[narrow] * step / float((after - before).abs().sum())


def _accuracy(case: Case, outputs: Outputs) -> float | None:
    if is_noise(case.auxiliary):
        return None
    return float((outputs.logits.argmax(1) == outputs.labels).double().mean())


def update_warnings(case: Case, figures: Mapping[str, Any]) -> list[FindingWarning]:
    """A sentence for every figure of the update that is off."""
    sums = {"bias updates": "bias_sum", "columns of the weight update": "weight_column_sum"}
    rounding = {"bias_sum": "bias_rounding", "weight_column_sum": "weight_rounding"}
    found = [
        FindingWarning(
            "W301",
            f"the {name} do not sum to zero over the classes ({figures[key]:.1%} of their size): "
            "weight decay, noise, sparsification, clipping by value, Adam or a loss that is no "
            "softmax was at work, and the counts may be off",
        )
        for name, key in sums.items()
        if figures[key] is not None and figures[key] > _SUM_TOLERANCE + 4 * figures[rounding[key]]
    ]
    coarse = figures["bias_rounding"] or figures["weight_rounding"]
    if coarse > _ROUNDING_LIMIT:
        found.append(
            FindingWarning(
                "W302",
                f"rounding in the files is {coarse:.0%} of the update: save checkpoints in float32 "
                "for exact counts",
            )
        )
    return found + _embedding_warnings(case, figures) + _step_warnings(case, figures)


def _embedding_warnings(case: Case, figures: Mapping[str, Any]) -> list[FindingWarning]:
    cosine, ratio = figures["embedding_cosine"], figures["embedding_norm_ratio"]
    off = cosine < _COSINE or not 1 / _NORM_RATIO < ratio < _NORM_RATIO
    if is_noise(case.auxiliary) or not off:
        return []
    return [
        FindingWarning(
            "W303",
            f"the embedding that the update implies fits the auxiliary images' poorly (cosine "
            f"{cosine:.2f}, norm ratio {ratio:.2f}): the activation, the input scaling or the "
            "images may not be the client's, or the model is trained and the client's classes "
            "few",
        )
    ]


def _step_warnings(case: Case, figures: Mapping[str, Any]) -> list[FindingWarning]:
    counted = figures["batchnorm_steps"]
    if counted is None or counted == case.plan.steps:
        return []
    if counted == 0:
        text = (
            "BatchNorm counters did not move: the client trained with frozen statistics (then "
            "--mode eval), or the counters were reset or kept at home"
        )
    else:
        text = (
            f"BatchNorm counters show {counted} steps, the settings {case.plan.steps}: "
            f"if the counters are right, give --epochs {counted} (or --samples for full passes)"
        )
    return [FindingWarning("W304", text)]


def check_informative(recovery: Recovery) -> Recovery:
    """The recovery, its status UNINFORMED where its own error says that it tells nothing."""
    if recovery.covariance is None or not recovery.status.ok:
        return recovery
    found = recovery.shares if recovery.unconstrained is None else recovery.unconstrained
    if not uninformative(recovery.shares, found, recovery.covariance):
        return recovery
    return replace(recovery, status=Status.UNINFORMATIVE)


def unidentifiable(recovery: Recovery) -> tuple[tuple[int, ...], ...]:
    """Groups of classes that the evidence tells together and not apart; none where nobody knows."""
    if recovery.covariance is None or not recovery.status.ok:
        return ()
    return unidentifiable_groups(recovery.shares, recovery.covariance)


def identifiability_warnings(recovery: Recovery, names: Sequence[str]) -> list[FindingWarning]:
    """A sentence on the classes that are told together and not apart, with their names."""
    groups = unidentifiable(recovery)
    if not groups:
        return []
    said = "; ".join(
        f"{_listed(group, names)} are {float(recovery.shares[list(group)].sum()):.1%} together"
        for group in groups[:_GROUPS_SAID]
    )
    more = f"; and {len(groups) - _GROUPS_SAID} more groups" * (len(groups) > _GROUPS_SAID)
    classes = sum(map(len, groups))
    why = "how that splits among them the evidence does not tell"
    text = f"classes that cannot be told from one another: {said}{more}; {why}"
    hidden = f"{classes} classes, in {len(groups)} groups, cannot be told from one another"
    return [FindingWarning("W321", text, f"{hidden}: only the sum of each group is told")]


def _listed(group: Sequence[int], names: Sequence[str], limit: int = 6) -> str:
    shown = [label(n, names[n]) for n in group[:limit]]
    if len(group) > limit:
        return ", ".join(shown) + f" and {len(group) - limit} more"
    return ", ".join(shown[:-1]) + f" and {shown[-1]}"


def estimate_warnings(
    recovery: Recovery, wanted_draws: int, sizes: Sequence[int] | None
) -> list[FindingWarning]:
    """A sentence for every figure of the estimate that is off."""
    figures = recovery.diagnostics
    found = []
    if not recovery.status.ok:
        found.append(FindingWarning("W310", recovery.status.value))
    if figures.get("residual", 0.0) > _RESIDUAL:
        found.append(
            FindingWarning(
                "W311",
                f"the best shares leave {figures['residual']:.0%} of the bias update unexplained: "
                "the learning rate may be larger than given, or the update is not plain training "
                "(a rate given too large leaves no such trace)",
            )
        )
    if figures.get("condition", 0.0) > _CONDITION:
        found.append(
            FindingWarning(
                "W312",
                f"the model is well trained (condition {figures['condition']:.0f}): small errors "
                "in its confidence become large errors in the counts",
            )
        )
    loss = figures.get("weighting_loss")
    if loss is not None and (loss > _WEIGHTING_LOSS or _short(sizes)):
        found.append(FindingWarning("W314", _weighting(loss, sizes)))
    if figures.get("draws", wanted_draws) < wanted_draws:
        found.append(
            FindingWarning(
                "W313", f"{figures['draws']:,} draws instead of {wanted_draws:,}, to bound work"
            )
        )
    return found


def no_expected_accuracy(problem: RluError) -> FindingWarning:
    """Why the expected accuracy that was asked for could not be estimated."""
    return FindingWarning(
        "W330",
        f"no expected accuracy from virtual clients: {problem.message} ({problem.code})",
        f"no expected accuracy from virtual clients ({problem.code})",
    )


def method_warnings(title: str, sentences: Sequence[str]) -> list[FindingWarning]:
    """What a method takes for granted and does not find here, or says of its answer."""
    return [FindingWarning(OF_METHOD, f"{title}: {sentence}") for sentence in sentences]


def _weighting(loss: float, sizes: Sequence[int] | None) -> str:
    """Why even a perfect reading of the update misses some labels."""
    cause = (
        f"the last batch of a pass holds {min(sizes)} of {max(sizes)} images, and each of its "
        "labels counts as many times more"
        if sizes is not None and _short(sizes)
        else "the steps of the round count unequally in the update"
    )
    return f"{cause}: about {loss:.1%} of the labels are lost to this alone"


def _short(sizes: Sequence[int] | None) -> bool:
    """Whether a batch holds under half of what the others do."""
    return sizes is not None and 2 * min(sizes) < max(sizes)


def assumptions(case: Case, batch: int, *, training: bool) -> list[str]:
    """What the answer takes for granted, the meaning of an epoch first."""
    lines = _steps_said(case)
    if case.plan.batch_sizes is None:
        lines.append("no batch size: shares only; give --batch-size for counts")
        also = " and training-mode passes" * training
        lines.append(f"intervals{also} as of batches of {batch}, since |B| is not known")
        lines += ["not scored: without --batch-size there are no counts"] * (case.truth is not None)
    narrow = sorted({c.narrow for c in case.pair if c.narrow})
    lines += [f"checkpoints in {name}, widened to float32" for name in narrow]
    lines += [*case.notes, *case.history.notes]
    if case.training.recursion.momentum:
        found = case.velocity is not None
        lines.append(
            "the momentum buffer found in the files enters as drift"
            if found
            else "momentum taken as reset at the start of the round"
            + " (the buffer in the client's file is from its end)" * bool(case.pair.after.momentum)
        )
    names = case.auxiliary.class_names
    lines.append(f"class order: {_shortened(names)}")
    return lines + list(case.auxiliary.notes)


def _steps_said(case: Case) -> list[str]:
    """How many steps there were, where nobody said so, or not whether an epoch is a full pass."""
    source, plan = case.settings["epochs"].source, case.plan
    if not source.startswith(INFERRED):
        return [plan.assumed] if plan.assumed else []
    return [f"{plan.steps} steps {source}{'; for full passes give --samples' * bool(plan.assumed)}"]


def _shortened(names: Sequence[str], limit: int = 12) -> str:
    shown = [label(n, name) for n, name in enumerate(names[:limit])]
    if len(names) > limit:
        shown += ["…", label(len(names) - 1, names[-1])]
    return ", ".join(shown)


def label(index: int, name: str, limit: int = 40) -> str:
    """A class as a reader sees it: its index, and its name where that says more."""
    return str(index) if name == str(index) else f"{index} {printable(name, limit)}"


def is_plainly_trained(noise: Outputs, figures: Mapping[str, Any]) -> bool:
    """Whether the global model tells classes apart, so that noise cannot stand in for images.

    noise    what it makes of noise images
    figures  of the update, its implied embedding compared with that of noise

    Below 85 % of the greatest possible entropy, the softmax of single images is a decision. Many a
    trained model decides nothing on noise; but then the client's images have other embeddings.
    """
    if figures["embedding_cosine"] < _NOISE_COSINE:
        return True
    if figures["embedding_norm_ratio"] > _NOISE_RATIO:
        return True
    probability = torch.softmax(noise.logits.double(), 1)
    entropy = -(probability * probability.clamp_min(1e-300).log()).sum(1).mean()
    return float(entropy) < 0.85 * float(torch.tensor(float(probability.shape[1])).log())
