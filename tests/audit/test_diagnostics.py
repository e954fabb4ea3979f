"""Figures that need no truth: their values by hand, and the sentence for each that is off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from made_case import (
    MOVED,
    NAMES,
    SURE,
    UNSURE,
    case_of,
    evidence_of,
    images,
    independent,
    outputs,
    recovered,
    told_together,
)

from rlu_cli.audit.assumptions import assumptions
from rlu_cli.audit.class_label import label
from rlu_cli.audit.diagnostics import (
    estimate_warnings,
    is_plainly_trained,
    method_warnings,
    no_expected_accuracy,
    relative_sum,
    rounding_share,
    update_diagnostics,
    update_warnings,
)
from rlu_cli.audit.identifiability import (
    check_informative,
    identifiability_warnings,
    unidentifiable,
)
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.build import Case
from rlu_cli.errors import InputError
from rlu_cli.types import Head, Recovery, Setting, Status

CLEAN: dict[str, Any] = {
    "bias_sum": 0.0,
    "weight_column_sum": 0.0,
    "bias_rounding": 0.0,
    "weight_rounding": 0.0,
    "embedding_cosine": 1.0,
    "embedding_norm_ratio": 1.0,
    "batchnorm_steps": None,
}

PLAIN = case_of()


def _codes(warnings: Sequence[FindingWarning]) -> list[str]:
    return [warning.code for warning in warnings]


def _of_update(case: Case = PLAIN, /, **figures: Any) -> list[FindingWarning]:
    return update_warnings(case, {**CLEAN, **figures})


def _of_estimate(
    recovery: Recovery | None = None,
    *,
    wanted: int = 0,
    sizes: Sequence[int] | None = (4, 4),
    **figures: Any,
) -> list[FindingWarning]:
    given = recovered([1.0, 0.0, 0.0], **figures) if recovery is None else recovery
    return estimate_warnings(given, wanted, sizes)


# Figures of the update.


def test_the_figures_of_a_plain_round_by_hand() -> None:
    case = case_of(counted=1)
    figures = update_diagnostics(case, evidence_of(case, after=SURE))
    assert figures["bias_sum"] == pytest.approx(0, abs=1e-7)
    assert figures["weight_column_sum"] == pytest.approx(0, abs=1e-7)
    # Eq. 14: the update implies (1, -0.5), which is the embedding of every image.
    assert figures["embedding_cosine"] == pytest.approx(1)
    assert figures["embedding_norm_ratio"] == pytest.approx(1)
    assert figures["accuracy_before"] == pytest.approx(1 / 3)
    assert figures["accuracy_after"] == 1
    assert figures["batchnorm_steps"] == 1


def test_an_embedding_twice_as_long_shows_in_the_ratio_alone() -> None:
    case = case_of()
    far = outputs([[0.0] * 3] * 3, ((2.0, -1.0),) * 3)
    figures = update_diagnostics(case, evidence_of(case, before=far, after=far))
    assert figures["embedding_cosine"] == pytest.approx(1)
    assert figures["embedding_norm_ratio"] == pytest.approx(1 / 2)


def test_a_layer_without_a_bias_has_no_sum_of_its_bias_updates() -> None:
    start = Head(torch.ones(3, 2), None)
    case = case_of(start, Head(MOVED.weight, None))
    figures = update_diagnostics(case, evidence_of(case))
    assert figures["bias_sum"] is None
    assert figures["bias_rounding"] == 0


def test_noise_has_no_accuracy() -> None:
    case = case_of(auxiliary=images(source="none"))
    figures = update_diagnostics(case, evidence_of(case))
    assert figures["accuracy_before"] is None
    assert figures["accuracy_after"] is None


@pytest.mark.parametrize(
    ("update", "share"),
    [
        ([[1.0], [-1.0]], 0.0),
        ([[1.0], [1.0]], 1.0),
        ([[3.0], [-1.0]], 0.5),
        ([[1.0, 1.0], [-1.0, 1.0]], 0.5),
    ],
)
def test_sums_over_classes_are_a_share_of_the_updates_size(
    update: list[list[float]], share: float
) -> None:
    assert relative_sum(torch.tensor(update)) == pytest.approx(share)


@pytest.mark.parametrize(
    ("narrow", "unit"), [(None, 2.0**-24), ("float16", 2.0**-11), ("bfloat16", 2.0**-8)]
)
def test_rounding_is_half_a_unit_of_the_files_own_type(narrow: str | None, unit: float) -> None:
    case = case_of(narrow=narrow)
    # Biases 1, 1, 1 become 1.2, 0.8, 1: sizes add up to 6, and the update to 0.4.
    assert rounding_share(case, "bias") == pytest.approx(unit * 6 / 0.4)
    assert rounding_share(case, "weight") == pytest.approx(unit * 12 / 0.6)


def test_a_part_that_is_missing_or_did_not_move_has_no_rounding() -> None:
    still = case_of(moved=Head(MOVED.weight, torch.zeros(3)))
    assert rounding_share(still, "bias") == 0
    bare = case_of(Head(torch.ones(3, 2), None), Head(MOVED.weight, None))
    assert rounding_share(bare, "bias") == 0


# Warnings on the update.


def test_a_clean_update_gives_no_warning() -> None:
    assert _of_update() == []


@pytest.mark.parametrize(
    ("figure", "rounding"),
    [("bias_sum", "bias_rounding"), ("weight_column_sum", "weight_rounding")],
)
def test_sums_that_rounding_does_not_explain_are_w301(figure: str, rounding: str) -> None:
    assert _codes(_of_update(**{figure: 0.001})) == []
    assert _codes(_of_update(**{figure: 0.0011})) == ["W301"]
    assert _codes(_of_update(**{figure: 0.041, rounding: 0.01})) == []
    (warning,) = _of_update(**{figure: 0.05, rounding: 0.01})
    assert warning.code == "W301"
    assert "5.0%" in warning.text
    assert ("bias" in warning.text) == (figure == "bias_sum")


def test_both_sums_are_named_where_both_are_off() -> None:
    found = _of_update(bias_sum=0.5, weight_column_sum=0.25)
    assert _codes(found) == ["W301", "W301"]
    assert "50.0%" in found[0].text
    assert "25.0%" in found[1].text


def test_a_layer_without_a_bias_is_judged_by_its_weights_alone() -> None:
    assert _codes(_of_update(bias_sum=None)) == []
    assert _codes(_of_update(bias_sum=None, weight_column_sum=0.5)) == ["W301"]


@pytest.mark.parametrize(
    ("bias", "weight", "codes"),
    [
        (0.05, 0.0, []),
        (0.0501, 0.0, ["W302"]),
        (0.0, 0.06, ["W302"]),
        (0.01, 0.06, []),  # the bias says more of the counts than the weights do
        (0.0, 0.05, []),
    ],
)
def test_files_that_are_too_coarse_are_w302(bias: float, weight: float, codes: list[str]) -> None:
    found = _of_update(bias_rounding=bias, weight_rounding=weight)
    assert _codes(found) == codes
    assert all("float32" in warning.text for warning in found)


@pytest.mark.parametrize(
    ("cosine", "ratio", "codes"),
    [
        (0.8, 1.0, []),
        (0.799, 1.0, ["W303"]),
        (-1.0, 1.0, ["W303"]),
        (1.0, 1.249, []),
        (1.0, 1.25, ["W303"]),
        (1.0, 0.801, []),
        (1.0, 0.8, ["W303"]),
    ],
)
def test_an_embedding_that_fits_poorly_is_w303(
    cosine: float, ratio: float, codes: list[str]
) -> None:
    found = _of_update(embedding_cosine=cosine, embedding_norm_ratio=ratio)
    assert _codes(found) == codes
    assert all(f"{cosine:.2f}" in w.text and f"{ratio:.2f}" in w.text for w in found)


def test_noise_is_not_blamed_for_fitting_poorly() -> None:
    noise = case_of(auxiliary=images(source="none"))
    assert _of_update(noise, embedding_cosine=0.1, embedding_norm_ratio=9.0) == []


def test_counters_that_agree_or_do_not_exist_give_no_warning() -> None:
    assert _of_update(case_of(epochs=3), batchnorm_steps=3) == []
    assert _of_update(case_of(epochs=3), batchnorm_steps=None) == []


def test_counters_that_did_not_move_are_w304_with_frozen_statistics_as_a_cause() -> None:
    (warning,) = _of_update(batchnorm_steps=0)
    assert warning.code == "W304"
    assert "--mode eval" in warning.text


def test_counters_that_show_other_steps_are_w304_with_what_to_give() -> None:
    (warning,) = _of_update(case_of(epochs=3), batchnorm_steps=7)
    assert warning.code == "W304"
    assert "--epochs 7" in warning.text
    assert "3" in warning.text
    assert "--samples" in warning.text


def test_no_warning_on_the_update_names_a_class() -> None:
    """What names none is shown as it is where the client's labels are hidden."""
    found = _of_update(bias_sum=1.0, bias_rounding=0.06, embedding_cosine=0.0, batchnorm_steps=9)
    assert _codes(found) == ["W301", "W302", "W303", "W304"]
    assert {warning.redacted for warning in found} == {None}
    assert not [w for w in found if any(name in w.text for name in NAMES)]


