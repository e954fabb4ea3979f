"""Values as they are given: what each parser takes, makes of it, and says that it expects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from rlu_cli.attacks import ATTACKS
from rlu_cli.errors import UsageError
from rlu_cli.schemes import SCHEMES
from rlu_cli.settings import parsers as parse

Parser = Callable[[Any], Any]


def _expected(parser: Parser, value: object) -> str:
    """What a parser says it expected in place of `value`."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        parser(value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "number"), [(1, 1), (12, 12), ("1", 1), ("12", 12), (" 7 ", 7), ("+3", 3)]
)
def test_a_whole_number_may_be_a_number_or_text(value: object, number: int) -> None:
    found = parse.whole(1, 12)(value)
    assert found == number
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    [0, 13, "0", "13", -1, 1.0, 2.5, "1.0", "two", "", None, True, False, [1], {}, "9" * 5000],
)
def test_anything_else_is_no_whole_number_and_both_bounds_are_named(value: object) -> None:
    said = _expected(parse.whole(1, 12), value)
    assert "whole number" in said
    assert {"1", "12"} <= set(said.split())


def test_a_large_bound_is_shown_with_its_thousands() -> None:
    assert "10,000" in _expected(parse.whole(0, 10_000), -1)


@pytest.mark.parametrize(
    ("value", "number"),
    [(0.5, 0.5), (3, 3.0), ("1e-3", 1e-3), (5e-324, 5e-324), (1.7e308, 1.7e308)],
)
def test_a_positive_number(value: object, number: float) -> None:
    found = parse.positive(value)
    assert found == number
    assert type(found) is float


@pytest.mark.parametrize(
    "value", [0, 0.0, -1, "-0.1", "nan", "inf", math.inf, math.nan, True, None, "", [1.0], 10**400]
)
def test_zero_negative_infinite_or_no_numbers_are_not_positive(value: object) -> None:
    assert "above 0" in _expected(parse.positive, value)


def test_a_learning_rate_may_be_left_to_the_files() -> None:
    assert parse.learning_rate("infer") == parse.INFER
    assert parse.learning_rate("0.05") == 0.05


@pytest.mark.parametrize("value", [0, "fast", "Infer", True, None, [0.1]])
def test_what_is_no_learning_rate_is_told_of_both_ways_to_give_one(value: object) -> None:
    said = _expected(parse.learning_rate, value)
    assert "above 0" in said
    assert parse.INFER in said


@pytest.mark.parametrize("value", [0, 0.0, "0", 0.5, 1, "1"])
def test_both_ends_lie_between(value: object) -> None:
    assert parse.between(0, 1)(value) == float(str(value))


def test_the_upper_end_may_be_left_out() -> None:
    below = parse.between(0, 1, below=True)
    assert below(math.nextafter(1, 0)) < 1
    assert "below 1" in _expected(below, 1)
    assert "below" not in _expected(parse.between(0, 1), 2)


@pytest.mark.parametrize(
    "value", [-1e-9, 1.0001, "2", "nan", math.nan, math.inf, True, None, "", [], 10**400]
)
def test_what_does_not_lie_between_is_told_the_range(value: object) -> None:
    assert "from 0 to 1" in _expected(parse.between(0, 1), value)


@pytest.mark.parametrize(
    ("value", "on"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("TRUE", True),
        ("1", True),
        ("yes", True),
        ("false", False),
        ("False", False),
        ("0", False),
        ("No", False),
    ],
)
def test_a_switch_is_on_or_off(value: object, on: bool) -> None:
    assert parse.switch(value) is on


@pytest.mark.parametrize("value", [1, 0, "on", "", "y", None, [], [True]])
def test_anything_else_is_no_switch(value: object) -> None:
    assert _expected(parse.switch, value) == "true or false"


@pytest.mark.parametrize("value", ["0.9,0.99", "0.9, 0.99", [0.9, 0.99], (0.9, "0.99")])
def test_betas_are_two_numbers(value: object) -> None:
    assert parse.betas(value) == (0.9, 0.99)


@pytest.mark.parametrize("value", ["0.9", "0.9,0.99,0.9", [0.9], [], 0.9, None, {}])
def test_betas_are_no_other_number_of_numbers(value: object) -> None:
    assert "two numbers" in _expected(parse.betas, value)


@pytest.mark.parametrize("value", ["0.9,1", "-0.1,0.9", [0.9, None], ["a", "b"], "0.9,"])
def test_each_beta_lies_below_one(value: object) -> None:
    assert "below 1" in _expected(parse.betas, value)


@pytest.mark.parametrize(
    "value", ["constant", "step:5:0.5", "step:1:2", "cosine:10", "cosine:1", "linear:0"]
)
def test_a_schedule_is_kept_as_it_was_given(value: str) -> None:
    assert parse.schedule(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "steps",
        "step",
        "step:5",
        "step:0:0.5",
        "step:1.5:0.5",
        "step:5:0",
        "step:5:inf",
        "step:inf:0.5",
        "step:1e400:0.5",
        "step:nan:0.5",
        "cosine:0.5",
        "cosine:inf",
        "linear:-1",
        "linear:nan",
        "constant:1",
        "Constant",
    ],
)
def test_what_is_no_schedule_is_told_the_known_ones(value: str) -> None:
    said = _expected(parse.schedule, value)
    assert all(name in said for name in ("constant", "step:", "cosine:", "linear:"))


@pytest.mark.parametrize("value", [None, "", 3, ["constant"]])
def test_a_schedule_is_text(value: object) -> None:
    assert "text" in _expected(parse.schedule, value)


