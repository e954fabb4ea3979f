"""Diagnostics without ground truth, with a warning for each one out of range.

`docs/diagnostics.md` says what each one proves and what it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlu_cli.audit.explanations import Explanation
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.auxiliary import is_noise
from rlu_cli.case.build import Case
from rlu_cli.errors import RluError
from rlu_cli.evidence.model_selection import embedding_fit
from rlu_cli.types import Evidence, Outputs, Recovery

OF_METHOD = "W320"
_SUM_TOLERANCE = 1e-3
_CONDITION = 100.0
_WEIGHTING_LOSS = 0.02
_ROUNDING_LIMIT = 0.05
_COSINE = 0.8
_NORM_RATIO = 1.25
_NOISE_COSINE, _NOISE_RATIO = 0.8, 2.0  # untrained models have ≥ 0.85 and ≤ 1.2
_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, None: 2.0**-24}


def update_diagnostics(case: Case, evidence: Evidence) -> dict[str, Any]:
    """Diagnostics of the update, without the gradient-free offset; they need no estimate."""
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
    """Σ_l |Σ_c u_cl| / Σ |u_cl| of an update u (N, L), 0 if every column sums to zero."""
    return float(update.sum(0).abs().sum() / update.abs().sum())


def rounding_share(case: Case, part: str) -> float:
    """Rounding error of the files over the update of one part of the output layer, in magnitude.

    part  "weight" or "bias"; the result is 0 if it is missing or did not move
    """
    narrow = next((c.narrow for c in case.pair if c.narrow), None)
    before, after = (getattr(head, part) for head in case.pair.heads)
    if before is None or torch.equal(before, after):
        return 0.0
    step = float((after.abs() + before.abs()).sum())
    return _ROUNDING[narrow] * step / float((after - before).abs().sum())


def _accuracy(case: Case, outputs: Outputs) -> float | None:
    """Accuracy on the auxiliary images; None for noise."""
    if is_noise(case.auxiliary):
        return None
    return float((outputs.logits.argmax(1) == outputs.labels).double().mean())


def update_warnings(case: Case, diagnostics: Mapping[str, Any]) -> list[FindingWarning]:
    """A warning for every diagnostic of the update that is out of range."""
    sums = {"bias updates": "bias_sum", "columns of the weight update": "weight_column_sum"}
    rounding = {"bias_sum": "bias_rounding", "weight_column_sum": "weight_rounding"}
    found = [
        FindingWarning(
            "W301",
            f"the {name} do not sum to zero over the classes ({diagnostics[key]:.1%} of their "
            "magnitude), so the counts may be wrong: the client used weight decay that was not "
            "given, noise, sparsification, clipping by value, Adam, or a loss other than softmax "
            "cross-entropy",
        )
        for name, key in sums.items()
        if diagnostics[key] is not None
        and diagnostics[key] > _SUM_TOLERANCE + 4 * diagnostics[rounding[key]]
    ]
    coarse = diagnostics["bias_rounding"] or diagnostics["weight_rounding"]
    if coarse > _ROUNDING_LIMIT:
        found.append(
            FindingWarning(
                "W302",
                f"rounding in the files is {coarse:.0%} of the update: save checkpoints in float32 "
                "for exact counts",
            )
        )
    return found + _embedding_warnings(case, diagnostics) + _step_warnings(case, diagnostics)


def _embedding_warnings(case: Case, diagnostics: Mapping[str, Any]) -> list[FindingWarning]:
    cosine, ratio = diagnostics["embedding_cosine"], diagnostics["embedding_norm_ratio"]
    off = cosine < _COSINE or not 1 / _NORM_RATIO < ratio < _NORM_RATIO
    if is_noise(case.auxiliary) or not off:
        return []
    return [
        FindingWarning(
            "W303",
            "the embedding implied by the update differs from that of the auxiliary images "
            f"(cosine {cosine:.2f}, norm ratio {ratio:.2f}): the activation, the input scaling or "
            "the images may differ from the client's, or the model is trained and the client has "
            "few classes",
        )
    ]


def _step_warnings(case: Case, diagnostics: Mapping[str, Any]) -> list[FindingWarning]:
    counted = diagnostics["batchnorm_steps"]
    if counted is None or counted == case.plan.steps:
        return []
    if counted == 0:
        text = (
            "BatchNorm counters did not move: the client trained with frozen statistics (if so, "
            "give --mode eval), or the counters were reset or not sent"
        )
    else:
        text = (
            f"BatchNorm counters show {counted} steps, the settings give {case.plan.steps}: "
            f"if the counters are right, give --epochs {counted} (or --samples for full passes)"
        )
    return [FindingWarning("W304", text)]


def estimate_warnings(
    recovery: Recovery, wanted_draws: int, sizes: Sequence[int] | None
) -> list[FindingWarning]:
    """A warning for every diagnostic of an estimate that is out of range.

    wanted_draws  Monte-Carlo draws in the settings
    sizes         (m,) batch sizes; None if |B| is unknown
    """
    diagnostics = recovery.diagnostics
    found = []
    if not recovery.status.ok:
        found.append(FindingWarning("W310", recovery.status.value))
    if diagnostics.get("condition", 0.0) > _CONDITION:
        found.append(
            FindingWarning(
                "W312",
                f"the model is well trained (condition {diagnostics['condition']:.0f}): small "
                "errors in its confidence cause large errors in the counts",
            )
        )
    loss = diagnostics.get("weighting_loss")
    if loss is not None and (loss > _WEIGHTING_LOSS or _short(sizes)):
        found.append(FindingWarning("W314", _weighting(loss, sizes)))
    if diagnostics.get("draws", wanted_draws) < wanted_draws:
        found.append(
            FindingWarning(
                "W313",
                f"{diagnostics['draws']:,} draws instead of {wanted_draws:,}, to limit computation",
            )
        )
    return found


def explanation_warnings(explanation: Explanation | None) -> list[FindingWarning]:
    """A warning with the mistake that explains the evidence best, if there is one."""
    if explanation is None:
        return []
    shown, hidden = (explanation, explanation.redacted())
    return [FindingWarning("W350", f"{shown.sentence}: {shown.advice}", f"{hidden.sentence}")]


def no_expected_accuracy(problem: RluError) -> FindingWarning:
    """The warning that the requested expected accuracy could not be estimated, with the reason."""
    return FindingWarning(
        "W330",
        f"no expected accuracy from virtual clients: {problem.message} ({problem.code})",
        f"no expected accuracy from virtual clients ({problem.code})",
    )


def method_warnings(title: str, sentences: Sequence[str]) -> list[FindingWarning]:
    """Warnings on assumptions of a method that the case violates, and on its result."""
    return [FindingWarning(OF_METHOD, f"{title}: {sentence}") for sentence in sentences]


def _weighting(loss: float, sizes: Sequence[int] | None) -> str:
    """Why unequal weights cause errors even if the weighted counts are recovered exactly.

    loss  expected iAcc lost by it
    """
    cause = (
        f"the last batch of a pass has {min(sizes)} instead of {max(sizes)} images, so each of its "
        "labels weighs more in the update"
        if sizes is not None and _short(sizes)
        else "the steps of the round have unequal weights in the update"
    )
    return f"{cause}: this alone costs about {loss:.1%} of the labels"


def _short(sizes: Sequence[int] | None) -> bool:
    """Whether the smallest batch has less than half the images of the largest."""
    return sizes is not None and 2 * min(sizes) < max(sizes)


def is_plainly_trained(noise: Outputs, diagnostics: Mapping[str, Any]) -> bool:
    """Whether the global model is trained, so that noise cannot replace auxiliary images.

    noise        outputs of the global model on noise images
    diagnostics  of the update; its implied embedding is compared with that of noise

    A mean softmax entropy below 85 % of the maximum shows a trained model. Many trained models stay
    above it on noise, but then the client's images have other embeddings than noise.
    """
    if diagnostics["embedding_cosine"] < _NOISE_COSINE:
        return True
    if diagnostics["embedding_norm_ratio"] > _NOISE_RATIO:
        return True
    probability = torch.softmax(noise.logits.double(), 1)
    entropy = -(probability * probability.clamp_min(1e-300).log()).sum(1).mean()
    return float(entropy) < 0.85 * float(torch.tensor(float(probability.shape[1])).log())