# Warnings on the estimate.


def test_a_settled_estimate_gives_no_warning() -> None:
    assert _of_estimate() == []


@pytest.mark.parametrize("status", Status)
def test_an_estimate_that_did_not_settle_is_w310(status: Status) -> None:
    found = _of_estimate(recovered([1.0, 0.0, 0.0], status=status))
    assert _codes(found) == ([] if status.ok else ["W310"])
    assert all(warning.text == status.value for warning in found)


@pytest.mark.parametrize(("condition", "codes"), [(100.0, []), (100.1, ["W312"]), (5e3, ["W312"])])
def test_a_well_trained_model_is_w312(condition: float, codes: list[str]) -> None:
    found = _of_estimate(condition=condition)
    assert _codes(found) == codes
    assert all(f"{condition:.0f}" in warning.text for warning in found)


def test_fewer_draws_than_asked_for_are_w313() -> None:
    assert _of_estimate(wanted=2000, draws=2000) == []
    assert _of_estimate(wanted=2000) == []
    (warning,) = _of_estimate(wanted=2000, draws=1500)
    assert warning.code == "W313"
    assert "1,500" in warning.text
    assert "2,000" in warning.text


@pytest.mark.parametrize(
    ("loss", "sizes", "codes"),
    [
        (0.02, (4, 4), []),
        (0.021, (4, 4), ["W314"]),
        (0.021, None, ["W314"]),
        (0.0, (4, 2), []),
        (0.0, (4, 1), ["W314"]),
        (None, (4, 1), []),
    ],
)
def test_labels_that_count_unequally_are_w314(
    loss: float | None, sizes: tuple[int, ...] | None, codes: list[str]
) -> None:
    assert _codes(_of_estimate(sizes=sizes, weighting_loss=loss)) == codes


