"""The output layer of typical architectures, found from names and shapes alone."""

from __future__ import annotations

import random

import pytest
import torch
from checkpoint_files import State

from rlu_cli.checkpoints import batch_norm_counters, find_output_layer, read_head
from rlu_cli.errors import InputError

Layer = tuple[str, tuple[int, ...]]


def _state(*layers: Layer) -> State:
    """(name, shape of the weight): a bias beside every weight, unless the name starts with "-"."""
    state = {}
    for name, shape in layers:
        layer = name.removeprefix("-")
        state[f"{layer}.weight" if layer else "weight"] = torch.zeros(shape)
        if layer == name:
            state[f"{layer}.bias" if layer else "bias"] = torch.zeros(shape[0])
    return state


def _block(prefix: str, width: int) -> list[Layer]:
    return [
        (f"{prefix}.attn.qkv", (3 * width, width)),
        (f"{prefix}.attn.proj", (width, width)),
        (f"{prefix}.mlp.fc1", (4 * width, width)),
        (f"{prefix}.mlp.fc2", (width, 4 * width)),
    ]


LENET: list[Layer] = [
    ("conv1", (6, 3, 5, 5)),
    ("fc1", (120, 400)),
    ("fc2", (84, 120)),
    ("fc3", (10, 84)),
]
VGG: list[Layer] = [
    ("features.0", (64, 3, 3, 3)),
    ("classifier.0", (64, 512)),
    ("classifier.3", (64, 64)),
    ("classifier.6", (10, 64)),
]
RESNET: list[Layer] = [("conv1", (8, 3, 7, 7)), ("-layer1.0.conv1", (8, 8, 3, 3)), ("fc", (10, 16))]
SENET: list[Layer] = [
    ("layer1.0.se.fc1", (2, 16)),
    ("layer1.0.se.fc2", (16, 2)),
    ("layer1.1.gate.linear", (5, 16)),
    ("fc", (10, 16)),
]
VIT: list[Layer] = [
    ("patch_embed.proj", (16, 3, 4, 4)),
    *_block("blocks.0", 16),
    *_block("blocks.1", 16),
    ("head", (10, 16)),
]
BERT: list[Layer] = [
    ("-bert.embeddings.word_embeddings", (100, 16)),
    ("-bert.embeddings.position_embeddings", (32, 16)),
    ("bert.encoder.layer.0.attention.self.query", (16, 16)),
    ("bert.encoder.layer.0.intermediate.dense", (64, 16)),
    ("bert.encoder.layer.0.output.dense", (16, 64)),
    ("bert.pooler.dense", (16, 16)),
    ("classifier", (2, 16)),
]
ROBERTA: list[Layer] = [*BERT[:5], ("classifier.dense", (16, 16)), ("classifier.out_proj", (2, 16))]
NANOGPT: list[Layer] = [
    ("-transformer.wte", (50, 16)),
    ("-transformer.wpe", (32, 16)),
    ("transformer.h.0.attn.c_attn", (48, 16)),
    ("transformer.h.0.mlp.c_fc", (64, 16)),
    ("transformer.h.0.mlp.c_proj", (16, 64)),
    ("-lm_head", (50, 16)),
]
GOOGLENET: list[Layer] = [
    ("aux1.fc1", (32, 64)),
    ("aux1.fc2", (10, 32)),
    ("aux2.fc1", (32, 64)),
    ("aux2.fc2", (10, 32)),
    ("fc", (10, 128)),
]
TYPICAL: dict[str, tuple[list[Layer], str]] = {
    "lenet": (LENET, "fc3"),
    "vgg": (VGG, "classifier.6"),
    "resnet": (RESNET, "fc"),
    "senet": (SENET, "fc"),
    "vit": (VIT, "head"),
    "torchvision vit": ([*_block("encoder.layers.0", 16), ("heads.head", (10, 16))], "heads.head"),
    "timm convnext": ([("stages.0.mlp.fc1", (64, 16)), ("head.fc", (10, 16))], "head.fc"),
    "bert": (BERT, "classifier"),
    "roberta": (ROBERTA, "classifier.out_proj"),
    "nanogpt": (NANOGPT, "lm_head"),
    "googlenet": (GOOGLENET, "fc"),
    "sequential": ([("0", (8, 3, 3, 3)), ("3", (16, 32)), ("5", (10, 16))], "5"),
    "hidden as wide as the output": ([("a", (10, 10)), ("b", (10, 10)), ("c", (10, 10))], "c"),
    "dlg lenet": ([("body.0", (12, 3, 5, 5)), ("fc.0", (10, 768))], "fc.0"),
    "unusual name": ([("enc", (16, 8)), ("dec", (10, 16))], "dec"),
    "one bare layer": ([("", (10, 16))], ""),
    "head defined before what it reads": (
        [("verdict", (10, 64)), ("hidden", (64, 256))],
        "verdict",
    ),
    "score": ([("trunk", (16, 8)), ("score", (10, 16)), ("probe", (4, 16))], "score"),
    "cut in between": ([("fc1", (32, 64)), ("fc2", (10, 16))], "fc2"),
}


@pytest.mark.parametrize("name", TYPICAL)
def test_typical_architectures(name: str) -> None:
    layers, expected = TYPICAL[name]
    assert find_output_layer(_state(*layers)) == expected


