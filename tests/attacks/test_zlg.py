"""ZLG, ZLG+ and Dimitrov solve for counts through Σ_l e_l and the mean confidence: when exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hand_made import head, numbers, one_embedding, pulled, round_of, seen
from hypothesis import given, settings
from hypothesis import strategies as st

from rlu_cli.attacks.dimitrov import dimitrov
from rlu_cli.attacks.zlg import zlg, zlg_plus
from rlu_cli.types import Evidence, Head, Outputs, Recovery, Status

Attack = Callable[[Evidence], Recovery]
UNSURE = [0.5, 0.3, 0.2]


def _counts(found: Recovery) -> list[int]:
    assert found.counts is not None
    return found.counts.tolist()


def _only_random(shown: Outputs) -> Outputs:
    """`shown` as the random ones among dummies, beside a black and a white image of no use."""
    width = shown.embeddings.shape[1]
    misleading = seen([[0.01, 0.01, 0.98]] * 2, embeddings=[[9.0] * width], labels=[0, 1])
    return Outputs(
        torch.cat([misleading.embeddings, shown.embeddings]),
        torch.cat([misleading.logits, shown.logits]),
        torch.cat([misleading.labels, torch.full((len(shown.labels),), 2)]),
    )


def _round(gradient: Head, *ends: Outputs, batches: list[int] | None = None) -> Evidence:
    """The models see dummies as they see the auxiliary images."""
    before, after = ends[0], ends[-1]
    dummies = (_only_random(before), _only_random(after)) if before.logits.shape[1] == 3 else None
    return round_of(gradient, batches=batches or [10], before=before, after=after, dummies=dummies)


@pytest.mark.parametrize("method", [zlg, zlg_plus, dimitrov])
def test_exact_where_every_image_has_the_same_confidence_and_size(method: Attack) -> None:
    """n = (2, 7, 1)/10, p = (.5, .3, .2), Σ_l e_l = 2: row sums 2 (p - n) = (.6, -.8, .2)."""
    weight = [[0.1, 0.5], [-0.9, 0.1], [0.2, 0.0]]
    found = method(_round(head(weight, [0.0] * 3), seen(UNSURE)))
    assert torch.allclose(found.shares, numbers([0.2, 0.7, 0.1]))
    assert _counts(found) == [2, 7, 1]


@pytest.mark.parametrize("method", [zlg, zlg_plus, dimitrov])
@given(
    counts=st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any),
    weights=st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    embedding=st.lists(st.floats(0.1, 5), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=30)
def test_exact_for_any_counts_while_nothing_moves(
    method: Attack, counts: list[int], weights: list[float], embedding: list[float]
) -> None:
    confident = numbers(weights) / sum(weights)
    gradient = one_embedding(pulled(counts, confident), embedding)
    shown = seen(confident, embeddings=[embedding])
    assert _counts(method(_round(gradient, shown, batches=[sum(counts)]))) == counts


@pytest.mark.parametrize("method", [zlg, zlg_plus, dimitrov])
def test_confidence_and_size_are_means_over_all_images(method: Attack) -> None:
    """p̄ = (.5, .3, .2) and Ō = (1 + 2 + 3)/3, whatever the labels: not over each class alone."""
    shown = seen(
        [[0.7, 0.2, 0.1], [0.6, 0.1, 0.3], [0.2, 0.6, 0.2]], embeddings=[[1, 0], [1, 1], [0, 3]]
    )
    found = method(_round(head([[0.6], [-0.8], [0.2]], [0.0] * 3), shown))
    assert torch.allclose(found.shares, numbers([0.2, 0.7, 0.1]))


@pytest.mark.parametrize("method", [zlg, zlg_plus, dimitrov])
def test_a_negative_count_becomes_none(method: Attack) -> None:
    """p - Σ_l G_W/2 = (.6, .5, -.1): floored, and 11 labels go as .6 to .5."""
    found = method(_round(head([[-0.2], [-0.4], [0.6]], [0.0] * 3), seen(UNSURE), batches=[11]))
    assert _counts(found) == [6, 5, 0]


@pytest.mark.parametrize("method", [zlg, zlg_plus, dimitrov])
def test_embeddings_that_sum_to_nothing_tell_nothing(method: Attack) -> None:
    shown = seen(UNSURE, embeddings=[[1, -1]])
    found = method(_round(head([[0.6], [-0.8], [0.2]], [0.0] * 3), shown, batches=[9]))
    assert found.status is Status.UNDETERMINED
    assert _counts(found) == [3, 3, 3]


def test_zlg_plus_tells_how_large_the_embeddings_were() -> None:
    """Near zero it breaks, and the figure shows it."""
    found = zlg_plus(_round(one_embedding([0.1, -0.1, 0.0]), seen(UNSURE, embeddings=[[3, -2]])))
    assert found.diagnostics["embedding_sum"] == pytest.approx(1)


def test_over_several_steps_zlg_plus_takes_the_mean_of_both_ends() -> None:
    """p̄ from (.5, .5) to (.9, .1), Ō from 1 to 3: (.7, .3) - (.4, -.4)/2 = (.5, .5)."""
    start, end = seen([0.5, 0.5], embeddings=[[1]]), seen([0.9, 0.1], embeddings=[[3]])
    gradient = head([[0.4], [-0.4]], [0.0] * 2)
    found = zlg_plus(_round(gradient, start, end, batches=[10, 10]))
    assert torch.allclose(found.shares, numbers([0.5, 0.5]))
    alone = zlg_plus(_round(gradient, start, end, batches=[10]))
    assert torch.allclose(alone.shares, numbers([0.1, 0.9]))


def test_dimitrov_follows_the_steps_of_a_confidence_that_moves_linearly() -> None:
    """p̄ from (.5, .5) to (.9, .1) in two steps, the second taken at (.7, .3); Ō = 2.

    n = (6, 4) then (2, 8) of 10: row sums of class 0 are 2 (.5 - .6) = -.2 and 2 (.7 - .2) = 1,
    mean .4. Dimitrov: mean p̄ (.6, .4) less (.2, -.2) is (8, 12)/20. Both ends' mean, (.7, .3),
    would give (10, 10).
    """
    gradient = head([[0.4], [-0.4]], [0.0] * 2)
    evidence = _round(gradient, seen([0.5, 0.5]), seen([0.9, 0.1]), batches=[10, 10])
    assert _counts(dimitrov(evidence)) == [8, 12]
    assert _counts(zlg_plus(evidence)) == [10, 10]


def test_dimitrov_follows_a_size_that_moves_linearly_while_gradients_stay() -> None:
    """p̄ as before, Ō from 2 to 6, the second step at 4; every row sum of class 0 is .4.

    n = .5 - .4/2 = .3 and .7 - .4/4 = .6 of 10: 3 + 6 of 20.
    """
    start, end = seen([0.5, 0.5], embeddings=[[2]]), seen([0.9, 0.1], embeddings=[[6]])
    found = dimitrov(_round(head([[0.4], [-0.4]], [0.0] * 2), start, end, batches=[10, 10]))
    assert _counts(found) == [9, 11]


@given(
    steps=st.integers(1, 6),
    ends=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
    data=st.data(),
)
@settings(deadline=None, max_examples=40)
def test_dimitrov_is_exact_on_a_linear_path_of_embeddings_of_one_size(
    steps: int, ends: tuple[float, float], data: st.DataObject
) -> None:
    first = data.draw(st.lists(st.integers(0, 20), min_size=steps, max_size=steps))
    way = [step / steps for step in range(steps)]
    row = [2 * ((1 - t) * ends[0] + t * ends[1] - n / 20) for t, n in zip(way, first, strict=True)]
    mean = sum(row) / steps
    start, end = (seen([p, 1 - p]) for p in ends)
    found = dimitrov(_round(head([[mean], [-mean]], [0.0] * 2), start, end, batches=[20] * steps))
    assert _counts(found) == [sum(first), 20 * steps - sum(first)]


def test_one_step_of_dimitrov_is_zlg_plus() -> None:
    gradient = one_embedding([0.1, -0.3, 0.2])
    evidence = _round(gradient, seen(UNSURE), seen([0.1, 0.1, 0.8]))
    assert torch.allclose(dimitrov(evidence).shares, zlg_plus(evidence).shares)
