"""Telling activation and input scaling from the update, and refusing where it does not tell."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlu_cli.case.auxiliary import noise_auxiliary
from rlu_cli.case.hypotheses import ModelHypothesis, hypotheses
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError
from rlu_cli.evidence.forward import ForwardConfig
from rlu_cli.evidence.model_selection import choose, embedding_fit
from rlu_cli.models import ARCHITECTURES, build_model
from rlu_cli.models.input_scaling import AUTO, PRESETS, parse_normalisation
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.types import Auxiliary, Checkpoint, Head, Outputs

CLASSES = 10
CPU = torch.device("cpu")
ACTIVATIONS = ARCHITECTURES["lenet5"].options["act"]


@cache
def _images(per_class: int, seed: int) -> tuple[Tensor, Tensor]:
    pixels, labels = draw_digits(per_class, seed=seed)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, torch.from_numpy(labels)


def _auxiliary(per_class: int = 12) -> Auxiliary:
    return Auxiliary(*_images(per_class, seed=1), tuple(map(str, range(10))), "test", "0" * 64)


def _first_of_each(count: int) -> Auxiliary:
    aux = _auxiliary(40)
    kept = torch.cat([torch.nonzero(aux.labels == n).flatten()[:count] for n in range(CLASSES)])
    return replace(aux, images=aux.images[kept], labels=aux.labels[kept])


def _checkpoint(model: nn.Module, name: str) -> Checkpoint:
    state = {n: v.clone() for n, v in model.state_dict().items()}
    return Checkpoint(Path(name), "", "torch-zip", state)


def _round(model: nn.Module, scaling: str, lr: float = 0.05) -> CheckpointPair:
    """One step of plain SGD on a batch that the server does not have."""
    images, labels = _images(7, seed=2)
    before = _checkpoint(model, "g.pt")
    shown = parse_normalisation(scaling)(images)
    loss = nn.functional.cross_entropy(model.train()(shown), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.sub_(lr * parameter.grad)
    return CheckpointPair(before, _checkpoint(model, "c.pt"), _head(model))


def _lenet(activation: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model("lenet5", arguments={"act": activation}, classes=CLASSES)


def _head(model: nn.Module) -> str:
    layers: list[str] = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return layers[-1]


def _config(layer: str, *, training: bool = False) -> ForwardConfig:
    return ForwardConfig(layer, PRESETS["none"], training=training, batch=32, device=CPU, seed=0)


def _ranked(
    model: nn.Module,
    pair: CheckpointPair,
    name: str | None,
    arguments: dict[str, Any],
    scaling: str,
) -> list[ModelHypothesis]:
    found = hypotheses(pair.before, name, arguments, scaling)
    return choose(found, pair, pair.update, _auxiliary(), _config(_head(model)))


@pytest.mark.parametrize("scaling", PRESETS)
def test_the_scaling_of_an_untrained_net_is_found(scaling: str) -> None:
    model = _lenet("relu")
    ranked = _ranked(model, _round(model, scaling), None, {}, AUTO)
    taken = ranked[0]
    assert (taken.model, taken.arguments) == ("lenet5", {"act": "relu"})
    assert taken.normalise == scaling
    assert len(ranked) == len(ACTIVATIONS) * len(PRESETS)
    # First the scalings of the activation taken, nearest to 1 first; then the rest by cosine.
    distance = [abs(math.log(r.norm_ratio)) for r in ranked[:3]]
    assert distance == sorted(distance)
    others = [r.cosine for r in ranked[3:]]
    assert others == sorted(others, reverse=True)
    assert max(others) < max(r.cosine for r in ranked[:3])


@pytest.mark.parametrize("activation", ["relu", "selu", "silu"])
def test_the_activation_of_an_untrained_net_is_found(activation: str) -> None:
    """Tanh and ELU are left out: nearly linear about zero, they can look alike untrained."""
    model = _lenet(activation)
    ranked = _ranked(model, _round(model, "half"), None, {}, "half")
    assert ranked[0].arguments == {"act": activation}
    assert {r.arguments["act"] for r in ranked} == set(ACTIVATIONS)


def test_what_the_user_says_is_not_measured_against_the_rest() -> None:
    model = _lenet("relu")
    pair = _round(model, "half")
    only = _ranked(model, pair, "lenet5", {"act": "elu"}, "imagenet")
    assert [(r.arguments, r.normalise) for r in only] == [({"act": "elu"}, "imagenet")]
    assert math.isnan(only[0].cosine)  # a single hypothesis is not measured
    some = _ranked(model, pair, "lenet5", {"act": "elu"}, AUTO)
    assert {r.arguments["act"] for r in some} == {"elu"}
    assert {r.normalise for r in some} == set(PRESETS)


def test_ranking_looks_at_every_class_but_not_at_every_image() -> None:
    """More images of the same kind change the figures little and the answer not at all."""
    model = _lenet("relu")
    pair, layer = _round(model, "half"), _head(model)
    found = hypotheses(pair.before, None, {}, "half")
    few, many = (choose(found, pair, pair.update, _auxiliary(n), _config(layer)) for n in (24, 40))
    assert few[0].arguments == many[0].arguments
    assert few[0].cosine == pytest.approx(many[0].cosine, abs=0.02)
    assert (
        many[0].cosine
        == choose(found, pair, pair.update, _first_of_each(25), _config(layer))[0].cosine
    )


def test_weights_of_no_known_architecture_are_refused_with_those_known() -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(InputError, match="no known architecture") as caught:
        hypotheses(_checkpoint(model, "g\x1b.pt"), None, {}, AUTO)
    assert caught.value.code == "E215"
    assert "lenet5" in str(caught.value)
    assert "--model path/model.py:Net" in caught.value.hint
    assert "\x1b" not in str(caught.value)


MODEL_FILE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(
            nn.BatchNorm2d(3, affine=False), nn.Flatten(), nn.Linear(3072, 16), nn.ReLU(),
            nn.Linear(16, num_classes))
"""