def test_a_short_last_batch_is_said_to_be_the_cause() -> None:
    (short,) = _of_estimate(sizes=(32, 32, 6), weighting_loss=0.03)
    assert "6" in short.text
    assert "32" in short.text
    assert "3.0%" in short.text
    (other,) = _of_estimate(sizes=(32, 32), weighting_loss=0.03)
    assert "batch" not in other.text


def test_every_warning_that_applies_is_given() -> None:
    wrong = recovered(
        [1.0, 0.0, 0.0],
        status=Status.UNSETTLED,
        condition=1e6,
        weighting_loss=0.5,
        draws=1,
    )
    found = estimate_warnings(wrong, 9, None)
    assert sorted(_codes(found)) == ["W310", "W312", "W313", "W314"]
    assert {warning.redacted for warning in found} == {None}


def test_what_a_method_takes_for_granted_is_w320_under_its_name() -> None:
    found = method_warnings("LLG", ["one thing", "another"])
    assert found == [
        FindingWarning("W320", "LLG: one thing"),
        FindingWarning("W320", "LLG: another"),
    ]
    assert method_warnings("LLG", []) == []


def test_a_missing_expected_accuracy_is_w330_and_hides_the_message_when_redacted() -> None:
    problem = InputError("E226", "too few images of class kitten", hint="add some")
    warning = no_expected_accuracy(problem)
    assert warning.code == "W330"
    assert problem.message in warning.text
    assert "E226" in warning.text
    assert warning.redacted is not None
    assert "E226" in warning.redacted
    assert "kitten" not in warning.redacted


