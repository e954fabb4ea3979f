"""LLG, LLG*, LLG+, EBI and LLBG hand labels out one by one: where that is exact, and the bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hand_made import Rows, head, numbers, one_embedding, pulled, round_of, seen, uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_client import evidence_of, skewed_steps

from rlu_cli.attacks import ATTACKS
from rlu_cli.attacks.ebi import ebi
from rlu_cli.attacks.llbg import llbg
from rlu_cli.attacks.llg import llg, llg_plus, llg_star
from rlu_cli.types import Evidence, Outputs, Recovery, Status

Attack = Callable[[Evidence], Recovery]
EVEN = [0.25] * 4


def _counts(found: Recovery) -> list[int]:
    assert found.counts is not None
    return found.counts.tolist()


def _dummies(embeddings: Rows = ((1, 1),)) -> tuple[Outputs, Outputs]:
    """One black, one white and one random image, of which a model of 4 classes thinks nothing."""
    shown = seen(EVEN, embeddings=embeddings, labels=[0, 1, 2])
    return shown, shown


def _untrained(counts: list[int], batches: list[int] | None = None) -> Evidence:
    """p uniform and every embedding (1, 1): g_c = 2 (1/N - n_c/K)."""
    classes = len(counts)
    gradient = one_embedding(pulled(counts, [1 / classes] * classes))
    shown = seen([1 / classes] * classes, embeddings=((1, 1),), labels=[0, 1, 2])
    return round_of(gradient, batches=batches or [sum(counts)], dummies=(shown, shown))


@st.composite
def _within(draw: st.DrawFn, apart: Callable[[int], int]) -> list[int]:
    """Counts of some absent classes and of others at most so far apart, of N classes."""
    present, absent = draw(st.integers(1, 6)), draw(st.integers(0, 4))
    classes = max(3, present + absent)
    least = draw(st.integers(1, 30))
    more = draw(st.lists(st.integers(0, apart(classes)), min_size=present, max_size=present))
    return draw(st.permutations([least + n for n in more] + [0] * (classes - present)))


def _in_batches(total: int, steps: int) -> list[int]:
    return [*[1] * (min(steps, total) - 1), total - min(steps, total) + 1]


def test_llg_is_exact_where_every_class_present_has_as_many() -> None:
    """g = (-1/2, 1/2, -1/2, 1/2), i = (1/6)(5/4)(-1) = -5/24: three labels lift a class to 1/8.

    After two labels it stands at -1/12, below the absent classes' 1/2.
    """
    found = llg(_untrained([3, 0, 3, 0]))
    assert found.diagnostics["impact"] == pytest.approx(-5 / 24)
    assert _counts(found) == [3, 0, 3, 0]


def test_ebi_is_exact_where_every_class_present_has_as_many() -> None:
    """b = (-1/4, 1/4, -1/4, 1/4), impact (1/6)(-1/2) = -1/12: three labels lift a class to 0."""
    found = ebi(_untrained([3, 0, 3, 0]))
    assert found.diagnostics["impact"] == pytest.approx(-1 / 12)
    assert _counts(found) == [3, 0, 3, 0]


@pytest.mark.parametrize("method", [llg, ebi])
@given(present=st.integers(1, 5), absent=st.integers(1, 5), each=st.integers(1, 30))
@settings(deadline=None, max_examples=40)
def test_llg_and_ebi_are_exact_for_equal_counts_and_an_untrained_model(
    method: Attack, present: int, absent: int, each: int
) -> None:
    counts = [each] * present + [0] * absent
    assert _counts(method(_untrained(counts))) == counts


def test_llg_and_ebi_miss_classes_below_their_even_share() -> None:
    """n = (6, 1, 1, 0): g = 2 (-1/2, 1/8, 1/8, 1/4), only class 0 is below zero.

    LLG's i = (1/8)(5/4)(-1) = -5/32: its seventh label leaves class 0 at 2·(-1/2) + 7·5/32 = 3/32,
    still below the others' 1/4, and it takes all eight. EBI's i = -1/16 lifts it to 0 with eight.
    """
    evidence = _untrained([6, 1, 1, 0])
    assert _counts(llg(evidence)) == [8, 0, 0, 0]
    assert _counts(ebi(evidence)) == [8, 0, 0, 0]


@pytest.mark.parametrize("method", [llg_plus, llg_star])
def test_a_measured_offset_finds_classes_below_their_even_share(method: Attack) -> None:
    """The same n = (6, 1, 1, 0). A batch of c alone: gᶜ_c = 2 (1/4 - 1) = -3/2, gᶜ_j = 2/4.

    i = (5/4)(-3/2)/8 = -15/64, s = 1/2: g - s = (-96, -16, -16, 0)/64. Class 0 takes one label of
    the first stage and, at -81, -66, -51, -36, -21, five more up to -6; the others come between.
    """
    found = method(_untrained([6, 1, 1, 0]))
    assert found.diagnostics["impact"] == pytest.approx(-15 / 64)
    assert _counts(found) == [6, 1, 1, 0]


@given(counts=_within(lambda classes: classes**2 - 2), steps=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_llg_plus_and_star_are_exact_for_an_untrained_model_up_to_n_squared_apart(
    counts: list[int], steps: int
) -> None:
    """In units of s/K a class stands at -n_c and rises by 1 - 1/N² a label.

    It is served last at -(1 - 1/N²) - n_j/N² and then stands at -n_c/N²: no label goes astray while
    n_c - n_j < N² - 1 for every class j present.
    """
    evidence = _untrained(counts, _in_batches(sum(counts), steps))
    assert _counts(llg_plus(evidence)) == counts
    assert _counts(llg_star(evidence)) == counts


def test_llg_star_averages_over_the_kinds_of_dummies() -> None:
    """Σ_l e_l = 0 of black, 4 of white, 2 of random: 2 on average, as the client's images have."""
    gradient = one_embedding(pulled([6, 1, 1, 0], EVEN))
    dummies = _dummies([[0, 0], [3, 1], [1, 1]])
    found = llg_star(round_of(gradient, batches=[8], dummies=dummies))
    assert found.diagnostics["impact"] == pytest.approx(-15 / 64)
    assert _counts(found) == [6, 1, 1, 0]