def test_one_of_some_names() -> None:
    assert parse.choice("a", "b")("b") == "b"


@pytest.mark.parametrize("value", ["c", "A", "", None, ["a"], {}, 1])
def test_none_of_some_names(value: object) -> None:
    assert _expected(parse.choice("a", "b"), value) == "one of a, b"


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_of_the_table_is_known(name: str) -> None:
    assert parse.scheme(name) == name


def test_an_unknown_scheme_is_told_all_of_them() -> None:
    said = _expected(parse.scheme, "fedsgd")
    assert all(name in said for name in SCHEMES)


def test_text_is_kept_as_it_is() -> None:
    assert parse.text(" a b ") == " a b "


@pytest.mark.parametrize("value", ["", None, 0, 3, True, ["a"], b"a"])
def test_nothing_and_no_text_is_no_text(value: object) -> None:
    assert "text" in _expected(parse.text, value)


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        ("3", (3,)),
        ("3,0", (0, 3)),
        (" 3 , 0 ", (0, 3)),
        ([3, 0, 3], (0, 3)),
        ((0,), (0,)),
        (["2", 1], (1, 2)),
    ],
)
def test_clients_are_sorted_and_named_once(value: object, numbers: tuple[int, ...]) -> None:
    assert parse.client_numbers(value) == numbers


@pytest.mark.parametrize(
    "value", ["", "a", "0,-1", "0,,1", [], [True], [1.0], [None], 3, None, {}, {"0": 1}]
)
def test_what_is_no_list_of_clients_is_told_how_one_looks(value: object) -> None:
    assert "client numbers" in _expected(parse.client_numbers, value)


@pytest.mark.parametrize("value", ["cat,dog", ["cat", "dog"], ("cat", "dog")])
def test_class_names_keep_their_order(value: object) -> None:
    assert parse.class_names(value) == ("cat", "dog")


@pytest.mark.parametrize("value", ["", "cat,,dog", ["cat", ""], [1, 2], 3, None, {"cat": 1}])
def test_class_names_are_texts(value: object) -> None:
    assert "class names" in _expected(parse.class_names, value)


@pytest.mark.parametrize("value", ["cat,cat", ["cat", "dog", "cat"]])
def test_no_two_classes_have_one_name(value: object) -> None:
    assert "different" in _expected(parse.class_names, value)


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        ({"act": "relu", "width": 0.25}, {"act": "relu", "width": 0.25}),
        ({}, {}),
        ("act=relu;size=32", {"act": "relu", "size": 32}),
        (["act=relu", "size=32"], {"act": "relu", "size": 32}),
        (("pair=(1, 2)",), {"pair": (1, 2)}),
        (["act=relu", "act=silu"], {"act": "silu"}),
        ("text=a=b", {"text": "a=b"}),
    ],
)
def test_arguments_of_a_model_are_a_table_or_texts(
    value: object, arguments: dict[str, object]
) -> None:
    assert parse.model_arguments(value) == arguments


@pytest.mark.parametrize("value", [3, None, [1], [["act=relu"]], True])
def test_what_is_neither_is_told_of_both(value: object) -> None:
    said = _expected(parse.model_arguments, value)
    assert "table" in said
    assert "name=value" in said


@pytest.mark.parametrize("value", ["act", "", "=relu", "act=", "a b=1", ["act=relu", "size"]])
def test_an_argument_without_name_or_value_is_refused(value: object) -> None:
    with pytest.raises(UsageError) as caught:
        parse.model_arguments(value)
    assert caught.value.code == "E101"
    assert "name=value" in caught.value.message


@pytest.mark.parametrize("value", ["rlu", ["rlu"], ("rlu",)])
def test_one_method(value: object) -> None:
    assert parse.methods(value) == ("rlu",)


def test_several_methods_keep_their_order_and_are_named_once() -> None:
    assert parse.methods("path,rlu,path") == ("path", "rlu")
    assert parse.methods(["auto", "rlu"]) == ("auto", "rlu")


def test_all_methods_are_those_that_train_nothing() -> None:
    found = parse.methods("all")
    assert found == tuple(name for name in ATTACKS if not ATTACKS[name].trains)
    assert "emulation" not in found
    assert parse.methods(["emulation", "all"]) == ("emulation", *found)


@pytest.mark.parametrize(
    "value", ["nonsense", "", "rlu,", "RLU", ["rlu", 3], [None], [["rlu"]], [{"rlu": 1}]]
)
def test_an_unknown_method_is_told_the_known_ones(value: object) -> None:
    said = _expected(parse.methods, value)
    assert all(name in said for name in ("all", "auto", *ATTACKS))


@pytest.mark.parametrize("value", [[], (), None, 3, {"rlu": 1}, True])
def test_methods_are_a_list(value: object) -> None:
    assert "list of methods" in _expected(parse.methods, value)


@pytest.mark.parametrize(
    "value", ["auto", "none", "half", "imagenet", "0.13/0.31", "0.5,0.5,0.5/0.5,0.5,0.5"]
)
def test_a_scaling_is_kept_as_it_was_given(value: str) -> None:
    assert parse.normalise(value) == value


@pytest.mark.parametrize("value", ["Half", "0.5", "0.5/0", "0.5/-1", "nan/1", "1,2/1,2", "1/1/1"])
def test_an_unknown_scaling_is_refused_with_the_known_ones(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse.normalise(value)
    assert caught.value.code == "E101"
    assert "MEAN/STD" in caught.value.hint


@pytest.mark.parametrize("value", ["", 3, None, ["half"]])
def test_a_scaling_is_text(value: object) -> None:
    assert "text" in _expected(parse.normalise, value)
