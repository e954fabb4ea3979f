"""Labels by level against the loop it stands for, which hands them out one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlu_cli.numerics.greedy import hand_out, two_stages


def _loop(values: Sequence[float], rises: Sequence[float], total: int) -> list[int]:
    """`total` times: the lowest, the first of the lowest, takes a label and rises."""
    counts = [0] * len(values)
    for _ in range(total):
        now = [v + k * r for v, k, r in zip(values, counts, rises, strict=True)]
        counts[now.index(min(now))] += 1
    return counts


def _two_loops(
    values: Sequence[float], present: Sequence[bool], rises: Sequence[float], total: int
) -> list[int]:
    """A label to each present class, the lowest first, while there are labels; then `_loop`."""
    counts = [0] * len(values)
    for index in sorted((i for i, p in enumerate(present) if p), key=lambda i: values[i]):
        counts[index] += sum(counts) < total
    left = [v + k * r for v, k, r in zip(values, counts, rises, strict=True)]
    more = _loop(left, rises, total - sum(counts))
    return [a + b for a, b in zip(counts, more, strict=True)]


def _float64(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@st.composite
def _classes(
    draw: st.DrawFn, rise: st.SearchStrategy[float]
) -> tuple[list[float], list[float], list[bool]]:
    """Values, rises and presence. Halves and quarters add up without rounding, and often tie."""
    count = draw(st.integers(1, 9))
    many = partial(st.lists, min_size=count, max_size=count)
    values = draw(many(st.integers(-20, 20).map(lambda n: n / 4)))
    return values, draw(many(rise)), draw(many(st.booleans()))


RISING = st.integers(1, 8).map(lambda n: n / 2)
ANY = st.integers(-2, 6).map(lambda n: n / 2)
both_kinds_of_rises = pytest.mark.parametrize("rise", [RISING, ANY], ids=["rising", "any"])


@both_kinds_of_rises
@given(data=st.data(), total=st.integers(0, 60))
@settings(deadline=None, max_examples=150)
def test_hand_out_is_the_loop_ties_and_all(
    rise: st.SearchStrategy[float], data: st.DataObject, total: int
) -> None:
    values, rises, _ = data.draw(_classes(rise))
    counts = hand_out(_float64(values), _float64(rises), total)
    assert counts.dtype == torch.int64
    assert counts.tolist() == _loop(values, rises, total)


@both_kinds_of_rises
@given(data=st.data(), total=st.integers(0, 40))
@settings(deadline=None, max_examples=150)
def test_two_stages_are_the_two_loops(
    rise: st.SearchStrategy[float], data: st.DataObject, total: int
) -> None:
    values, rises, present = data.draw(_classes(rise))
    counts = two_stages(_float64(values), torch.tensor(present), _float64(rises), total)
    assert counts.tolist() == _two_loops(values, present, rises, total)


@given(
    values=st.lists(st.floats(-1, 1), min_size=1, max_size=12),
    total=st.integers(0, 10**6),
    data=st.data(),
)
@settings(deadline=None, max_examples=100)
def test_no_class_is_ahead_of_another_by_more_than_a_label(
    values: list[float], total: int, data: st.DataObject
) -> None:
    """What each last took lies no higher than what any would take next: the loop's end, for floats.

    Up to rounding: rises times counts is not the sum of rises.
    """
    size = len(values)
    rises = data.draw(st.lists(st.floats(1e-3, 1), min_size=size, max_size=size))
    counts = hand_out(_float64(values), _float64(rises), total)
    assert int(counts.sum()) == total
    assert (counts >= 0).all()
    if total:
        last = (_float64(values) + (counts - 1) * _float64(rises))[counts > 0]
        after = _float64(values) + counts * _float64(rises)
        assert float(last.max()) <= float(after.min()) + 1e-8 * max(1.0, float(after.abs().max()))


def test_ties_that_rounding_would_part_go_to_the_lower_index() -> None:
    """Just above -1/4 there are floats that less -3/4 or -5/4 are no more than 1/2 or 1."""
    counts = hand_out(_float64([-1.25, -0.75, -0.25]), _float64([1.0, 0.5, 0.5]), 4)
    assert counts.tolist() == [2, 2, 0]


def test_a_class_that_does_not_rise_keeps_what_it_once_gets() -> None:
    """Class 0 stands at 0 for good: class 1 is served at -2 and -1, and then never again."""
    assert hand_out(_float64([0, -2]), _float64([0, 1]), 10).tolist() == [8, 2]


def test_a_lower_index_at_that_class_s_own_value_goes_before_it() -> None:
    """Class 0 comes to 0 as well and, being first, takes one there; class 2, after it, none."""
    assert hand_out(_float64([-2, 0, 0]), _float64([1, 0, 1]), 10).tolist() == [3, 7, 0]


def test_a_class_that_falls_takes_everything_from_then_on() -> None:
    assert hand_out(_float64([-1, -3, 5]), _float64([-1, 1, 1]), 9).tolist() == [7, 2, 0]


def test_fewer_labels_than_present_classes_go_to_the_lowest() -> None:
    values, present = _float64([-1, -3, -2, 4]), torch.tensor([True, True, True, False])
    assert two_stages(values, present, _float64([1] * 4), 2).tolist() == [0, 1, 1, 0]


def test_a_present_class_takes_its_label_however_high_it_stands() -> None:
    values, present = _float64([-9, 5]), torch.tensor([True, True])
    assert two_stages(values, present, _float64([1, 1]), 4).tolist() == [3, 1]


@pytest.mark.parametrize("run", [hand_out, lambda v, r, n: two_stages(v, v < 0, r, n)])
def test_no_labels_are_no_labels(run: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    assert run(_float64([-1, 0, 1]), _float64([1, 0, -1]), 0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("classes", [2, 1000])
def test_a_billion_labels_take_no_billion_turns(classes: int) -> None:
    """One after another they would take hours."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(classes, generator=generator, dtype=torch.float64)
    rises = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.1
    counts = hand_out(values, rises, 10**9)
    assert int(counts.sum()) == 10**9
    assert torch.allclose(counts * rises, (counts * rises).mean().expand(classes), atol=2)


@pytest.mark.parametrize("rise", [1e-18, 1e-30, 5e-324])
def test_a_rise_of_next_to_nothing_does_not_overflow(rise: float) -> None:
    """A class the model is sure of: more of its terms lie below the others' than an int64 holds."""
    assert hand_out(_float64([-0.5, 0.5]), _float64([rise, 1.0]), 100).tolist() == [100, 0]


def test_what_is_passed_in_stays_as_it_was() -> None:
    values, rises = _float64([-1, 0.5]), _float64([1, 0.25])
    two_stages(values, values < 0, rises, 7)
    assert values.tolist() == [-1, 0.5]
    assert rises.tolist() == [1, 0.25]