def test_llg_plus_weighs_each_class_by_its_own_images() -> None:
    """Two images a class. Class 0: p = (.6, .4), Σe = 1 and 3; class 1: p = (.5, .5), Σe = 2, 2.

    g⁰_0 = -.4·2 = -.8, g⁰_1 = .8, g¹_0 = 1, g¹_1 = -1: i = (3/2)(-.9)/10, s = (1, .8).
    With g = (-.6, .6) and 10 labels: g - s = (-1.6, -.2), rising by .135 a label. Class 0 passes
    -.2 after ⌈1.4/.135⌉ = 11 labels, so that all ten are its own.
    """
    shown = seen(
        [[0.6, 0.4], [0.6, 0.4], [0.5, 0.5], [0.5, 0.5]],
        embeddings=[[1, 0], [1, 2], [2, 0], [0, 2]],
        labels=[0, 0, 1, 1],
    )
    found = llg_plus(round_of(one_embedding([-0.3, 0.3]), batches=[10], before=shown))
    assert found.diagnostics["impact"] == pytest.approx(-0.135)
    assert _counts(found) == [10, 0]


def test_over_several_steps_llg_plus_and_star_average_both_ends_of_the_round() -> None:
    """Σ_l e_l is 1 before and 3 after: i and s are those of 2."""
    gradient = one_embedding(pulled([6, 1, 1, 0], EVEN))
    small, large = (uniform(4, embeddings=((size, 0),)) for size in (1.0, 3.0))
    plus = llg_plus(round_of(gradient, batches=[4, 4], before=small, after=large))
    before, after = (_dummies(((size, 0),))[0] for size in (1.0, 3.0))
    star = llg_star(round_of(gradient, batches=[4, 4], dummies=(before, after)))
    for found in (plus, star):
        assert found.diagnostics["impact"] == pytest.approx(-15 / 64)
        assert _counts(found) == [6, 1, 1, 0]
    alone = llg_plus(round_of(gradient, batches=[8], before=small, after=large))
    assert alone.diagnostics["impact"] == pytest.approx(-15 / 128)


def test_llg_gives_the_first_labels_to_the_most_negative_classes_while_they_last() -> None:
    """Two labels and three classes below zero."""
    evidence = round_of(head([[-0.1], [-0.5], [-0.4], [1.0]], [0.0] * 4), batches=[2])
    assert _counts(llg(evidence)) == [0, 1, 1, 0]


