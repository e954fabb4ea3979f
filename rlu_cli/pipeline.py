"""One case → one finding: observe, attack, score."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from rlu_cli.attacks import (
    ATTACKS,
    DUMMIES,
    ENSEMBLE,
    LINE,
    TRAINING,
    VIRTUAL,
    Options,
    concerns,
    method_for,
)
from rlu_cli.attacks import AUTO as AUTO_METHOD
from rlu_cli.auxiliary import dummy_auxiliary, is_noise
from rlu_cli.cases import Case
from rlu_cli.checkpoints import read_head
from rlu_cli.counters import counted_steps
from rlu_cli.diagnostics import (
    Caution,
    assumptions,
    confusion_warnings,
    estimate_warnings,
    is_plainly_trained,
    judged,
    method_warnings,
    update_figures,
    update_warnings,
)
from rlu_cli.ensemble import compare
from rlu_cli.errors import InputError, UsageError
from rlu_cli.gap import gap_to_training
from rlu_cli.line import look_again, look_along
from rlu_cli.matching import Reading, choose
from rlu_cli.normalisation import AUTO, PRESETS, parse_normalisation
from rlu_cli.observe import (
    DEFAULT_BATCH,
    Seen,
    View,
    choose_device,
    fingerprint,
    head_update,
    outputs,
    trains_differently,
    view_pair,
    with_bias,
)
from rlu_cli.schemes import drift_weights, step_weights
from rlu_cli.scoring import Score, score, uniform_floor
from rlu_cli.settings import INFER
from rlu_cli.training import refuse_nonlinear
from rlu_cli.types import Drift, Evidence, Head, Outputs, Recovery, Setting
from rlu_cli.virtual import class_updates

METHODS = ("rlu",)
Say = Callable[[str], None]
VIRTUAL_CLIENTS = 64  # for a method that cannot do without, where nobody says how many
_RATE_LIMIT = 0.1  # an inferred learning rate less certain than this is none
_NINETY = 1.645  # standard deviations on either side that hold 90 %


@dataclass(frozen=True)
class MethodFinding:
    """What one method found; one that refuses the case has no recovery and a reason.

    chosen  why, where the user left the choice of the method to `auto`
    """

    method: str
    recovery: Recovery | None
    score: Score | None
    warnings: tuple[Caution, ...]
    refused: str | None = None
    chosen: str | None = None


@dataclass(frozen=True)
class Finding:
    """What came of one case.

    settings     as resolved, with what was inferred from the files
    readings     the ways to read the files that were measured, the one taken first
    diagnostics  figures of the update
    """

    case: Case
    settings: Mapping[str, Setting]
    device: torch.device
    readings: tuple[Reading, ...]
    evidence_width: int
    biased: bool
    diagnostics: Mapping[str, Any]
    assumptions: tuple[str, ...]
    warnings: tuple[Caution, ...]
    methods: tuple[MethodFinding, ...]
    floor: Score | None


def attack(
    case: Case,
    methods: tuple[str, ...] = METHODS,
    *,
    seen: Seen | None = None,
    say: Say = lambda text: None,
) -> Finding:
    """Recover the label counts of one client by each of `methods`.

    seen  shared by the clients of one global model, which is then run once
    say   called with what is going on
    Raises UsageError E108, E109 when every method refuses the case.
    """
    if AUTO_METHOD not in methods:
        _refuse_all(case, methods)
    update, drift = head_update(case.pair, case.layer), _drift(case)
    first = case.readings[0].build(case.pair[0], case.auxiliary.classes)
    view = view_of(case, first)
    learned = update if drift is None else update + drift[-1]
    ranked = choose(case.readings, case.pair, learned, case.auxiliary, view)
    taken = ranked[0]
    same = taken.arguments == case.readings[0].arguments and taken.model == case.readings[0].model
    model = first if same else taken.build(case.pair[0], case.auxiliary.classes)
    view = replace(view, normalise=parse_normalisation(taken.normalise))
    reading = (taken.model, repr(sorted(taken.arguments.items())))
    key = (case.pair[0].sha256, reading, view, fingerprint(case.auxiliary))
    before, after = _ends(case, model, view, seen or Seen(), key)
    evidence = _evidence(case, update, drift, (before, after))
    methods, chosen = _chosen(case, evidence, methods)
    _refuse_all(case, methods)
    evidence = _on_request(case, model, view, evidence, methods, say)
    figures = update_figures(case, evidence)
    _refuse_noise_on_trained(case, evidence, figures)
    found = tuple(replace(_run(n, case, evidence), chosen=chosen.get(n)) for n in methods)
    return Finding(
        case=case,
        settings=_with_inferred(case, taken, found, training=view.training),
        device=view.device,
        readings=tuple(ranked),
        evidence_width=evidence.update.weight.shape[1],
        biased=evidence.biased,
        diagnostics=figures,
        assumptions=tuple(assumptions(case, view.batch, training=view.training)),
        warnings=(*update_warnings(case, figures), *_rate_warnings(case, found)),
        methods=found,
        floor=None if case.truth is None else uniform_floor(case.truth),
    )


def view_of(case: Case, model: nn.Module) -> View:
    """How both models will be shown the images; the scaling is still to be chosen."""
    return View(
        layer=case.layer,
        normalise=PRESETS["none"],
        training=_training_mode(case, model),
        batch=case.value("batch_size") or DEFAULT_BATCH,
        device=choose_device(case.value("device")),
        seed=case.value("seed"),
    )


def _refuse_noise_on_trained(case: Case, evidence: Evidence, figures: Mapping[str, Any]) -> None:
    if is_noise(case.auxiliary) and is_plainly_trained(evidence.before, figures):
        raise InputError(
            "E225",
            "the global model is trained: noise images cannot stand in for auxiliary ones",
            why="its confidence depends on the class of the image",
            hint="give labelled images with --aux DIR, five a class are enough to start",
        )


def _training_mode(case: Case, model: nn.Module) -> bool:
    mode = case.value("mode")
    return trains_differently(model) if mode == "auto" else bool(mode == "train")


def _ends(
    case: Case, model: nn.Module, view: View, seen: Seen, key: Hashable
) -> tuple[Outputs, Outputs]:
    """What the model makes of the images at both ends of the round."""

    def look(end: int) -> Outputs:
        checkpoint = case.pair[end]
        return outputs(model, checkpoint.state, case.auxiliary, view, checkpoint.path)

    return seen.get(key, lambda: look(0)), look(1)


def _evidence(
    case: Case, update: Head, drift: Drift | None, ends: tuple[Outputs, Outputs]
) -> Evidence:
    (before, after), training = ends, case.training
    if drift is not None:
        # A bias that did not move is read from the weights, and so must be what moved it.
        heads = (h if update.bias is not None else replace(h, bias=None) for h in drift.directions)
        directions = tuple(with_bias(head, before, after) for head in heads)
        drift = replace(drift, directions=directions)
    return Evidence(
        update=with_bias(update, before, after),
        weights=step_weights(training.recursion),
        drift=drift,
        batch_sizes=training.plan.batch_sizes,
        lr=training.recursion.lr[0],
        before=before,
        after=after,
        origin=read_head(case.pair[0].state, case.layer),
        biased=update.bias is not None,
        smoothing=training.smoothing,
        passes=training.plan.passes if training.plan.whole else 1,
        rated=training.rated,
        linear=training.nonlinear is None,
    )


def _drift(case: Case) -> Drift | None:
    """What moved the output layer besides the round's gradients: decay, memory, old momentum."""
    recursion, past = case.training.recursion, case.history.past
    origin = read_head(case.pair[0].state, case.layer)
    constant = case.training.scheme.constant(past, recursion.rate, case.history.server)
    heads = (origin if recursion.decay else None, constant, case.velocity)
    moving = {column: head for column, head in enumerate(heads) if head is not None}
    if not moving:
        return None
    return Drift(drift_weights(recursion)[:, list(moving)], tuple(moving.values()))


