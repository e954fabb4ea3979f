"""`--model` and `--model-arg`: what is built, which value wins, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rlu_cli.errors import Exit, InputError, UsageError
from rlu_cli.models import (
    ARCHITECTURES,
    build_model,
    input_shape,
    load_weights,
    parse_argument,
    runs_code,
)

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=5,
) | st.text(max_size=20)


@given(name=NAMES, value=LITERALS)
def test_a_literal_comes_back_as_it_was_written(name: str, value: Any) -> None:
    assert parse_argument(f"{name}={value!r}") == (name, value)


@given(name=NAMES, word=st.from_regex(r"[a-z][a-z:/.=-]{0,12}", fullmatch=True))
def test_what_is_no_literal_stays_text(name: str, word: str) -> None:
    assert parse_argument(f"{name}={word}") == (name, word)


@given(st.text(max_size=60))
def test_any_text_is_either_an_argument_or_a_usage_error(text: str) -> None:
    try:
        name, _ = parse_argument(text)
    except UsageError:
        return
    assert text.startswith(f"{name}=")


@pytest.mark.parametrize("text", ["act", "=silu", "act=", "my act=1", "1=2", ""])
def test_a_malformed_argument_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_argument(text)
    assert caught.value.code == "E101"


@pytest.mark.parametrize("value", ["(" * 10_000, "-" * 200_000 + "1", "1is 2", r"'\d'"])
def test_a_value_python_chokes_on_is_text_or_literal_but_no_crash(value: str) -> None:
    assert parse_argument(f"k={value}")[0] == "k"


def classes_of(model: nn.Module) -> int:
    return list(model.modules())[-1].out_features  # type: ignore[return-value]


def test_a_flag_wins_over_the_state_and_the_state_over_the_classes() -> None:
    state = ARCHITECTURES["lenet5"].build(num_classes=7, in_channels=1).state_dict()
    assert classes_of(build_model("lenet5", classes=5)) == 5
    assert classes_of(build_model("lenet5", state=state, classes=5)) == 7
    assert classes_of(build_model("lenet5", state=state, arguments={"num_classes": 3})) == 3


def test_a_state_adapts_the_architecture_and_the_activation_is_the_users() -> None:
    small = {"width": 0.25, "hidden": 8, "norm": "group", "num_classes": 4}
    state = ARCHITECTURES["vgg16"].build(**small).state_dict()
    model = build_model("vgg16", state=state, arguments={"act": "silu"})
    assert any(isinstance(module, nn.SiLU) for module in model.modules())
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("vgg16", {"wdth": 0.25}, "width=1.0"),
        ("vgg16", {"act": "sillu"}, "silu"),
        ("vgg16", {"norm": None}, "batch|none|group"),
        ("vgg16", {"width": 0.001}, "width=1.0"),
        ("vgg16", {"width": True}, "width=1.0"),
        ("vgg16", {"dropout": 1.5}, "dropout=0.5"),
        ("vgg16", {"width": float("inf")}, "width=1.0"),
        ("vgg16", {"hidden": 4.5}, "hidden=4096"),
        ("lenet5", {"num_classes": 0}, "num_classes=10"),
        ("lenet5", {"size": 8}, "size=32"),
        ("cnn", {"size": 4}, "size=32"),
        ("resnet18", {"width": 0.5}, "act=relu"),
    ],
)
def test_an_unknown_option_or_value_is_answered_with_those_there_are(
    name: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build_model(name, arguments=arguments)
    assert caught.value.code == "E101"
    assert caught.value.exit_status is Exit.USAGE
    assert said in caught.value.hint


def test_every_wrong_argument_is_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"act=sillu, wdth=1"):
        build_model("vgg16", arguments={"act": "sillu", "wdth": 1})


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("ResNet50", "did you mean resnet50"),
        ("vgg", "did you mean vgg16"),
        ("zzz", "rlu models"),
        ("", "rlu models"),
        ("net.py", "--model net.py:Net"),
        ("torchvision:", "pkg.mod:factory"),
        (":Net", "pkg.mod:factory"),
        ("pkg.mod:", "pkg.mod:factory"),
        ("pkg..mod:Net", "pkg.mod:factory"),
        ("../x:Net", "path/model.py:Net"),
        ("x.py:a b", "path/model.py:Net"),
    ],
)
def test_an_unknown_reference_is_refused_with_what_to_type(reference: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_model(reference)
    assert caught.value.code == "E101"
    assert said in caught.value.hint


def test_names_reach_the_terminal_escaped() -> None:
    with pytest.raises(UsageError) as caught:
        build_model("\x1b[31mred")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("reference", [*ARCHITECTURES, "torchvision:x", "timm:x", "hf:x", "x.py"])
def test_what_is_known_by_name_runs_no_code(reference: str) -> None:
    assert not runs_code(reference)


@pytest.mark.parametrize("reference", ["pkg.mod:factory", "a/b.py:Net", "torchvision.models:vgg"])
def test_what_names_a_factory_runs_code(reference: str) -> None:
    assert runs_code(reference)


def test_weights_of_another_architecture_are_refused_with_the_reason() -> None:
    state = ARCHITECTURES["lenet5"].build().state_dict()
    with pytest.raises(InputError) as caught:
        build_model("cnn", state=state)
    assert caught.value.code == "E215"
    assert "conv3.weight" in dict(caught.value.facts)["lacks"]
    assert "fc3.weight" in dict(caught.value.facts)["extra"]


def test_only_the_shape_that_is_wrong_is_named() -> None:
    state = ARCHITECTURES["lenet5"].build(num_classes=7, in_channels=1).state_dict()
    state["fc2.bias"] = torch.zeros(80)
    with pytest.raises(InputError) as caught:
        build_model("lenet5", state=state)
    assert caught.value.facts == (("shape", "fc2.bias is (80,), not (84,)"),)


def test_weights_that_do_not_fit_are_listed_and_cannot_write_to_the_terminal() -> None:
    model = ARCHITECTURES["lenet5"].build()
    state = dict(model.state_dict())
    del state["conv1.bias"]
    state["fc3.weight"] = torch.zeros(5, 84)
    state["\x1b[2Jx"] = torch.zeros(1)
    with pytest.raises(InputError) as caught:
        load_weights(model, state, path=Path("run/g.pt"))
    assert caught.value.code == "E215"
    assert "run/g.pt" in caught.value.message
    assert caught.value.facts == (
        ("lacks", "conv1.bias"),
        ("extra", r"\x1b[2Jx"),
        ("shape", "fc3.weight is (5, 84), not (10, 84)"),
    )


class Renaming(nn.Module):
    """Takes `old` for `new` on the way in."""

    def __init__(self) -> None:
        super().__init__()
        self.new = nn.Parameter(torch.zeros(2))
        self.register_load_state_dict_pre_hook(self.rename)  # type: ignore[no-untyped-call]

    @staticmethod
    def rename(module: nn.Module, state: dict[str, Any], *rest: object) -> None:
        if "old" in state:
            state["new"] = state.pop("old")


def test_a_module_that_renames_keys_as_it_loads_is_let_to() -> None:
    model = Renaming()
    load_weights(model, {"old": torch.ones(2)}, path=Path("g.pt"))
    assert torch.equal(model.new.detach(), torch.ones(2))


def test_loading_leaves_the_state_it_was_given_alone() -> None:
    model, state = Renaming(), {"old": torch.ones(2)}
    load_weights(model, state, path=Path("g.pt"))
    assert list(state) == ["old"]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("lenet5", {"size": 28, "in_channels": 1}, (1, 28)),
        ("lenet5", {}, (3, 32)),
        ("cnn", {"size": 64}, (3, 64)),
        ("cnn", {"size": 28, "in_channels": 1}, (1, 28)),
        ("vgg16", {"width": 0.25, "hidden": 8}, (3, 32)),
        ("resnet32", {"in_channels": 1}, (1, None)),
    ],
)
def test_the_images_a_model_takes(
    name: str, arguments: dict[str, Any], expected: tuple[int, int | None]
) -> None:
    model = ARCHITECTURES[name].build(**arguments)
    state = model.state_dict()
    assert input_shape(name, state) == expected
    assert input_shape(model, state) == expected  # the model alone, without its name
    assert input_shape("my.own:net", state) == (expected[0], None)


def test_asking_a_model_for_its_images_changes_nothing_in_it() -> None:
    model = ARCHITECTURES["vgg16"].build(width=0.25, hidden=8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    seed = torch.get_rng_state()
    input_shape(model, model.state_dict())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), seed)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("inputs", "expected"), [(28 * 28, (1, 28)), (3 * 32 * 32, (3, 32)), (3 * 64 * 64, (3, 64))]
)
def test_a_net_without_convolutions_takes_flattened_images(
    inputs: int, expected: tuple[int, int]
) -> None:
    assert input_shape("own:net", {"0.weight": torch.zeros(10, inputs)}) == expected


@pytest.mark.parametrize("state", [{}, {"0.weight": torch.zeros(10, 123)}])
def test_a_state_that_takes_no_images_is_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InputError) as caught:
        input_shape("own:net", state)
    assert caught.value.code == "E215"
