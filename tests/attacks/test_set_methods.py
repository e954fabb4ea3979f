"""iDLG, GI and RLG find which classes are there: where they are right, and where they cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hand_made import head, numbers, one_embedding, pulled, round_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rlu_cli.attacks.gradinversion import gradinversion
from rlu_cli.attacks.idlg import idlg
from rlu_cli.attacks.rlg import rlg
from rlu_cli.types import Evidence, Head, Recovery, Status


def _present(found: Recovery) -> list[int]:
    assert found.present is not None
    return torch.nonzero(found.present)[:, 0].tolist()


def _counts(found: Recovery) -> list[int]:
    assert found.counts is not None
    return found.counts.tolist()


def test_idlg_reads_the_label_of_one_example() -> None:
    """p = (.2, .5, .3) of an example of class 1: G_b = p - (0, 1, 0)."""
    found = idlg(round_of(one_embedding([0.2, -0.5, 0.3], [1, 2]), batches=[1]))
    assert _present(found) == [1]
    assert _counts(found) == [0, 1, 0]


@pytest.mark.parametrize("embedding", [(1, 2), (1, -2)])
def test_of_one_example_idlg_does_not_mind_a_negative_embedding(
    embedding: tuple[float, float],
) -> None:
    found = idlg(round_of(one_embedding([0.2, -0.5, 0.3], embedding), batches=[1]))
    assert _present(found) == [1]


def test_of_a_batch_idlg_sees_the_classes_that_outweigh_their_confidence() -> None:
    """p uniform over 4, labels 0 0 0 1: rows sum to 2 (1/4 - 3/4), 2 (1/4 - 1/4), 2/4 and 2/4.

    Class 1 has exactly the share that the model expects of it, and is not seen.
    """
    found = idlg(round_of(one_embedding(pulled([3, 1, 0, 0], [0.25] * 4)), batches=[4]))
    assert _present(found) == [0]
    assert _counts(found) == [4, 0, 0, 0]


def test_of_a_batch_a_negative_embedding_turns_idlg_round() -> None:
    """Σ_l e_l = -1: the same G_b, with the sign of every row sum changed."""
    bias = pulled([3, 1, 0, 0], [0.25] * 4)
    found = idlg(round_of(one_embedding(bias, [1, -2]), batches=[4]))
    assert _present(found) == [2, 3]


def test_labels_are_spread_by_the_bias_gradient_each_class_found_taking_one_first() -> None:
    """8 labels, classes 0 and 1 found, -G_b = (2/4, 1/4): one each, then 6 as 4 to 2."""
    found = idlg(round_of(one_embedding([-0.5, -0.25, 0.375, 0.375]), batches=[8]))
    assert _counts(found) == [5, 3, 0, 0]
    assert found.shares.tolist() == [5 / 8, 3 / 8, 0, 0]


def test_more_classes_found_than_there_are_labels_leaves_the_labels_to_the_strongest() -> None:
    found = idlg(round_of(one_embedding([-0.5, -0.3, -0.2, 1.0]), batches=[2]))
    assert _present(found) == [0, 1, 2]
    assert _counts(found) == [1, 1, 0, 0]


def test_a_set_that_is_empty_is_not_told_and_its_labels_are_spread_evenly() -> None:
    found = idlg(round_of(head(torch.ones(4, 2), [0.0] * 4), batches=[8]))
    assert _present(found) == []
    assert found.status is Status.UNDETERMINED
    assert _counts(found) == [2, 2, 2, 2]


def test_a_layer_whose_bias_tells_nothing_of_the_classes_found_shares_evenly() -> None:
    weight = [[-1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]]
    found = idlg(round_of(head(weight, [0.1, 0.2, 0.3]), batches=[6]))
    assert _counts(found) == [3, 3, 0]


def _two_examples() -> Head:
    """p uniform over 4, e = (1, 0) of class 3 and e = (0, 1) of class 1: (p - y) eᵀ / 2."""
    weight = [[1 / 8, 1 / 8], [1 / 8, -3 / 8], [1 / 8, 1 / 8], [-3 / 8, 1 / 8]]
    return head(weight, [1 / 4, -1 / 4, 1 / 4, -1 / 4])


def test_gi_takes_the_k_classes_with_the_lowest_entry() -> None:
    """Minima of the rows: 1/8, -3/8, 1/8, -3/8."""
    found = gradinversion(round_of(_two_examples(), batches=[2]))
    assert _present(found) == [1, 3]
    assert _counts(found) == [0, 1, 0, 1]


def test_gi_finds_k_classes_however_few_are_there() -> None:
    """Where a label repeats, GI still gives K classes: the bound of a method without repeats."""
    bias = pulled([0, 3, 0, 0], [0.25] * 4)
    found = gradinversion(round_of(one_embedding(bias), batches=[3]))
    assert len(_present(found)) == 3
    assert 1 in _present(found)


@pytest.mark.parametrize("batches", [[5], [2, 3], None])
def test_gi_goes_by_the_sign_where_labels_repeat_for_sure_or_nobody_knows(
    batches: list[int] | None,
) -> None:
    assert _present(gradinversion(round_of(_two_examples(), batches=batches))) == [1, 3]


def test_gi_without_a_batch_size_takes_no_number_of_classes_for_granted() -> None:
    """150 classes, one of them present: a stand-in of 100 labels must not become 100 classes."""
    bias = torch.full((150,), 1 / 150)
    bias[70] -= 1
    assert _present(gradinversion(round_of(one_embedding(bias), batches=None))) == [70]


def test_rlg_separates_the_classes_of_two_examples() -> None:
    found = rlg(round_of(_two_examples(), batches=[2]))
    assert _present(found) == [1, 3]
    assert _counts(found) == [0, 1, 0, 1]
    assert found.diagnostics["rank"] == 2


def test_rlg_finds_a_class_whose_row_sum_is_positive() -> None:
    """e = (1, -3) of class 0 and e = (0, 1) of class 2, p uniform over 5: (p - y) eᵀ / 2.

    Row sums times 10: class 0 has -4·(-2) + 1·1 = 9, class 2 has 1·(-2) - 4·1 = -6, the others
    -2 + 1 = -1, so that signs are wrong about four of five classes.
    """
    errors = numbers([[-0.8, 0.2, 0.2, 0.2, 0.2], [0.2, 0.2, -0.8, 0.2, 0.2]])
    embeddings = numbers([[1, -3], [0, 1]])
    evidence = round_of(Head(errors.T @ embeddings / 2, errors.mean(0)), batches=[2])
    assert _present(rlg(evidence)) == [0, 2]
    assert _present(idlg(evidence)) == [1, 2, 3, 4]


@given(
    classes=st.integers(4, 8),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
@settings(deadline=None, max_examples=40)
def test_rlg_is_exact_below_rank_n_minus_1_while_the_model_is_untrained(
    classes: int, seed: int, data: st.DataObject
) -> None:
    """p uniform, independent embeddings of any sign, at most N - 2 classes, labels may repeat.

    r = z turns V into D_c = Σ_k z_k (1/N - [y_k = c]): z = 1 on the examples of c separates it,
    while for an absent class every z that lowers it lowers the other absent ones.
    """
    there = data.draw(st.sets(st.integers(0, classes - 1), min_size=1, max_size=classes - 2))
    more = data.draw(st.lists(st.sampled_from(sorted(there)), max_size=4))
    labels = [*there, *more]
    evidence = _untrained(labels, classes, seed)
    found = rlg(evidence)
    assert found.diagnostics["rank"] == len(there)
    assert _present(found) == sorted(there)


def _untrained(labels: list[int], classes: int, seed: int) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(labels), 12, generator=generator, dtype=torch.float64)
    errors = 1 / classes - torch.eye(classes, dtype=torch.float64)[labels]
    gradient = Head(errors.T @ embeddings / len(labels), errors.mean(0))
    return round_of(gradient, batches=[len(labels)])


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 1, 2], [3, 2, 1, 0, 0]])
def test_rlg_warns_when_the_rank_makes_every_class_separable(labels: list[int]) -> None:
    found = rlg(_untrained(labels, 4, seed=0))
    assert found.diagnostics["rank"] == 3
    assert _present(found) == [0, 1, 2, 3]
    assert any("rank 3 of at most 3" in note and "cannot show" in note for note in found.notes)


def test_rlg_of_float32_checkpoints_does_not_take_rounding_for_rank() -> None:
    evidence = _untrained([1, 4], 8, seed=3)
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(8, 12, generator=generator, dtype=torch.float64) / 10
    update = evidence.update
    stored = (start + update.weight).float() - start.float()
    found = rlg(replace(evidence, update=replace(update, weight=stored)))
    assert found.diagnostics["rank"] == 2
    assert _present(found) == [1, 4]


def test_rlg_of_no_weight_that_moved_finds_nothing() -> None:
    found = rlg(round_of(head(torch.zeros(4, 2), [-0.5, 0.5, 0, 0]), batches=[4]))
    assert _present(found) == []
    assert found.status is Status.UNDETERMINED
