"""One case → one finding: select the model, assemble the evidence, attack, score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rlu_cli.attacks import ATTACKS, concerns, method_for
from rlu_cli.attacks import AUTO as AUTO_METHOD
from rlu_cli.attacks.method import learned_something
from rlu_cli.attacks.noise_model import added_noise, round_of
from rlu_cli.attacks.observations import INTERPOLATION, VIRTUAL_POPULATION, VIRTUAL_TRIALS
from rlu_cli.audit.applicability import refusal, refuse_noise_on_trained, require_any
from rlu_cli.audit.assumptions import assumptions
from rlu_cli.audit.class_weights import without_weights
from rlu_cli.audit.credibility import credibility, posterior_of
from rlu_cli.audit.diagnostics import (
    estimate_warnings,
    explanation_warnings,
    method_warnings,
    update_diagnostics,
    update_warnings,
)
from rlu_cli.audit.explanations import Explanation, explain
from rlu_cli.audit.finding import CaseFinding, MethodFinding
from rlu_cli.audit.identifiability import check_informative, identifiability_warnings
from rlu_cli.audit.learning_rate import inferred_rate, rate_warnings
from rlu_cli.audit.model_average import averaged, hypotheses_to_average
from rlu_cli.audit.scoring import score, uniform_floor
from rlu_cli.audit.settled_order import settle_order
from rlu_cli.audit.verdict import RELIABLE, Circumstances, verdict
from rlu_cli.case.auxiliary import is_noise
from rlu_cli.case.build import Case
from rlu_cli.case.hypotheses import ModelHypothesis
from rlu_cli.evidence.assemble import (
    assemble,
    evaluate_ends,
    forward_config,
    gradient_free_offset,
)
from rlu_cli.evidence.forward import ForwardConfig, OutputsCache
from rlu_cli.evidence.model_selection import choose
from rlu_cli.evidence.observations import (
    FEWEST_TRIALS,
    Scene,
    affordable_trials,
    observe,
)
from rlu_cli.models.input_scaling import AUTO, parse_normalisation
from rlu_cli.settings.parsers import INFER
from rlu_cli.types import Evidence, Head, Observation, ProgressCallback, Setting

_MANY_IMAGES = 1000  # noise images stand for as many as one likes
AUTO_EFFORT, STANDARD = "auto", "standard"
JUDGE = "bayes"  # whose posterior judges methods that do not know their own error


def attack(
    case: Case,
    methods: tuple[str, ...],
    *,
    cache: OutputsCache | None = None,
    progress: ProgressCallback = lambda text: None,
    judge: bool = True,
) -> CaseFinding:
    """Recover the label counts of one client by each of `methods`.

    cache     share it between clients of one global model to evaluate the model only once
    progress  progress callback
    judge     whether to look for mistaken settings and to give verdicts

    If several architectures or input scalings are probable, the answer is their mean.

    Raises UsageError E108 or E109 if no method can be used, InputError E225 for noise images on a
    trained model, E224 for probable architectures or scalings with different answers.
    """
    if AUTO_METHOD not in methods:
        require_any(case, methods)
    offset, update = gradient_free_offset(case), case.pair.update
    learned = update if offset is None else update + offset[-1]
    ranked, model, config = _select_model(case, learned)
    selected = ranked[0]
    architecture = (selected.model, repr(sorted(selected.arguments.items())))
    ends = evaluate_ends(case, model, config, cache or OutputsCache(), architecture)
    case, ends = settle_order(case, ends)
    evidence = assemble(case, offset, ends)
    methods, chosen = _chosen(case, evidence, methods)
    require_any(case, methods)
    needs = _needs(case, methods)
    evidence = observe(Scene(case, model, config, evidence, progress), needs)
    if case.training.class_weights is not None and INTERPOLATION in needs and evidence.linear:
        evidence = _weighted_alone(evidence)
    diagnostics = update_diagnostics(case, evidence)
    refuse_noise_on_trained(case, evidence, diagnostics)
    explanation = explain(case, model, config, evidence, progress) if judge else None
    found = tuple(replace(_run(n, case, evidence), chosen=chosen.get(n)) for n in methods)
    finding = CaseFinding(
        case=case,
        settings=_with_inferred(case, selected, found, training=config.training),
        device=config.device,
        hypotheses=ranked,
        evidence_width=evidence.update.weight.shape[1],
        biased=evidence.biased,
        diagnostics=diagnostics,
        assumptions=tuple(assumptions(case, config.batch, training=config.training)),
        warnings=(
            *explanation_warnings(explanation),
            *update_warnings(case, diagnostics),
            *rate_warnings(case, found),
        ),
        methods=found,
        floor=None if case.truth is None else uniform_floor(case.truth),
        explanation=explanation,
    )
    kept = hypotheses_to_average(ranked)
    others = [
        attack(
            replace(case, hypotheses=(one,)), methods, cache=cache, progress=progress, judge=False
        )
        for one in kept[1:]
    ]
    finding = averaged(finding, others, kept)
    if not judge:
        return finding
    judged = replace(finding, methods=_judged(case, evidence, finding.methods, explanation))
    scene = Scene(case, model, config, evidence, progress)
    if others or explanation is not None or not _would_tell_more(scene, judged.methods):
        return judged
    progress("the answer is not reliable yet: comparing the methods on virtual clients")
    more = observe(replace(scene, case=_with_effort(case, STANDARD)), {VIRTUAL_TRIALS})
    again = [_run(one.method, case, more) if _waits(one) else one for one in judged.methods]
    again = [replace(one, chosen=chosen.get(one.method)) for one in again]
    return replace(judged, methods=_judged(case, more, again, explanation))


def _waits(one: MethodFinding) -> bool:
    """Whether a method's answer can gain from virtual trials."""
    reliable = one.verdict is not None and one.verdict.level == RELIABLE
    return VIRTUAL_TRIALS in ATTACKS[one.method].needs and not reliable


