"""The learning rate where nobody gave one: taken, refused, or taken on request with a warning."""

from __future__ import annotations

import pytest
from made_case import case_of, found, recovered

from rlu_cli.audit.finding import MethodFinding
from rlu_cli.audit.learning_rate import inferred_rate, rate_warnings
from rlu_cli.errors import UsageError

SHARES = [0.7, 0.2, 0.1]
SURE, VAGUE = (0.1, 0.001), (0.1, 0.05)  # a rate and its standard deviation


def _told(lr: tuple[float, float] | None, method: str = "fusion") -> MethodFinding:
    return found(recovered(SHARES, lr=lr), method)


def _refusal(*findings: MethodFinding, asked: bool = False) -> UsageError:
    with pytest.raises(UsageError) as caught:
        inferred_rate(findings, accept_any=asked)
    assert caught.value.code == "E102"
    return caught.value


@pytest.mark.parametrize("asked", [True, False])
def test_a_rate_that_the_files_tell_well_is_taken(asked: bool) -> None:
    setting = inferred_rate([_told(SURE)], accept_any=asked)
    assert setting.value == 0.1
    assert setting.source.startswith("inferred from BatchNorm means")
    assert "0.0016" in setting.source  # 1.645 standard deviations


def test_the_first_method_that_tells_one_counts() -> None:
    refused = found(None, "rlu", refused="it needs the learning rate")
    findings = [refused, _told(None, "path"), _told((0.2, 0.001)), _told((0.3, 0.001))]
    assert inferred_rate(findings, accept_any=False).value == 0.2


def test_a_vague_rate_is_taken_on_request_alone() -> None:
    error = _refusal(_told(VAGUE))
    assert "0.1" in error.why
    assert "±" in error.why
    assert "--lr infer" in error.hint
    assert inferred_rate([_told(VAGUE)], accept_any=True).value == 0.1


def test_ten_per_cent_is_the_limit() -> None:
    limit = 0.1 * 0.1 / 1.645
    assert inferred_rate([_told((0.1, limit * 0.999))], accept_any=False).value == 0.1
    _refusal(_told((0.1, limit * 1.001)))


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("findings", [[], [_told(None)], [found(None, refused="no")]])
def test_where_no_method_tells_one_it_has_to_be_given(
    findings: list[MethodFinding], asked: bool
) -> None:
    error = _refusal(*findings, asked=asked)
    assert "--lr ETA" in error.hint
    assert "--lr infer" not in error.hint


def test_a_rate_of_nothing_is_none() -> None:
    _refusal(_told((0.0, 0.1)), asked=True)


def test_a_vague_rate_taken_on_request_is_w322() -> None:
    (warning,) = rate_warnings(case_of(lr="infer"), [_told(VAGUE)])
    assert warning.code == "W322"
    assert "0.1" in warning.text
    assert "0.082" in warning.text
    assert warning.redacted is None


@pytest.mark.parametrize(
    ("lr", "told"), [("infer", SURE), (0.1, VAGUE), (None, VAGUE), ("infer", None)]
)
def test_a_rate_that_is_given_or_told_well_gives_no_warning(
    lr: str | float | None, told: tuple[float, float] | None
) -> None:
    assert rate_warnings(case_of(lr=lr), [_told(told)]) == []
