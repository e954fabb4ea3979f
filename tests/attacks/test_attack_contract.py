"""What every method must keep to, whatever the round: the whole table against the same problems."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from linear_client import World, evidence_of, momentum_weights, skewed_steps
from same_round import (
    changed_where_observed,
    in_float32,
    relabelled,
    through_another_scheme,
    with_other_outputs,
    without_observed,
)

from rlu_cli.attacks import ATTACKS, COUNTS, SET, UNIFORM, Method
from rlu_cli.attacks.observations import (
    CLASS_UPDATES,
    DUMMIES,
    INTERPOLATION,
    REEVALUATION,
    TILT,
    VIRTUAL_POPULATION,
    VIRTUAL_TRIALS,
)
from rlu_cli.types import Evidence, GradientFreeOffset, Head, Observation, Outputs, Recovery

OPTIONS = {"draws": 100}
REPLAY = ("rlu", "path", "fusion")  # they follow the round's steps, which are the scheme's own
FLOORS = (UNIFORM, "prior")  # their ties are between classes that nothing tells apart


def _push(classes: int = 6, width: int = 12) -> Head:
    generator = torch.Generator().manual_seed(9)
    weight = torch.randn(classes, width, generator=generator, dtype=torch.float64) / 50
    return Head(weight, torch.randn(classes, generator=generator, dtype=torch.float64) / 50)


def _offset(steps: int) -> GradientFreeOffset:
    return GradientFreeOffset(
        torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:, None], (_push(),)
    )


def _round(steps: int = 1, batch: int = 24, **settings: object) -> Evidence:
    made = skewed_steps(steps, batch, seed=4, present=4)
    return evidence_of(made, images=10, virtual=True, **settings)  # type: ignore[arg-type]


def _two_classes() -> Evidence:
    world = World(classes=2, width=5)
    return evidence_of(torch.tensor([[5, 19], [9, 15]]), world=world, images=10, virtual=True)


def _three_passes() -> Evidence:
    one_pass = skewed_steps(2, 24, seed=4, present=4)
    repeated = evidence_of(one_pass.repeat(3, 1), images=10, virtual=True)
    return replace(repeated, passes=3)


PROBLEMS: dict[str, Callable[[], Evidence]] = {
    "one step": _round,
    "several steps": lambda: _round(4),
    "momentum": lambda: _round(4, weights=momentum_weights(4, 0.9)),
    "gradient-free offset": lambda: _round(4, offset=_offset(4)),
    "unknown batch size": lambda: replace(_round(2), batch_sizes=None),
    "full passes": _three_passes,
    "no bias": lambda: _round(2, biased=False),
    "two classes": _two_classes,
    "float32": lambda: in_float32(_round(2)),
    "trained": lambda: _round(2, head=World().trained_head(2.0)),
    "fast": lambda: _round(4, lr=3.0),
    "one example": lambda: _round(1, 1),
    "fewer labels than classes": lambda: _round(1, 3),
}
OBSERVATIONS: tuple[Observation[Any], ...] = (
    DUMMIES,
    INTERPOLATION,
    REEVALUATION,
    TILT,
    CLASS_UPDATES,
    VIRTUAL_POPULATION,
)
# fusion looks at them where there are BatchNorm means
IN_SOME_CASES = (("fusion", REEVALUATION), ("fusion", TILT))
TIED = ("one example", "fewer labels than classes")  # more classes than labels to spread evenly

every_method = pytest.mark.parametrize("name", ATTACKS)
every_problem = pytest.mark.parametrize("problem", PROBLEMS)


@cache
def _problem(name: str) -> Evidence:
    return PROBLEMS[name]()


def _answer(name: str, evidence: Evidence) -> Recovery:
    return ATTACKS[name].configured(OPTIONS.get)(evidence)


def _same(one: Recovery, other: Recovery) -> bool:
    """Whether two recoveries give the same answer, up to rounding in the shares."""
    whole = [(one.counts, other.counts), (one.present, other.present)]
    return torch.allclose(one.shares, other.shares, atol=1e-9) and all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in whole
    )


@every_problem
@every_method
def test_the_answer_is_whole_and_complete(name: str, problem: str) -> None:
    evidence = _problem(problem)
    found = _answer(name, evidence)
    assert found.shares.shape == (evidence.classes,)
    assert found.shares.dtype == torch.float64
    assert (found.shares >= 0).all()
    assert float(found.shares.sum()) == pytest.approx(1, abs=1e-9)
    if evidence.total is None:
        assert found.counts is None
    else:
        assert found.counts is not None
        assert found.counts.shape == (evidence.classes,)
        assert found.counts.dtype == torch.int64
        assert (found.counts >= 0).all()
        assert int(found.counts.sum()) == evidence.total
        assert not (found.counts % evidence.passes).any()
    json.dumps(dict(found.diagnostics), allow_nan=False)


@every_problem
@every_method
def test_a_method_that_gives_a_set_says_which_and_that_its_counts_are_spread(
    name: str, problem: str
) -> None:
    found = _answer(name, _problem(problem))
    if ATTACKS[name].gives == COUNTS:
        assert found.present is None
        return
    assert found.present is not None
    assert found.present.dtype == torch.bool
    assert found.present.shape == found.shares.shape
    assert any("set of classes" in note for note in found.notes)
    if found.present.any():
        assert not found.shares[~found.present].any()


@pytest.mark.parametrize(
    ("name", "problem"),
    [(n, p) for n in ATTACKS for p in PROBLEMS if n not in FLOORS or p not in TIED],
)
def test_relabelled_classes_relabel_the_answer(name: str, problem: str) -> None:
    evidence = _problem(problem)
    order = torch.randperm(evidence.classes, generator=torch.Generator().manual_seed(3))
    order = order if evidence.classes > 2 else torch.tensor([1, 0])
    plain, renamed = _answer(name, evidence), _answer(name, relabelled(evidence, order))
    assert torch.allclose(renamed.shares, plain.shares[order], atol=1e-6)
    assert renamed.status is plain.status
    for one, other in ((plain.counts, renamed.counts), (plain.present, renamed.present)):
        assert (one is None) == (other is None)
        assert one is None or other is None or torch.equal(other, one[order])


@every_problem
@every_method
def test_the_same_round_gets_the_same_answer(name: str, problem: str) -> None:
    """Whatever torch drew before, and although the first answer saw the very same tensors."""
    evidence = _problem(problem)
    first = _answer(name, evidence)
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = _answer(name, evidence)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(again.shares, first.shares)
    assert _same(again, first)
    assert dict(again.diagnostics) == dict(first.diagnostics)
    assert (again.status, again.notes) == (first.status, first.notes)


def _another_scheme(evidence: Evidence) -> Evidence:
    steps = evidence.steps
    return through_another_scheme(evidence, momentum_weights(steps, 0.7), _offset(steps))


@pytest.mark.parametrize("problem", ["one step", "several steps", "momentum", "trained", "no bias"])
def test_the_scheme_is_removed_before_a_method_looks(problem: str) -> None:
    evidence = _problem(problem)
    seen, other = evidence.gradient, _another_scheme(evidence).gradient
    assert torch.allclose(other.weight, seen.weight, atol=1e-12)
    assert seen.bias is not None
    assert other.bias is not None
    assert torch.allclose(other.bias, seen.bias, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (n, p)
        for n in ATTACKS
        for p in ("one step", "several steps", "momentum", "trained")
        if n not in REPLAY or p == "one step"
    ],
)
def test_the_same_gradients_through_another_scheme_give_the_same_answer(
    name: str, problem: str
) -> None:
    evidence = _problem(problem)
    assert _same(_answer(name, _another_scheme(evidence)), _answer(name, evidence))


@pytest.mark.parametrize("problem", ["one step", "one example"])
@every_method
def test_one_step_shows_nothing_of_the_client_s_model(name: str, problem: str) -> None:
    """Its only gradient is taken at the global model."""
    evidence = _problem(problem)
    before, after = evidence[DUMMIES]
    other = with_other_outputs(evidence, seed=1, start=False)
    junk = with_other_outputs(replace(evidence, after=after), seed=2, start=False)
    other = other.with_observed(DUMMIES, (before, junk.after))
    assert _same(_answer(name, other), _answer(name, evidence))


@pytest.mark.parametrize("need", OBSERVATIONS, ids=lambda need: need.name)
@every_method
def test_what_is_observed_besides_is_used_by_those_that_ask_for_it(
    name: str, need: Observation[Any]
) -> None:
    evidence = _problem("several steps")
    without = without_observed(evidence, need)
    if need in ATTACKS[name].needs and (name, need) not in IN_SOME_CASES:
        with pytest.raises(KeyError) as caught:
            _answer(name, without)
        assert caught.value.args == (need,)
    else:
        assert _same(_answer(name, without), _answer(name, evidence))


@pytest.mark.parametrize("problem", ["several steps", "trained"])
@every_method
def test_only_methods_that_need_labelled_images_look_at_them(name: str, problem: str) -> None:
    evidence = _problem(problem)
    other = with_other_outputs(evidence, seed=5, start=True)
    labels = other.before.labels.clone()
    labels[-5:] = 0
    other = replace(other, before=replace(other.before, labels=labels))
    other = changed_where_observed(other, CLASS_UPDATES, lambda rows: rows.flip(0))
    other = changed_where_observed(
        other,
        VIRTUAL_POPULATION,
        lambda population: replace(population, shares=population.shares.flip(0)),
    )
    unmoved = torch.equal(_answer(name, other).shares, _answer(name, evidence).shares)
    assert unmoved != ATTACKS[name].auxiliary


@every_method
def test_methods_for_any_optimiser_take_no_gradient_out_of_the_update(name: str) -> None:
    """They answer the same whatever the learning rate and the weights are said to be."""
    evidence = _problem("several steps")
    mistaken = replace(evidence, lr=7 * evidence.lr, weights=momentum_weights(4, 0.5))
    same = torch.equal(_answer(name, mistaken).shares, _answer(name, evidence).shares)
    needs = ATTACKS[name].needs
    if ATTACKS[name].any_optimiser and INTERPOLATION not in needs:  # else by its own tests
        assert same
    elif name in ("rlu", "irlg", "llbg", "zlg", "zlg+", "dimitrov", "ramakrishna-dan"):
        assert not same


def _table(test: Callable[[Method], bool]) -> set[str]:
    return {name for name, method in ATTACKS.items() if test(method)}


def test_the_capabilities_are_those_of_the_papers() -> None:
    sets = {"idlg", "gi", "rlg"}
    assert _table(lambda method: method.gives == SET) == sets
    assert _table(lambda method: not method.repeated) == sets
    assert _table(lambda method: not method.batch) == {"idlg"}
    assert _table(lambda method: DUMMIES in method.needs) == {"llg-star", "zlg"}
    seen = {"path", "fusion", "bayes", "pooled"}
    assert _table(lambda method: INTERPOLATION in method.needs) == seen
    assert _table(lambda method: CLASS_UPDATES in method.needs) == {"ramakrishna-dan-virtual"}
    assert _table(lambda method: VIRTUAL_POPULATION in method.needs) == {"emulation"}
    summed = {"idlg", "gi", "llg", "llg-star", "llg+", "zlg", "zlg+", "dimitrov"}
    assert _table(lambda method: not method.any_activation) == summed
    assert _table(lambda method: method.any_optimiser) == {
        "fusion",
        "bayes",
        "pooled",
        "emulation",
        "ramakrishna-dan-virtual",
        *FLOORS,
    }
    assert _table(lambda method: REEVALUATION in method.needs) == {"fusion"}
    assert _table(lambda method: TILT in method.needs) == {"fusion", "bayes", "pooled"}
    assert _table(lambda method: VIRTUAL_TRIALS in method.needs) == {"pooled"}
    assert _table(lambda method: method.trains) == {"ramakrishna-dan-virtual", "emulation"}
    assert _table(lambda method: method.built_of_virtual_clients) == {"emulation"}
    assert _table(lambda method: not method.needs_lr) == {"fusion"}
    assert all(method.gives in (COUNTS, SET) for method in ATTACKS.values())
    assert len({method.title for method in ATTACKS.values()}) == len(ATTACKS)


def test_an_update_that_moved_no_weight_is_answered_all_the_same() -> None:
    """A client that trained the bias alone."""
    evidence = _problem("one step")
    frozen = torch.zeros_like(evidence.update.weight)
    still = replace(evidence, update=replace(evidence.update, weight=frozen))
    for name in ATTACKS:
        counts = _answer(name, still).counts
        assert counts is not None
        assert int(counts.sum()) == 24, name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("problem", ["one step", "several steps", "float32"])
@every_method
def test_cpu_and_cuda_give_the_same_counts(name: str, problem: str) -> None:
    evidence = _problem(problem)

    def outputs(seen: Outputs) -> Outputs:
        return Outputs(seen.embeddings.cuda(), seen.logits.cuda(), seen.labels.cuda())

    first, last = evidence[DUMMIES]
    there = replace(evidence, before=outputs(evidence.before), after=outputs(evidence.after))
    there = there.with_observed(DUMMIES, (outputs(first), outputs(last)))
    here, cuda = _answer(name, evidence), _answer(name, there)
    assert torch.allclose(cuda.shares, here.shares, atol=1e-4)
    assert here.counts is not None
    assert cuda.counts is not None
    assert torch.equal(cuda.counts, here.counts)
