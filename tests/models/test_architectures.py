"""Every architecture: its keys and shapes, and that its own state gives it away."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rlu_cli.models import ACTIVATIONS, ARCHITECTURES, build_model, load_weights, recognise

UNDETERMINED = {"act", "dropout"}

# One change at a time from the authors' form; the activation is changed in all of them.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    (name, {option: value})
    for name, architecture in ARCHITECTURES.items()
    for option, value in [
        *(("act", act) for act in ACTIVATIONS),
        *(("in_channels", channels) for channels in (1, 3)),
        *(("num_classes", classes) for classes in (2, 10, 200)),
        *(("norm", norm) for norm in ("batch", "none", "group")),
        *(("width", width) for width in (0.25, 0.5, 2.0)),
        *(("hidden", hidden) for hidden in (1, 512)),
        *(("dropout", rate) for rate in (0, 0.1)),
        *(("size", size) for size in (28, 32, 64)),
    ]
    if option in architecture.options and not (name == "vgg16" and value == 28)
]

# Forms small enough to run, together covering every option.
SMALL_VGG = {"width": 0.25, "hidden": 16}
RUNNABLE: list[tuple[str, dict[str, Any]]] = [
    ("lenet5", {}),
    ("lenet5", {"in_channels": 1, "size": 28, "num_classes": 2, "act": "tanh"}),
    ("cnn", {"act": "elu"}),
    ("cnn", {"in_channels": 1, "size": 28, "num_classes": 200}),
    ("vgg16", {**SMALL_VGG, "act": "selu"}),
    ("vgg16", {**SMALL_VGG, "norm": "none", "size": 64}),
    ("vgg16", {**SMALL_VGG, "norm": "group", "dropout": 0.1, "in_channels": 1}),
    ("resnet18", {"act": "silu", "num_classes": 2}),
    ("resnet32", {"act": "tanh", "in_channels": 1}),
    ("resnet50", {"num_classes": 200}),
]


def hollow(name: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        return ARCHITECTURES[name].build(**arguments)


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
def test_a_state_is_recognised_as_exactly_what_it_was_built_from(
    name: str, arguments: dict[str, Any]
) -> None:
    architecture = ARCHITECTURES[name]
    defaults = {option: values[0] for option, values in architecture.options.items()}
    full = {**defaults, **arguments}
    [found] = recognise(hollow(name, **arguments).state_dict())
    assert found.name == name
    assert found.arguments == {k: v for k, v in full.items() if k not in UNDETERMINED}
    assert found.open == {k: v for k, v in architecture.options.items() if k in UNDETERMINED}


@pytest.mark.parametrize(("name", "arguments"), RUNNABLE)
def test_a_model_rebuilt_from_its_state_gives_the_same_output(
    name: str, arguments: dict[str, Any], tmp_path: Any
) -> None:
    torch.manual_seed(0)
    model = ARCHITECTURES[name].build(**arguments).eval()
    untold = {k: v for k, v in arguments.items() if k in UNDETERMINED}
    again = build_model(name, state=model.state_dict(), arguments=untold).eval()
    load_weights(again, model.state_dict(), path=tmp_path / "g.pt")
    side = arguments.get("size", 32)
    images = torch.randn(2, arguments.get("in_channels", 3), side, side)
    with torch.no_grad():
        before, after = model(images), again(images)
    assert before.shape == (2, arguments.get("num_classes", 10))
    assert torch.equal(before, after)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_options_listed_first_are_what_build_does_unasked(name: str) -> None:
    architecture = ARCHITECTURES[name]
    defaults = {option: values[0] for option, values in architecture.options.items()}
    assert str(hollow(name)) == str(hollow(name, **defaults))


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_activation_is_the_one_asked_for_and_not_in_place(name: str, act: str) -> None:
    kinds = {kind: type(make()) for kind, make in ACTIVATIONS.items()}
    modules = list(hollow(name, act=act).modules())
    assert {k for k, kind in kinds.items() if any(type(m) is kind for m in modules)} == {act}
    assert not any(getattr(module, "inplace", False) for module in modules)


# torchvision's own totals at 1000 classes.
@pytest.mark.parametrize(
    ("name", "arguments", "total"),
    [
        ("resnet18", {}, 11_689_512),
        ("resnet50", {}, 25_557_032),
        ("vgg16", {"size": 224, "norm": "none"}, 138_357_544),
        ("vgg16", {"size": 224, "norm": "batch"}, 138_365_992),
    ],
)
def test_as_many_parameters_as_in_torchvision(
    name: str, arguments: dict[str, Any], total: int
) -> None:
    assert parameters(hollow(name, num_classes=1000, **arguments)) == total


def test_resnets_stride_and_shortcut_where_torchvision_does() -> None:
    basic, deep = hollow("resnet18").state_dict(), hollow("resnet50").state_dict()
    order = ["conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"]
    assert list(basic)[:5] == order
    assert list(basic)[-2:] == ["fc.weight", "fc.bias"]
    assert {k.rpartition(".downsample")[0] for k in basic if "downsample" in k} == {
        "layer2.0",
        "layer3.0",
        "layer4.0",
    }
    assert "layer1.0.downsample.1.running_var" in deep
    strides = {n: m.stride for n, m in hollow("resnet50").named_modules() if hasattr(m, "stride")}
    assert strides["layer2.0.conv1"] == (1, 1)
    assert strides["layer2.0.conv2"] == (2, 2)
    assert strides["layer2.0.downsample.0"] == (2, 2)


def test_resnet32_has_as_many_weighted_layers_as_its_name_says() -> None:
    state = hollow("resnet32").state_dict()
    weighted = [k for k, t in state.items() if t.ndim > 1 and "downsample" not in k]
    assert len(weighted) == 32


def test_lenet5_has_the_layers_of_the_paper() -> None:
    assert shapes(hollow("lenet5").state_dict()) == {
        "conv1.weight": (6, 3, 5, 5),
        "conv1.bias": (6,),
        "conv2.weight": (16, 6, 5, 5),
        "conv2.bias": (16,),
        "fc1.weight": (120, 400),
        "fc1.bias": (120,),
        "fc2.weight": (84, 120),
        "fc2.bias": (84,),
        "fc3.weight": (10, 84),
        "fc3.bias": (10,),
    }


def test_quarter_width_vgg16_narrows_every_convolution() -> None:
    state = hollow("vgg16", width=0.25, hidden=512).state_dict()
    plan = [16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128]
    assert [t.shape[0] for t in state.values() if t.ndim == 4] == plan
    dense = [tuple(t.shape) for t in state.values() if t.ndim == 2]
    assert dense == [(512, 128), (512, 512), (10, 512)]


@pytest.mark.parametrize(
    ("name", "arguments"), [("vgg16", {**SMALL_VGG, "hidden": 512}), ("resnet32", {})]
)
def test_convolutions_start_kaiming_normal_and_norms_at_the_identity(
    name: str, arguments: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    for module in ARCHITECTURES[name].build(**arguments).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            spread = (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
            assert float(module.weight.detach().std()) == pytest.approx(spread, rel=0.05)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            assert not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert not module.bias.any()


@settings(max_examples=40, deadline=None)
@given(
    width=st.floats(1 / 64, 2),
    norm=st.sampled_from(["batch", "none", "group"]),
    hidden=st.integers(1, 5000),
    num_classes=st.integers(1, 300),
    size=st.integers(32, 300),
)
def test_any_vgg16_is_rebuilt_to_the_shape_it_had(**arguments: Any) -> None:
    state = hollow("vgg16", **arguments).state_dict()
    [found] = recognise(state)
    assert shapes(hollow("vgg16", **found.arguments).state_dict()) == shapes(state)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(["lenet5", "cnn"]), size=st.integers(16, 300))
def test_any_image_size_is_rebuilt_to_the_shape_it_had(name: str, size: int) -> None:
    state = hollow(name, size=size).state_dict()
    [found] = recognise(state)
    assert shapes(hollow(name, **found.arguments).state_dict()) == shapes(state)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(ARCHITECTURES)))
def test_one_key_gone_renamed_or_reshaped_is_not_recognised(data: Any, name: str) -> None:
    state = dict(hollow(name).state_dict())
    head = list(state)[-1]  # the output layer's bias, which may be missing
    weights = [k for k in state if not k.endswith("num_batches_tracked") and k != head]
    key = data.draw(st.sampled_from(weights))
    tensor = state.pop(key)
    assert recognise(state) == []
    assert recognise({**state, f"{key}_": tensor}) == []
    assert recognise({**state, key: tensor[None]}) == []
    assert recognise({**state, key: tensor, "more": torch.zeros(1)}) == []


def test_a_file_from_before_batch_counters_is_recognised_and_loads(tmp_path: Any) -> None:
    model = ARCHITECTURES["resnet32"].build()
    state = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    [found] = recognise(state)
    again = build_model(found.name, state=state)
    load_weights(again, state, path=tmp_path / "old.pt")
    assert torch.equal(again.state_dict()["fc.weight"], state["fc.weight"])


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"conv1.weight": torch.tensor(1.0), "fc.weight": torch.tensor(1.0)},
        {"conv1.weight": torch.zeros(6, 0, 5, 5), "fc.weight": torch.zeros(0, 64)},
        {
            "features.0.weight": torch.empty(1, 1, 3, 3, device="meta"),
            "classifier.0.weight": torch.empty(2**40, 1, device="meta"),
            "classifier.6.weight": torch.empty(2**40, 1, device="meta"),
        },
    ],
    ids=["empty", "scalars", "no-elements", "enormous"],
)
def test_a_state_made_to_mislead_is_nothing_and_costs_nothing(state: dict[str, Tensor]) -> None:
    assert recognise(state) == []
    for architecture in ARCHITECTURES.values():
        assert architecture.read(state) is None
        assert architecture.mismatch(state)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_an_output_layer_without_bias_is_recognised(name: str) -> None:
    state = dict(hollow(name).state_dict())
    bias = list(state)[-1]
    assert bias.endswith(".bias")
    del state[bias]
    [found] = recognise(state)
    assert (found.name, found.arguments["head_bias"]) == (name, False)
    assert shapes(hollow(name, **found.arguments).state_dict()) == shapes(state)