def _chosen(
    case: Case, evidence: Evidence, methods: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The methods with `auto` replaced by the one for this case, and why that one."""
    if AUTO_METHOD not in methods:
        return methods, {}
    buffers = bool(counted_steps(case.pair))
    taken = method_for(evidence, buffers=buffers, noise=is_noise(case.auxiliary))
    named = [taken.method if name == AUTO_METHOD else name for name in methods]
    return tuple(dict.fromkeys(named)), {taken.method: taken.reason}


def _on_request(
    case: Case,
    model: nn.Module,
    view: View,
    evidence: Evidence,
    methods: tuple[str, ...],
    say: Say,
) -> Evidence:
    """The evidence with what only some methods look at."""
    asked = {need for m in methods if _refusal(m, case) is None for need in ATTACKS[m].needs}
    if DUMMIES in asked:
        dummies = dummy_auxiliary(case.auxiliary, case.value("seed"))
        evidence = replace(evidence, dummies=view_pair(model, case.pair, dummies, view))
    if LINE in asked:
        steps, ends = evidence.steps, (evidence.before, evidence.after)
        line = look_along(model, case.pair, case.auxiliary, view, steps=steps, ends=ends)
        told = {"accuracy": case.value("train_accuracy"), "loss": case.value("train_loss")}
        gap = gap_to_training(model, case.pair[0], case.auxiliary, view, **told)
        again = partial(look_again, model, case.pair, case.auxiliary, view, steps=steps)
        tilt = None if gap is None else gap.exponent
        evidence = replace(evidence, line=line, again=again, tilt=tilt)
    if VIRTUAL in asked:
        trained = class_updates(model, case.pair[0], case.auxiliary, case.training, view, say=say)
        ends = evidence.before, evidence.after
        if not evidence.biased:  # a bias that did not move is read from the weights, here too
            trained = [replace(head, bias=None) for head in trained]
        rows = [with_bias(head, *ends).bias for head in trained]
        evidence = replace(evidence, virtual=torch.stack([row for row in rows if row is not None]))
    if ENSEMBLE in asked:
        client = case.pair, case.auxiliary, case.training, view
        fewest = max(VIRTUAL_CLIENTS, 3 * evidence.classes)  # below that no slope is to be had
        count = case.value("virtual_clients") or fewest
        evidence = replace(evidence, ensemble=compare(model, *client, count, say=say))
    return evidence


def _refusal(name: str, case: Case) -> str | None:
    """Why a method cannot be used on a case at all; None when it can."""
    method = ATTACKS[name]
    if case.training.nonlinear and not method.any_optimiser:
        return case.training.nonlinear
    if not case.training.rated and not method.any_rate:
        return "it needs the learning rate: --lr"
    if LINE in method.needs and case.training.nonlinear and not counted_steps(case.pair):
        return f"it would need BatchNorm buffers that moved: {case.training.nonlinear}"
    if ENSEMBLE in method.needs and (case.training.scheme.remembers or case.velocity):
        return (
            "virtual clients start afresh, and this one carries something over from earlier rounds"
        )
    if TRAINING & method.needs and is_noise(case.auxiliary):
        return "it trains virtual clients on labelled images, and there are none"
    return None


def _refuse_all(case: Case, methods: tuple[str, ...]) -> None:
    """Raises UsageError when no method would answer."""
    reasons = [_refusal(name, case) for name in methods]
    if None in reasons:
        return
    if case.training.nonlinear in reasons:
        refuse_nonlinear(case.training)
    raise UsageError(
        "E109",
        f"no method asked for can be used: {', '.join(methods)}",
        why="; ".join(dict.fromkeys(reason for reason in reasons if reason)),
        hint="give labelled images with --aux DIR, or another --method (`rlu methods`)",
    )


def _run(name: str, case: Case, evidence: Evidence) -> MethodFinding:
    reason = _refusal(name, case)
    if reason is not None:
        return MethodFinding(name, None, None, (), reason)
    method, told = ATTACKS[name], case.value
    options = Options(told("draws"), told("iterations"), told("search"), told("seed"))
    recovery = judged(method.build(options)(evidence))
    scored = None
    if case.truth is not None and recovery.counts is not None:
        scored = score(recovery.counts, case.truth, recovery.present)
    outside = concerns(method, evidence, noise=is_noise(case.auxiliary))
    warnings = (
        *method_warnings(method.title, (*outside, *recovery.notes)),
        *estimate_warnings(recovery, told("draws"), case.plan.batch_sizes),
        *confusion_warnings(recovery, case.auxiliary.class_names),
    )
    return MethodFinding(name, recovery, scored, warnings)


def _inferred_rate(found: Sequence[MethodFinding], *, asked: bool) -> Setting:
    """The learning rate nobody told, as a method found it.

    asked  whether the user takes it with any interval: `--lr infer`

    Raises UsageError E102 where none found it, or unasked not within ±10 % (90 %).
    """
    rate, error = _found_rate(found) or (0.0, float("inf"))
    if not rate or (error > _RATE_LIMIT * rate and not asked):
        raise UsageError(
            "E102",
            "nobody said what the learning rate was",
            why=f"the files tell it only as {rate:.3g} ± {error:.2g} (90 %)"
            if rate
            else "the files do not tell it",
            hint=f"give it with --lr ETA{', or take what they tell: --lr infer' if rate else ''}",
        )
    return Setting(rate, f"inferred from BatchNorm means and Δb, ± {error:.2g} (90 %)")


def _found_rate(found: Sequence[MethodFinding]) -> tuple[float, float] | None:
    """The learning rate as the first method that could tell it found it, and its 90 % interval."""
    told = [one.recovery.lr for one in found if one.recovery is not None and one.recovery.lr]
    return (told[0][0], _NINETY * told[0][1]) if told else None


def _rate_warnings(case: Case, found: Sequence[MethodFinding]) -> list[Caution]:
    """A sentence on a learning rate that is taken on request though the files hardly tell it."""
    rate = _found_rate(found)
    if case.value("lr") != INFER or rate is None or rate[1] <= _RATE_LIMIT * rate[0]:
        return []
    return [
        Caution(
            "W322",
            f"the learning rate is taken as {rate[0]:.3g} ± {rate[1]:.2g} (90 %), which is all the "
            "files tell of it; the intervals of the answer allow for that",
        )
    ]


def _with_inferred(
    case: Case, taken: Reading, found: Sequence[MethodFinding], *, training: bool
) -> dict[str, Setting]:
    """The settings, completed by what was read from keys, shapes and the embedding check."""
    settings = dict(case.settings)
    settings.setdefault("model", Setting(taken.model, "keys and shapes"))
    if not case.training.rated and case.training.nonlinear is None:
        settings["lr"] = _inferred_rate(found, asked=case.value("lr") == INFER)
    given = case.value("model_args") or {}
    if dict(taken.arguments) != given:
        source = "embedding check" if len(case.readings) > 1 else "default"
        settings["model_args"] = Setting(dict(taken.arguments), source)
    if settings["normalize"].value == AUTO:
        settings["normalize"] = Setting(taken.normalise, "embedding check")
    if settings["mode"].value == "auto":
        settings["mode"] = Setting("train" if training else "eval", "the model's layers")
    return settings
