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
from rlu_cli.case.hypotheses import ModelHypothesis, hypotheses, with_images
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError
from rlu_cli.evidence.forward import ForwardConfig
from rlu_cli.evidence.model_evidence import (
    ModelEvidence,
    calibrated_losses,
    embedding_fit,
    unexplained,
    unit_agreement,
)
from rlu_cli.evidence.model_selection import choose, loss_costs, posterior_costs, to_average
from rlu_cli.models import ARCHITECTURES, build_model
from rlu_cli.models.input_scaling import AUTO, AUX, PRESETS, of_images, parse_normalisation
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
    """One step of plain SGD on a batch of four classes that the server does not have."""
    images, labels = _images(16, seed=2)
    images, labels = images[labels < 4], labels[labels < 4]
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
    found = with_images(hypotheses(pair.before, name, arguments, scaling), _auxiliary().images)
    ranked = choose(found, pair, pair.update, _auxiliary(), _config(_head(model)))
    own = of_images(_auxiliary().images)
    return [replace(r, normalise=AUX) if r.normalise == own else r for r in ranked]


@pytest.mark.parametrize("scaling", ["none", "half", "imagenet", "mnist"])
def test_the_scaling_of_an_untrained_net_is_found(scaling: str) -> None:
    model = _lenet("relu")
    ranked = _ranked(model, _round(model, scaling), None, {}, AUTO)
    taken = ranked[0]
    assert (taken.model, taken.arguments) == ("lenet5", {"act": "relu"})
    assert taken.normalise == scaling
    assert len(ranked) == len(ACTIVATIONS) * (len(PRESETS) + 1)
    weights = [r.weight for r in ranked]
    assert weights[0] == max(weights) > 0.5
    assert sum(weights) == pytest.approx(1)
    evaluated = [r for r in ranked if not math.isnan(r.cosine)]
    assert len(evaluated) <= 2 * 3 * len(ACTIVATIONS)
    assert all(r.weight == 0 for r in ranked if r not in evaluated)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_activation_of_an_untrained_net_is_found(activation: str) -> None:
    model = _lenet(activation)
    ranked = _ranked(model, _round(model, "half"), None, {}, "half")
    assert ranked[0].arguments == {"act": activation}
    assert ranked[0].weight > 0.5
    assert {r.arguments["act"] for r in ranked} == set(ACTIVATIONS)


def test_what_the_user_says_is_not_measured_against_the_rest() -> None:
    model = _lenet("relu")
    pair = _round(model, "half")
    only = _ranked(model, pair, "lenet5", {"act": "elu"}, "imagenet")
    assert [(r.arguments, r.normalise) for r in only] == [({"act": "elu"}, "imagenet")]
    assert math.isnan(only[0].cosine)  # a single hypothesis is not measured
    assert only[0].weight == 1
    some = _ranked(model, pair, "lenet5", {"act": "elu"}, AUTO)
    assert {r.arguments["act"] for r in some} == {"elu"}
    assert {r.normalise for r in some} == {*PRESETS, AUX}


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


def test_scalings_with_the_same_outputs_are_one(tmp_path: Path) -> None:
    """Batch statistics undo any scaling: they share a weight, and nothing is averaged."""
    file = tmp_path / "model.py"
    file.write_text(MODEL_FILE.replace("nn.BatchNorm2d(3, affine=False)", "nn.InstanceNorm2d(3)"))
    name = f"{file}:Net"
    torch.manual_seed(0)
    model = build_model(name, classes=CLASSES)
    pair, layer = _round(model, "half"), _head(model)
    found = with_images(hypotheses(pair.before, name, {}, AUTO), _auxiliary().images)
    ranked = choose(found, pair, pair.update, _auxiliary(), _config(layer))
    assert {r.same_as for r in ranked} == {0}
    (only,) = to_average(ranked, 0.1, 3)
    assert only.weight == pytest.approx(1)