def _would_tell_more(scene: Scene, methods: Sequence[MethodFinding]) -> bool:
    """Whether `--effort auto` goes on to standard: the answer is not reliable, and it can."""
    if scene.case.value("effort") != AUTO_EFFORT or not any(map(_waits, methods)):
        return False
    standard = replace(scene, case=_with_effort(scene.case, STANDARD))
    return affordable_trials(standard) >= FEWEST_TRIALS


def _with_effort(case: Case, effort: str) -> Case:
    given = Setting(effort, case.settings["effort"].source)
    return replace(case, settings={**case.settings, "effort": given})


def _select_model(
    case: Case, learned: Head
) -> tuple[tuple[ModelHypothesis, ...], nn.Module, ForwardConfig]:
    """The hypotheses, best first; the model of the best; and its forward config.

    learned  update of the output layer without the gradient-free offset
    """
    first, classes = case.hypotheses[0], case.auxiliary.classes
    model = first.build(case.pair.before, classes)
    config = forward_config(case, model)
    distinct = {} if case.plan.total is None else {"images": case.plan.total / case.plan.passes}
    ranked = choose(case.hypotheses, case.pair, learned, case.auxiliary, config, **distinct)
    best = ranked[0]
    if (best.model, best.arguments) != (first.model, first.arguments):
        model = best.build(case.pair.before, classes)
    return tuple(ranked), model, replace(config, normalise=parse_normalisation(best.normalise))


def _weighted_alone(evidence: Evidence) -> Evidence:
    """The evidence without BatchNorm means, which a class-weighted loss leaves unweighted.

    The update shows w z and the means show z: no method reads both at once.
    """
    kept = replace(evidence[INTERPOLATION], means=())
    return evidence.with_observed(INTERPOLATION, kept)