# What the answer's own error says.


def test_an_answer_of_unknown_error_is_left_as_it_is() -> None:
    given = recovered([1.0, 0.0, 0.0])
    assert check_informative(given) is given


def test_an_answer_that_is_known_well_is_left_as_it_is() -> None:
    given = recovered([0.7, 0.2, 0.1], covariance=independent(0.01))
    assert check_informative(given) is given


def test_an_answer_of_even_shares_that_are_known_well_tells_something() -> None:
    given = recovered([1 / 3] * 3, covariance=independent(0.01))
    assert check_informative(given) is given


@pytest.mark.parametrize("deviation", [3.0, float("inf"), float("nan")])
def test_an_answer_whose_error_is_as_large_as_anything_tells_nothing(deviation: float) -> None:
    given = recovered([0.7, 0.2, 0.1], covariance=independent(deviation))
    checked = check_informative(given)
    assert checked.status is Status.UNINFORMATIVE
    assert not checked.status.ok
    assert torch.equal(checked.shares, given.shares)


def test_it_is_judged_by_the_shares_before_they_were_held_above_zero() -> None:
    """Far below zero, where the error is large, they tell that the class is absent."""
    vague = independent(0.6)
    held = recovered([1.0, 0.0, 0.0], covariance=vague)
    free = recovered([1.0, 0.0, 0.0], covariance=vague, unconstrained=[3.0, -1.0, -1.0])
    assert check_informative(held).status is Status.UNINFORMATIVE
    assert check_informative(free).status is Status.COMPUTED


def test_an_answer_that_did_not_settle_keeps_its_own_status() -> None:
    given = recovered([0.7, 0.2, 0.1], covariance=independent(9.0), status=Status.UNSOLVED)
    assert check_informative(given) is given


TOGETHER = recovered([0.3, 0.3, 0.4], covariance=told_together(0, 1, 0.5))


def test_classes_that_are_told_together_are_found() -> None:
    assert unidentifiable(TOGETHER) == ((0, 1),)
    assert unidentifiable(recovered([0.3, 0.3, 0.4], covariance=independent(0.01))) == ()
    assert unidentifiable(recovered([0.3, 0.3, 0.4])) == ()


def test_nothing_is_said_of_classes_in_an_answer_that_did_not_settle() -> None:
    failed = recovered(
        [0.3, 0.3, 0.4], covariance=told_together(0, 1, 0.5), status=Status.UNSETTLED
    )
    assert unidentifiable(failed) == ()
    assert identifiability_warnings(failed, NAMES) == []


def test_classes_told_together_are_w321_and_are_not_named_when_redacted() -> None:
    (warning,) = identifiability_warnings(TOGETHER, NAMES)
    assert warning.code == "W321"
    assert "kitten" in warning.text
    assert "puppy" in warning.text
    assert "ostrich" not in warning.text
    assert "60.0%" in warning.text
    assert warning.redacted is not None
    assert "2 classes" in warning.redacted
    assert not [name for name in (*NAMES, "60") if name in warning.redacted]


def test_classes_that_can_be_told_apart_give_no_warning() -> None:
    told = recovered([0.3, 0.3, 0.4], covariance=independent(0.01))
    assert identifiability_warnings(told, NAMES) == []


def test_names_in_a_warning_are_shown_without_control_characters() -> None:
    (warning,) = identifiability_warnings(TOGETHER, ["\x1b[31m", "b\nc", "d"])
    assert "\x1b" not in warning.text
    assert "\n" not in warning.text


def _pairs(count: int) -> Recovery:
    """Twice as many classes as pairs, each pair told together; one class more stands alone."""
    classes = 2 * count + 1
    covariance = independent(1e-4, classes)
    for number in range(count):
        direction = torch.zeros(classes, dtype=torch.float64)
        direction[2 * number], direction[2 * number + 1] = 1, -1
        covariance = covariance + torch.outer(direction, direction)
    return recovered([1 / classes] * classes, covariance=covariance)