def test_llbg_is_exact_within_n_minus_1_labels_of_each_other() -> None:
    """n = (4, 2, 2, 0), p uniform: b = (-1/4, 0, 0, 1/4), a label lifts by (1 - 1/4)/8 = 3/32.

    Less 1/4, in 32nds: class 0 is served at -16, -13, -10, -7, then stands at -4; classes 1 and 2
    at -8 and -5, then stand at -2; class 3 stands at 0. The eight lowest are the right ones.
    """
    assert _counts(llbg(_untrained([4, 2, 2, 0]))) == [4, 2, 2, 0]


def test_llbg_beyond_that_gives_the_largest_class_too_much() -> None:
    """n = (6, 1, 1, 0): class 0 is served at -24, -21, …, -6: seven times before the others' -4."""
    assert _counts(llbg(_untrained([6, 1, 1, 0]))) == [7, 1, 0, 0]


@given(counts=_within(lambda classes: classes - 2), steps=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_llbg_is_exact_for_an_untrained_model_up_to_n_apart(counts: list[int], steps: int) -> None:
    """In units of m/K a class stands at -n_c and rises by 1 - 1/N a label: n_c - n_j < N - 1.

    The first stage gives a label to classes above their even share, which have one by then.
    """
    assert _counts(llbg(_untrained(counts, _in_batches(sum(counts), steps)))) == counts


def test_over_several_steps_llbg_averages_the_confidence_of_both_ends() -> None:
    """Own-class confidence (.2, .4) before and (.6, .8) after: rises of (1 - .4)/5, (1 - .6)/5.

    m = 2, K = 10, b = 2·(-.3, .3) less 2/2: (-1.6, -.4). Class 0, which rises by .12, is served ten
    times, the last at -.52. With the start's own .8·.2 = .16 it is served at -.48 the eighth time,
    then class 1 at -.4, then class 0 at -.32.
    """
    before = seen([[0.2, 0.8], [0.6, 0.4]])
    after = seen([[0.6, 0.4], [0.2, 0.8]])
    gradient = one_embedding([-0.3, 0.3])
    found = llbg(round_of(gradient, batches=[5, 5], before=before, after=after))
    assert _counts(found) == [10, 0]
    start = llbg(round_of(gradient, batches=[5, 5], before=before))
    assert _counts(start) == [9, 1]


def test_llbg_of_a_model_all_but_sure_of_a_class_stays_within_its_labels() -> None:
    """A rise of some 1e-18: class 0 stays lowest, and takes every label."""
    shown = seen([[1 - 1e-16, 1e-16], [0.5, 0.5]])
    found = llbg(round_of(one_embedding([-0.5, 0.5]), batches=[64], before=shown))
    assert _counts(found) == [64, 0]


@pytest.mark.parametrize("method", [llg, llg_star, llg_plus, ebi, llbg])
def test_without_a_batch_size_the_shares_are_those_of_a_fine_grid(method: Attack) -> None:
    gradient = one_embedding(pulled([1, 0, 1, 0], EVEN))
    found = method(round_of(gradient, batches=None, steps=3, dummies=_dummies()))
    assert found.counts is None
    assert found.shares.tolist() == [0.5, 0.0, 0.5, 0.0]


@pytest.mark.parametrize("method", [ebi, llbg])
def test_bias_methods_do_not_look_at_the_weights(method: Attack) -> None:
    bias = pulled([4, 2, 2, 0], EVEN)
    other = head(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double(), bias)
    plain = method(round_of(one_embedding(bias), batches=[8]))
    assert _counts(method(round_of(other, batches=[8]))) == _counts(plain)


@pytest.mark.parametrize("method", [llg, llg_star, llg_plus])
def test_weight_methods_do_not_look_at_the_bias(method: Attack) -> None:
    bias = pulled([6, 1, 1, 0], EVEN)
    plain = one_embedding(bias)
    other = head(plain.weight, numbers([0.0] * 4))
    found, again = (
        method(round_of(seen, batches=[8], dummies=_dummies())) for seen in (plain, other)
    )
    assert _counts(again) == _counts(found)


@pytest.mark.parametrize("name", ["llg", "llg-star", "llg+", "ebi"])
def test_where_no_class_stands_out_the_answer_says_so(name: str) -> None:
    evidence = evidence_of(skewed_steps(2, 24, seed=1))
    still = replace(evidence, update=evidence.update * 0.0)
    found = ATTACKS[name].attack(still)
    assert found.status is Status.UNDETERMINED
    assert found.counts is not None
    assert int(found.counts.max() - found.counts.min()) <= 1
