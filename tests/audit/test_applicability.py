"""Which methods can be used on a case, and why the others cannot."""

from __future__ import annotations

from typing import Any

import pytest
from made_case import MOVED, SURE, UNSURE, case_of, evidence_of, images

from rlu_cli.attacks import ATTACKS
from rlu_cli.attacks.observations import CLASS_UPDATES, INTERPOLATION, VIRTUAL_POPULATION
from rlu_cli.audit.applicability import (
    UNAVAILABLE,
    refusal,
    refuse_noise_on_trained,
    require_any,
)
from rlu_cli.case.build import Case
from rlu_cli.errors import InputError, RluError

PLAIN = case_of()
NOISE = case_of(auxiliary=images(source="none"))
FIGURES = {"embedding_cosine": 1.0, "embedding_norm_ratio": 1.0}
ANY_OPTIMISER = [name for name, method in ATTACKS.items() if method.any_optimiser]


def _refused(case: Case) -> set[str]:
    return {name for name in ATTACKS if refusal(name, case) is not None}


def _needing(*observations: object) -> set[str]:
    return {name for name, one in ATTACKS.items() if one.needs & set(observations)}


def _error(case: Case, *methods: str) -> RluError:
    with pytest.raises(RluError) as caught:
        require_any(case, methods)
    return caught.value


def test_every_method_can_be_used_on_a_plain_client() -> None:
    assert _refused(PLAIN) == set()


@pytest.mark.parametrize("flags", [{"optimizer": "adam"}, {"optimizer": "adamw"}, {"clip": 1.0}])
def test_a_client_that_is_not_linear_leaves_the_methods_for_any_optimiser(
    flags: dict[str, Any],
) -> None:
    case = case_of(**flags, counted=1)
    assert set(ATTACKS) - _refused(case) == set(ANY_OPTIMISER)
    assert refusal("rlu", case) == case.training.nonlinear


def test_clipping_at_nothing_is_no_clipping() -> None:
    assert _refused(case_of(clip=0)) == set()


def test_a_client_that_is_not_linear_is_read_by_buffers_only_where_they_moved() -> None:
    for counted in (None, 0):
        case = case_of(optimizer="adam", counted=counted)
        for name in _needing(INTERPOLATION) & set(ANY_OPTIMISER):
            reason = refusal(name, case)
            assert reason is not None
            assert "BatchNorm" in reason


def test_without_a_rate_those_that_need_one_are_left_out() -> None:
    case = case_of(lr=None, counted=1)
    assert _refused(case) == {name for name, method in ATTACKS.items() if method.needs_lr}
    reason = refusal("rlu", case)
    assert reason is not None
    assert "--lr" in reason


def test_noise_trains_no_virtual_clients() -> None:
    assert _refused(NOISE) == _needing(CLASS_UPDATES, VIRTUAL_POPULATION)


@pytest.mark.parametrize(
    "case",
    [case_of(scheme="scaffold"), case_of(momentum=0.9, velocity=MOVED)],
    ids=["a scheme with memory", "an old momentum buffer"],
)
def test_virtual_clients_that_start_afresh_are_not_like_one_with_a_memory(case: Case) -> None:
    assert _refused(case) == _needing(VIRTUAL_POPULATION)


def test_every_observation_that_may_be_missing_belongs_to_some_method() -> None:
    assert all(_needing(observation) for observation in UNAVAILABLE)


def test_one_method_that_can_be_used_is_enough() -> None:
    require_any(case_of(optimizer="adam"), ("rlu", *ANY_OPTIMISER))
    require_any(PLAIN, ("rlu",))


def test_a_client_that_no_method_can_attack_is_e108_with_the_reason() -> None:
    error = _error(case_of(optimizer="adam", clip=1.0), "rlu", "path")
    assert error.code == "E108"
    assert "Adam" in error.why
    assert "clip" in error.why
    assert "--method" in error.hint


def test_a_case_that_no_method_can_be_used_on_is_e109_with_every_reason_once() -> None:
    needing = sorted(_needing(CLASS_UPDATES, VIRTUAL_POPULATION))
    error = _error(NOISE, *needing)
    assert error.code == "E109"
    assert all(name in error.message for name in needing)
    assert ";" not in error.why
    assert "--aux" in error.hint


def test_a_rate_that_nobody_told_is_e109_where_all_methods_need_it() -> None:
    assert "--lr" in _error(case_of(lr=None), "rlu").why


def test_noise_cannot_stand_in_for_images_of_a_trained_model() -> None:
    with pytest.raises(InputError) as caught:
        refuse_noise_on_trained(NOISE, evidence_of(NOISE, before=SURE), FIGURES)
    assert caught.value.code == "E225"
    assert "--aux" in caught.value.hint


def test_noise_stands_in_for_images_of_an_untrained_model() -> None:
    refuse_noise_on_trained(NOISE, evidence_of(NOISE, before=UNSURE), FIGURES)


def test_images_may_be_of_any_model() -> None:
    refuse_noise_on_trained(PLAIN, evidence_of(PLAIN, before=SURE), FIGURES)