def test_of_many_groups_the_first_are_listed_and_the_others_counted() -> None:
    names = [f"<{n}>" for n in range(15)]
    (warning,) = identifiability_warnings(_pairs(7), names)
    assert "2 more groups" in warning.text
    assert "<9>" in warning.text
    assert "<10>" not in warning.text
    assert warning.redacted is not None
    assert "14 classes" in warning.redacted
    assert "7 groups" in warning.redacted


# What is taken for granted.


def test_the_class_order_is_always_said() -> None:
    lines = assumptions(case_of(samples=4), 4, training=False)
    (order,) = [line for line in lines if "class order" in line]
    positions = [order.index(name) for name in NAMES]
    assert positions == sorted(positions)


def test_of_many_classes_the_first_and_the_last_are_said() -> None:
    names = [f"<{n}>" for n in range(40)]
    (order,) = [
        line
        for line in assumptions(case_of(auxiliary=images(names)), 4, training=False)
        if "class order" in line
    ]
    assert "<0>" in order
    assert "<39>" in order
    assert "<20>" not in order


def test_without_a_batch_size_it_is_said_what_is_missing() -> None:
    case = case_of(batch_size=None, truth=[1, 2, 1])
    told = [line for line in assumptions(case, 64, training=True) if "--batch-size" in line]
    assert len(told) == 2
    assert any("64" in line for line in assumptions(case, 64, training=True))
    assert not [line for line in assumptions(case_of(), 4, training=True) if "--batch" in line]


def test_narrow_files_are_said_to_have_been_widened() -> None:
    assert any(
        "bfloat16" in one for one in assumptions(case_of(narrow="bfloat16"), 4, training=True)
    )


def test_notes_of_the_case_and_of_the_images_are_passed_on() -> None:
    lines = assumptions(case_of(notes=("not scored: x",)), 4, training=False)
    assert "not scored: x" in lines


@pytest.mark.parametrize("velocity", [None, MOVED])
def test_momentum_says_whether_its_buffer_was_found(velocity: Head | None) -> None:
    lines = assumptions(case_of(momentum=0.9, velocity=velocity), 4, training=False)
    (said,) = [line for line in lines if "momentum" in line]
    assert ("reset" in said) == (velocity is None)


def test_steps_that_were_inferred_say_where_from() -> None:
    case = case_of(counted=3)
    source = "inferred from BatchNorm counters, it counts 3"
    told = {**case.settings, "epochs": Setting(3, source)}
    inferred = Case(**{**vars(case), "settings": told})
    assert any(source in line for line in assumptions(inferred, 4, training=True))


@pytest.mark.parametrize(
    ("index", "name", "shown"),
    [(3, "3", "3"), (3, "kitten", "3 kitten"), (0, "1", "0 1"), (1, "a\x1bb", "1 a\\x1bb")],
)
def test_a_class_is_shown_by_its_index_and_a_name_that_says_more(
    index: int, name: str, shown: str
) -> None:
    assert label(index, name) == shown


def test_a_long_name_is_cut() -> None:
    assert len(label(0, "x" * 500)) < 50


# Whether noise may stand in for images.


def test_a_model_that_decides_nothing_is_not_plainly_trained() -> None:
    assert not is_plainly_trained(UNSURE, CLEAN)


@pytest.mark.parametrize(
    "figures",
    [{"embedding_cosine": 0.79}, {"embedding_norm_ratio": 2.1}],
    ids=["other embeddings", "longer embeddings"],
)
def test_embeddings_unlike_those_of_noise_show_a_trained_model(figures: dict[str, float]) -> None:
    assert is_plainly_trained(UNSURE, {**CLEAN, **figures})


def test_decisions_on_noise_show_a_trained_model() -> None:
    assert is_plainly_trained(SURE, CLEAN)


def test_at_the_bounds_a_model_still_passes_for_untrained() -> None:
    assert not is_plainly_trained(
        UNSURE, {**CLEAN, "embedding_cosine": 0.8, "embedding_norm_ratio": 2.0}
    )