def test_a_scaling_that_leaves_no_trace_is_refused(tmp_path: Path) -> None:
    """Batch statistics undo any scaling: every ratio is the same."""
    file = tmp_path / "model.py"
    file.write_text(MODEL_FILE)
    name = f"{file}:Net"
    torch.manual_seed(0)
    model = build_model(name, classes=CLASSES)
    pair, layer = _round(model, "half"), _head(model)
    found = hypotheses(pair.before, name, {}, AUTO)
    config = _config(layer, training=True)
    with pytest.raises(InputError) as caught:
        choose(found, pair, pair.update, _auxiliary(), config)
    assert caught.value.code == "E224"
    shown = str(caught.value)
    assert all(f"{preset}:" in shown for preset in PRESETS)
    assert "--normalize" in caught.value.hint


def _with_ratios(
    monkeypatch: pytest.MonkeyPatch, ratios: dict[str, float]
) -> list[ModelHypothesis]:
    def measured(hypothesis: ModelHypothesis, *_: object) -> ModelHypothesis:
        return replace(hypothesis, cosine=0.99, norm_ratio=ratios[hypothesis.normalise])

    monkeypatch.setattr("rlu_cli.evidence.model_selection._evaluated", measured)
    one = _checkpoint(nn.Linear(2, 2), "g.pt")
    pair = CheckpointPair(one, one, "")
    candidates = [ModelHypothesis("x", {}, name) for name in ratios]
    return choose(candidates, pair, pair.update, _auxiliary(), _config(""))


def test_ratios_within_five_per_cent_are_refused_and_others_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranked = _with_ratios(monkeypatch, {"none": 2.0, "half": 1.06, "imagenet": 1.0})
    assert [r.normalise for r in ranked] == ["imagenet", "half", "none"]
    for close in (1.0, 1.04, 0.97):
        with pytest.raises(InputError) as caught:
            _with_ratios(monkeypatch, {"none": 2.0, "half": close, "imagenet": 1.0})
        assert caught.value.code == "E224"


def test_the_ratio_nearest_to_one_is_taken_whichever_side_it_is_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half as long is as far from 1 as twice as long."""
    ranked = _with_ratios(monkeypatch, {"none": 1.9, "half": 0.6, "imagenet": 3.0})
    assert [r.normalise for r in ranked] == ["half", "none", "imagenet"]
    ranked = _with_ratios(monkeypatch, {"none": 1.9, "half": 0.5, "imagenet": 3.0})
    assert [r.normalise for r in ranked] == ["none", "half", "imagenet"]


@pytest.mark.parametrize("ratio", [0.0, float("nan")])
def test_an_update_that_implies_no_embedding_is_refused_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, ratio: float
) -> None:
    """Only the bias moved, or only the weights: the update has no embedding to compare."""
    with pytest.raises(InputError) as caught:
        _with_ratios(monkeypatch, dict.fromkeys(PRESETS, ratio))
    assert caught.value.code == "E224"


def test_noise_images_tell_no_scaling_so_the_usual_one_is_taken() -> None:
    noise = noise_auxiliary(tuple(map(str, range(10))), channels=3, size=32, seed=0)
    model = _lenet("tanh")
    pair, layer = _round(model, "half"), _head(model)
    update, config = pair.update, _config(layer)
    ranked = choose(hypotheses(pair.before, None, {}, AUTO), pair, update, noise, config)
    assert {r.normalise for r in ranked} == {"half"}
    given = choose(hypotheses(pair.before, None, {}, "none"), pair, update, noise, config)
    assert {r.normalise for r in given} == {"none"}


def test_the_fit_is_cosine_and_ratio_of_the_mean_embedding_over_both_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 30, 8, generator=generator)
    before, after = (
        Outputs(e, torch.zeros(30, 3), torch.zeros(30).long()) for e in (first, second)
    )
    mean = (first.mean(0) + second.mean(0)) / 2
    bias = torch.tensor([0.3, -0.1, -0.2])
    for length in (0.5, 1.0, 2.0):
        cosine, ratio = embedding_fit(Head(length * bias[:, None] * mean, bias), before, after)
        assert cosine == pytest.approx(1, abs=1e-6)
        assert ratio == pytest.approx(length, rel=1e-5)