@pytest.mark.parametrize("name", ["lenet", "vgg", "vit", "bert", "googlenet", "nanogpt"])
def test_the_order_of_a_named_head_does_not_matter(name: str) -> None:
    layers, expected = TYPICAL[name]
    rng = random.Random(name)
    for _ in range(10):
        shuffled = rng.sample(layers, len(layers))
        if expected == shuffled[-1][0] or name in ("vit", "bert", "nanogpt"):
            assert find_output_layer(_state(*shuffled)) == expected


@pytest.mark.parametrize("name", TYPICAL)
def test_the_name_does_not_hang_on_the_number_of_classes(name: str) -> None:
    layers, expected = TYPICAL[name]
    assert find_output_layer(_state(*layers), classes=7) == expected


def test_tied_layers_are_one() -> None:
    state = _state(("body.decode", (10, 16)), ("body.project", (10, 16)))
    with pytest.raises(InputError):
        find_output_layer({name: torch.randn(t.shape) for name, t in state.items()})
    tied = torch.randn(10, 16)
    assert find_output_layer(dict.fromkeys(state, tied)) == "body.decode"


def test_layers_may_be_joined() -> None:
    state = {name: torch.randn(4, width) for name, width in (("a.weight", 3), ("b.weight", 2))}
    state |= {"a.bias": torch.ones(4), "b.bias": torch.arange(4.0)}
    assert find_output_layer(state, layer="a+module.b.weight") == "a + b"
    head = read_head(state, "a + b")
    assert torch.equal(head.weight, torch.cat([state["a.weight"], state["b.weight"]], 1))
    assert head.bias is not None
    assert head.bias.tolist() == [1, 2, 3, 4]
    del state["b.bias"]
    assert read_head(state, "a + b").bias is None


TWO = _state(("trunk", (16, 8)), ("tasks.colour", (4, 16)), ("tasks.shape", (6, 16)))


def test_the_number_of_classes_decides_between_several() -> None:
    assert find_output_layer(TWO, classes=4) == "tasks.colour"
    assert find_output_layer(TWO, classes=6) == "tasks.shape"


@pytest.mark.parametrize("classes", [None, 5])
def test_several_heads_are_ambiguous(classes: int | None) -> None:
    with pytest.raises(InputError) as caught:
        find_output_layer(TWO, classes=classes)
    assert caught.value.code == "E210"
    assert dict(caught.value.facts)["found"] == "tasks.colour (4, 16), tasks.shape (6, 16)"
    assert "--layer NAME" in caught.value.hint


def test_no_head_at_all() -> None:
    with pytest.raises(InputError) as caught:
        find_output_layer(_state(("conv", (8, 3, 3, 3)), ("embed", (5, 3)), ("norm", (8,))))
    assert caught.value.code == "E210"
    assert "no linear layer" in str(caught.value)


@pytest.mark.parametrize(
    "layer", ["fc3", "fc3.weight", "module.fc3", "module._orig_mod.fc3.weight"]
)
def test_the_user_s_choice_in_any_spelling(layer: str) -> None:
    assert find_output_layer(_state(*LENET), layer=layer) == "fc3"


def test_the_user_s_choice_goes_before_the_search() -> None:
    assert find_output_layer(_state(*LENET), layer="fc2") == "fc2"
    assert find_output_layer(_state(("", (3, 2))), layer="weight") == ""


@pytest.mark.parametrize("layer", ["fc4", "nothing like it", "\x1b[2J", "conv1", "fc3.bias"])
def test_a_choice_that_is_no_linear_layer(layer: str) -> None:
    with pytest.raises(InputError) as caught:
        find_output_layer(_state(*LENET), layer=layer)
    assert caught.value.code == "E210"
    assert dict(caught.value.facts)["found"].startswith("fc")
    assert "\x1b" not in str(caught.value)


def test_one_logit_is_told_by_name() -> None:
    with pytest.raises(InputError) as caught:
        find_output_layer(_state(("fc1", (8, 4)), ("fc2", (1, 8))))
    assert caught.value.code == "E211"
    assert "fc2" in caught.value.message
    with pytest.raises(InputError, match="one logit"):
        find_output_layer(_state(*LENET, ("gate", (1, 84))), layer="gate")


def test_a_head_is_read_with_its_bias() -> None:
    state = _state(("conv", (3, 1, 3, 3)), ("fc", (3, 8)))
    state["fc.bias"] += 2.0
    head = read_head(state, "fc")
    assert head.weight.shape == (3, 8)
    assert head.bias is not None
    assert torch.equal(head.bias, torch.full((3,), 2.0))


def test_a_head_without_bias() -> None:
    state = _state(("-lm_head", (5, 4)), ("-other", (5, 4)))
    state["other.bias"] = torch.zeros(4)  # of another width: not this layer's
    assert read_head(state, "lm_head").bias is None
    assert read_head(state, "other").bias is None


def test_a_pointwise_convolution_can_be_named() -> None:
    state = _state(("features", (8, 3, 3, 3)), ("classifier.1", (10, 8, 1, 1)))
    state["classifier.1.weight"] = torch.randn(10, 8, 1, 1)
    assert find_output_layer(state, layer="classifier.1") == "classifier.1"
    head = read_head(state, "classifier.1")
    assert torch.equal(head.weight, state["classifier.1.weight"][:, :, 0, 0])
    assert head.bias is not None
    assert head.bias.shape == (10,)


def test_batch_norm_counters_may_be_averages() -> None:
    state = _state(*LENET)
    state |= {"bn1.num_batches_tracked": torch.tensor(12), "num_batches_tracked": torch.tensor(0.5)}
    assert batch_norm_counters(state) == {"bn1": 12.0, "": 0.5}