def _chosen(
    case: Case, evidence: Evidence, methods: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The methods with `auto` replaced by its choice for this case, and the reason for it."""
    if AUTO_METHOD not in methods:
        return methods, {}
    choice = method_for(evidence, noise=is_noise(case.auxiliary))
    named = [choice.method if name == AUTO_METHOD else name for name in methods]
    return tuple(dict.fromkeys(named)), {choice.method: choice.reason}


def _needs(case: Case, methods: Sequence[str]) -> set[Observation[Any]]:
    """The observations that the methods need, and the one that judges them all."""
    usable = [ATTACKS[name] for name in methods if refusal(name, case) is None]
    needs = {need for method in usable for need in method.needs}
    return needs | (set() if is_noise(case.auxiliary) else ATTACKS[JUDGE].needs)


def _judged(
    case: Case,
    evidence: Evidence,
    found: Sequence[MethodFinding],
    explanation: Explanation | None,
) -> tuple[MethodFinding, ...]:
    """The findings with what is known of their errors, and verdicts.

    A method that does not know its own error is judged by the posterior of the first that does, and
    of `bayes` if there is none.
    """
    each = None if case.plan.total is None else case.plan.total // evidence.passes
    recoveries = [one.recovery for one in found if one.recovery is not None]
    known = (posterior_of(one, each) for one in recoveries if one.status.ok)
    reference = next((one for one in known if one is not None), None)
    if reference is None and not is_noise(case.auxiliary):
        reference = ATTACKS[JUDGE].configured(case.value)(evidence).posterior
    circumstances = _circumstances(case, evidence, explanation)
    judged = []
    for one in found:
        if one.recovery is None:
            judged.append(one)
            continue
        worth = credibility(
            one.recovery,
            reference,
            total=case.plan.total,
            passes=evidence.passes,
            confidence=case.value("confidence"),
        )
        judgement = verdict(one.recovery, worth, circumstances)
        judged.append(replace(one, credibility=worth, verdict=judgement))
    return tuple(judged)


def _circumstances(
    case: Case, evidence: Evidence, explanation: Explanation | None
) -> Circumstances:
    learned = learned_something(evidence)
    if is_noise(case.auxiliary):
        return Circumstances(explanation, _MANY_IMAGES, 0.0, learned)
    images = torch.bincount(case.auxiliary.labels, minlength=case.auxiliary.classes)
    folds = round_of(evidence, evidence[INTERPOLATION].outputs).folds
    signal = float(evidence.signal.double().square().mean())
    noise = (added_noise(evidence) / max(signal, 1e-300)) ** 0.5
    return Circumstances(explanation, int(images.min()), folds, learned, noise)


def _run(name: str, case: Case, evidence: Evidence) -> MethodFinding:
    """Run one method, score its counts and collect its warnings."""
    reason = refusal(name, case)
    if reason is not None:
        return MethodFinding(name, None, None, (), reason)
    method = ATTACKS[name]
    recovery = method.configured(case.value)(evidence)
    weights = case.training.class_weights
    if weights is not None and VIRTUAL_POPULATION not in method.needs:
        # A population trains with the weights itself, and knows its clients' own shares.
        recovery = without_weights(recovery, weights, evidence.total)
    recovery = check_informative(recovery)
    scored = None
    if case.truth is not None and recovery.counts is not None:
        scored = score(recovery.counts, case.truth, recovery.present)
    outside = concerns(method, evidence, noise=is_noise(case.auxiliary))
    warnings = (
        *method_warnings(method.title, (*outside, *recovery.notes)),
        *estimate_warnings(recovery, case.value("draws"), case.plan.batch_sizes),
        *identifiability_warnings(recovery, case.auxiliary.class_names),
    )
    return MethodFinding(name, recovery, scored, warnings)


def _with_inferred(
    case: Case, selected: ModelHypothesis, found: Sequence[MethodFinding], *, training: bool
) -> dict[str, Setting]:
    """The settings, completed with values inferred from the files.

    training  whether the models were evaluated in training mode
    """
    settings = dict(case.settings)
    settings.setdefault("model", Setting(selected.model, "keys and shapes"))
    if not case.training.lr_known and case.training.nonlinear is None:
        settings["lr"] = inferred_rate(found, accept_any=case.value("lr") == INFER)
    given = case.value("model_args") or {}
    if dict(selected.arguments) != given:
        source = "fit to the files" if len(case.hypotheses) > 1 else "default"
        settings["model_args"] = Setting(dict(selected.arguments), source)
    if settings["normalize"].value == AUTO:
        settings["normalize"] = Setting(selected.normalise, "fit to the files")
    if settings["mode"].value == "auto":
        settings["mode"] = Setting("train" if training else "eval", "the model's layers")
    return settings