def test_batchnorm_buffers_tell_the_scaling_that_batch_statistics_undo(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(MODEL_FILE)
    name = f"{file}:Net"
    torch.manual_seed(0)
    model = build_model(name, classes=CLASSES)
    pair, layer = _round(model, "half"), _head(model)
    config = _config(layer, training=True)
    found = with_images(hypotheses(pair.before, name, {}, AUTO), _auxiliary().images)
    ranked = choose(found, pair, pair.update, _auxiliary(), config)
    assert ranked[0].normalise == "half"
    assert ranked[0].weight > 0.5


def _evidence(**given: Any) -> ModelEvidence:
    losses = torch.full((100,), 2.0) + torch.linspace(-0.5, 0.5, 100)
    figures: dict[str, Any] = {
        "cosine": 0.9,
        "norm_ratio": 1.0,
        "unexplained": 0.1,
        "losses": losses.double(),
        "norms": torch.zeros(0),
        "units": -0.05,
        **given,
    }
    return ModelEvidence(**figures)


def _weights(priors: list[float], *evidence: ModelEvidence) -> list[float]:
    weights: list[float] = torch.softmax(-posterior_costs(priors, evidence) / 2, 0).tolist()
    return weights


def test_silu_is_not_taken_over_relu_for_a_cosine_of_882_over_881() -> None:
    """The cosine alone took silu; everything else being alike, the prior decides."""
    relu, silu = _evidence(cosine=0.881), _evidence(cosine=0.882)
    assert _weights([0.8, 0.05], relu, silu)[0] == pytest.approx(0.8 / 0.85)


def test_units_that_never_moved_speak_for_relu_over_silu() -> None:
    """FedAvg-made LeNet-5: a third of the units is silent, which silu does not explain."""
    embeddings = torch.rand(40, 9).clamp_min(0.1)
    labels, logits = torch.arange(40) % 4, torch.zeros(40, 4)
    silent = embeddings.clone()
    silent[:, :3] = 0
    weight = torch.ones(4, 9)
    weight[:, :3] = 0
    relu, silu = (
        unit_agreement(weight, [Outputs(e, logits, labels)] * 2, 10) for e in (silent, embeddings)
    )
    assert relu == pytest.approx(math.log(0.95), abs=0.1)
    assert silu == pytest.approx((6 * math.log(0.95) + 3 * math.log(0.05)) / 9, abs=1e-3)
    weights = _weights([0.05, 0.05], _evidence(units=relu), _evidence(units=silu))
    assert weights[0] > 0.99


def test_resnets_of_torchvisions_names_have_its_activation() -> None:
    model = build_model("resnet18", arguments={}, classes=CLASSES)
    found = hypotheses(_checkpoint(model, "g.pt"), None, {}, "half")
    assert [(one.arguments, one.prior) for one in found] == [({"act": "relu"}, 1.0)]
    named = hypotheses(_checkpoint(model, "g.pt"), None, {"act": "silu"}, "half")
    assert [one.arguments for one in named] == [{"act": "silu"}]


def test_elu_is_not_taken_over_relu_where_the_buffers_say_relu() -> None:
    """One epoch old: cosine .915 over .903."""
    relu = _evidence(cosine=0.903, norms=torch.full((20,), 0.02).double())
    elu = _evidence(cosine=0.915, norms=torch.full((20,), 0.1).double())
    assert _weights([0.5, 0.5], relu, elu)[0] > 0.99
    assert _weights([0.01, 0.99], relu, elu)[0] > 0.99


def test_tanh_is_not_taken_over_relu_for_a_cosine_of_355_where_the_model_is_worse() -> None:
    relu, tanh = _evidence(cosine=0.33), _evidence(cosine=0.355)
    assert relu.losses is not None
    tanh = replace(tanh, losses=relu.losses + 0.1)
    assert _weights([0.5, 0.5], relu, tanh)[0] > 0.99


def test_losses_say_no_more_than_their_difference_is_sure_of() -> None:
    base = torch.linspace(0, 1, 400).double()
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    alike = loss_costs(torch.stack([base, base + 0.01]))
    unsure = loss_costs(torch.stack([base, base + 0.02 + noise - noise.mean()]))
    sure = loss_costs(torch.stack([base, base + 5]))
    assert alike[0] == unsure[0] == sure[0] == 0
    assert 0 < float(alike[1]) < 2
    assert 0 <= float(unsure[1]) < 4
    assert 20 < float(sure[1]) < 40  # bounded


def test_the_update_is_explained_by_the_true_mixture_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.rand(60, 7, generator=generator).double()
    labels = torch.arange(60) % 3
    made = Outputs(embeddings, torch.randn(60, 3, generator=generator).double(), labels)
    errors = torch.nn.functional.one_hot(labels, 3).double() - made.probabilities
    amounts = torch.tensor([2.0, 0.0, 1.0]).double()[labels] / 20
    update = Head((errors * amounts[:, None]).T @ embeddings, (errors * amounts[:, None]).sum(0))
    assert unexplained(update, (made, made)) < 1e-4
    assert unexplained(update * 17, (made, made)) < 1e-4  # any learning rate
    assert unexplained(Head(update.weight, None), (made, made)) < 1e-4
    longer = Outputs(embeddings * 1.5, made.logits, labels)
    assert unexplained(update, (longer, longer)) > 0.01
    assert unexplained(update * 0, (made, made)) == 1


def test_an_update_that_implies_no_embedding_leaves_the_prior() -> None:
    """Only the bias moved: nothing to compare, and no crash."""
    model = _lenet("relu")
    pair = _round(model, "half")
    for name, value in pair.before.state.items():
        if name != "fc3.bias":
            pair.after.state[name].copy_(value)
    ranked = _ranked(model, pair, None, {}, "half")
    assert sum(r.weight for r in ranked) == pytest.approx(1)


def test_calibrated_losses_do_not_depend_on_scale_and_shift_of_the_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    logits = torch.randn(90, 3, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 3)
    embeddings = torch.zeros(90, 2)
    plain = calibrated_losses(Outputs(embeddings, logits, labels))
    scaled = calibrated_losses(Outputs(embeddings, 30 * logits, labels))
    assert torch.allclose(plain, scaled, atol=1e-3)
    assert float(plain.mean()) < math.log(3)
    none = calibrated_losses(Outputs(embeddings, torch.zeros(90, 3), labels))
    assert float(none.mean()) == pytest.approx(math.log(3), abs=1e-6)


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
