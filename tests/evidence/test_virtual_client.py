"""Virtual clients take the very steps of simulated ones, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlu_cli.errors import InputError
from rlu_cli.evidence.forward import ForwardConfig
from rlu_cli.evidence.virtual_batch import train_each, train_together
from rlu_cli.evidence.virtual_client import class_updates, train_virtual
from rlu_cli.local_training.batch_order import draw_batches
from rlu_cli.local_training.description import LocalTraining, describe_local_training
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.numerics.simplex import mixture
from rlu_cli.schemes import offset_weights
from rlu_cli.simulator.client import copy_state, seeded, train_client
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.types import Auxiliary, Checkpoint

CPU = torch.device("cpu")
CONFIG = ForwardConfig("fc", PRESETS["half"], training=True, batch=8, device=CPU, seed=3)
CLASSES = 10


def _net(*before: nn.Module, width: int, bias: bool = True, seed: int = 0) -> nn.Module:
    """`before`, then a linear layer `fc`, in float64, so that rounding cannot hide a difference."""
    net = nn.Sequential()
    with seeded((seed,), CPU):
        for index, module in enumerate(before):
            net.add_module(str(index), module)
        net.add_module("fc", nn.Linear(width, CLASSES, bias=bias))
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
    return net.double()


def _with_batch_norm(*more: nn.Module) -> nn.Module:
    layers = (nn.Conv2d(3, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), *more, nn.Flatten())
    return _net(*layers, width=196)


def _linear(**given: Any) -> nn.Module:
    return _net(nn.Flatten(), width=3072, **given)


def _checkpoint(model: nn.Module) -> Checkpoint:
    return Checkpoint(Path("global.pt"), "0" * 64, "torch-zip", copy_state(model))


def _auxiliary(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Auxiliary:
    pixels = torch.tensor(images).permute(0, 3, 1, 2).double() / 255
    names = tuple(map(str, range(CLASSES)))
    return Auxiliary(pixels, torch.tensor(labels), names, "test", "0" * 64)


def _digits(per_class: int = 3) -> Auxiliary:
    return _auxiliary(*draw_digits(per_class, seed=1))


def _training(plan: Plan) -> LocalTraining:
    """What `rlu attack` is given of a simulated client."""
    given = {"lr": plan.lr, "epochs": plan.epochs, "batch_size": plan.batch_size}
    defaults = {"scheme": "fedavg", "optimizer": "sgd", "lr_schedule": "constant"}
    return describe_local_training({**defaults, **given, **plan.local.settings()}.get)


def _same(ours: dict[str, Tensor], theirs: dict[str, Tensor], atol: float = 1e-10) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=atol)


LOCALS = {
    "sgd": Local(),
    "momentum": Local(momentum=0.9, nesterov=True, weight_decay=0.1, lr_schedule="step:2:0.5"),
    "fedprox": Local("fedprox", momentum=0.5, pull=2.0),
    "smoothing": Local(label_smoothing=0.2),
    "passes": Local(samples=20),
    "adam": Local(optimizer="adam", betas=(0.8, 0.95), weight_decay=0.1, lr_schedule="cosine:20"),
    "adamw": Local("fedprox", "adamw", pull=2.0, weight_decay=0.1),
    "clip": Local(clip=0.1, momentum=0.9),
}


@pytest.mark.parametrize("name", LOCALS)
def test_it_takes_the_steps_of_a_simulated_client(name: str) -> None:
    images, labels = draw_digits(2, seed=1)
    plan = Plan(lr=0.05, epochs=4, batch_size=8, local=LOCALS[name])
    model, seed = _with_batch_norm(), (0, 4)
    checkpoint = _checkpoint(model)
    given: dict[str, Any] = {"classes": CLASSES, "normalise": PRESETS["half"], "seed": seed}
    sent = train_client(model, images, labels, plan, **given).state
    batches = draw_batches(len(labels), plan.steps, np.random.default_rng(seed))
    auxiliary = _auxiliary(images, labels)
    ours = train_virtual(model, checkpoint, auxiliary, batches, _training(plan), CONFIG)
    assert not torch.equal(sent["fc.bias"], checkpoint.state["fc.bias"])
    _same(ours, sent)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_model_and_checkpoint_are_left_as_they_were(optimizer: str) -> None:
    model = _with_batch_norm(nn.Dropout(0.5))
    checkpoint, auxiliary = _checkpoint(model), _digits()
    before = {name: value.clone() for name, value in checkpoint.state.items()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    training = _training(Plan(epochs=2, local=Local(optimizer=optimizer)))
    end = train_virtual(model, checkpoint, auxiliary, [np.arange(9)] * 2, training, CONFIG)
    assert not torch.equal(end["1.running_mean"], before["1.running_mean"])
    _same(dict(checkpoint.state), before)
    _same(copy_state(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_without_training_mode_no_statistics_move() -> None:
    model = _with_batch_norm()
    checkpoint, config = _checkpoint(model), replace(CONFIG, training=False)
    training = _training(Plan(epochs=2))
    end = train_virtual(model, checkpoint, _digits(), [np.arange(9)] * 2, training, config)
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(end[name], checkpoint.state[name])
    assert not torch.equal(end["1.weight"], checkpoint.state["1.weight"])


def _updates(model: nn.Module, config: ForwardConfig = CONFIG, plan: Plan | None = None) -> Tensor:
    """(N, N) bias updates of the virtual clients."""
    training = _training(plan or Plan(epochs=3, batch_size=2))
    heads = class_updates(model, _checkpoint(model), _digits(), training, config)
    return torch.stack([head.bias for head in heads if head.bias is not None])


@pytest.mark.parametrize("more", [(), (nn.Dropout(0.5),)], ids=["order", "dropout"])
def test_the_seed_alone_decides(more: tuple[nn.Module, ...]) -> None:
    model = _with_batch_norm(*more)
    torch.manual_seed(1)
    first = _updates(model)
    torch.manual_seed(2)
    assert torch.equal(_updates(model), first)
    assert not torch.equal(_updates(model, replace(CONFIG, seed=4)), first)


@pytest.mark.parametrize("name", LOCALS)
def test_the_class_a_client_holds_gains_and_nothing_is_made_up(name: str) -> None:
    local = LOCALS[name]
    updates = _updates(_with_batch_norm(), plan=Plan(lr=0.01, epochs=2, batch_size=8, local=local))
    assert (updates.diagonal() > 0).all()
    assert (updates.argmax(1) == torch.arange(CLASSES)).all()
    if local.optimizer == "sgd":
        torch.testing.assert_close(updates.sum(1), torch.zeros(CLASSES).double())


class _Watched(nn.Module):
    """A linear model that keeps the first pixel of each image of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, CLASSES)
        self.shown: list[list[int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append((images[:, 0, 0, 0] * 255).round().int().tolist())
        return self.fc(images.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("known", [True, False])
def test_each_client_sees_its_class_alone_and_all_of_it(known: bool) -> None:
    """Image i has the pixels i; three a class, batches of five, four steps: 20 = 6·3 + 2."""
    labels = np.repeat(np.arange(CLASSES), 3)
    pixels = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None, None], (30, 2, 2, 3))
    model = _Watched().double()
    training = _training(Plan(epochs=4, batch_size=5, lr=1e-3))
    if not known:
        plan = replace(training.plan, batch_sizes=None)
        training = replace(training, plan=plan)
    config = replace(CONFIG, normalise=PRESETS["none"], batch=5)
    said: list[str] = []
    auxiliary = _auxiliary(np.ascontiguousarray(pixels), labels)
    class_updates(model, _checkpoint(model), auxiliary, training, config, progress=said.append)
    assert len(said) == CLASSES
    assert [len(batch) for batch in model.shown] == [5] * 4 * CLASSES
    for label in range(CLASSES):
        shown = [image for batch in model.shown[4 * label : 4 * label + 4] for image in batch]
        own = {3 * label, 3 * label + 1, 3 * label + 2}
        rounds = [shown[start : start + 3] for start in range(0, 18, 3)]
        assert all(set(one) == own for one in rounds)
        assert set(shown) == own
        assert len({tuple(one) for one in rounds}) > 1


def _one_image_a_class() -> Auxiliary:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (CLASSES, 32, 32, 3), dtype=np.uint8)
    return _auxiliary(images.repeat(2, 0), np.arange(CLASSES).repeat(2))


MIXTURES = ([5, 0, 0, 1, 0, 0, 0, 2, 0, 0], [1] * 10, [0, 0, 16, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("counts", MIXTURES, ids=str)
@pytest.mark.parametrize(
    "local", [Local(), Local(momentum=0.9, weight_decay=0.5), Local("fedprox", pull=0.5)], ids=str
)
def test_a_client_is_the_mixture_of_its_classes(counts: Sequence[int], local: Local) -> None:
    """While the model hardly moves, and with what weight decay did by itself removed."""
    model, auxiliary = _linear(), _one_image_a_class()
    checkpoint = _checkpoint(model)
    plan = Plan(lr=1e-5, epochs=3, batch_size=sum(counts), local=local)
    training, batch = _training(plan), np.arange(CLASSES).repeat(counts) * 2
    end = train_virtual(model, checkpoint, auxiliary, [batch] * 3, training, CONFIG)
    origin = checkpoint.state["fc.bias"]
    offset = origin * float(offset_weights(training.recursion)[-1, 0])
    heads = class_updates(model, checkpoint, auxiliary, training, CONFIG)
    columns = torch.stack([head.bias for head in heads if head.bias is not None]).T
    found = mixture(columns, end["fc.bias"] - origin + offset).shares * sum(counts)
    assert found.round().int().tolist() == counts


def test_a_head_without_bias_stays_without() -> None:
    model = _linear(bias=False)
    training = _training(Plan(epochs=1))
    heads = class_updates(model, _checkpoint(model), _digits(), training, CONFIG)
    assert len(heads) == CLASSES
    assert all(head.bias is None and head.weight.any() for head in heads)


def test_divergence_is_an_error_that_names_the_virtual_client() -> None:
    model = _with_batch_norm()
    plan = Plan(lr=1e200, epochs=5, local=Local(momentum=0.9))
    with pytest.raises(InputError, match="virtual client") as error:
        class_updates(model, _checkpoint(model), _digits(), _training(plan), CONFIG)
    assert error.value.code == "E207"


def test_the_last_step_may_diverge_too() -> None:
    model = _linear()
    training = _training(Plan(lr=1e308, epochs=1, local=Local(momentum=0.9, weight_decay=1e10)))
    with pytest.raises(InputError) as error:
        train_virtual(model, _checkpoint(model), _digits(), [np.arange(9)], training, CONFIG)
    assert error.value.code == "E207"


class _UserModel(nn.Module):
    """Prints, and gives log-probabilities in a dict."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(3072, CLASSES)
        self.fails = fails

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        print("forward")
        if self.fails and self.training:
            raise RuntimeError("not\x1b[31m today")
        return {"out": self.fc(images.flatten(1)).log_softmax(1)}


def test_a_users_model_may_print_and_return_what_it_likes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, plain = _UserModel().double(), _linear()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(_updates(model), _updates(plain))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "forward" in shown.err


def test_a_model_that_cannot_be_trained_is_an_error() -> None:
    with pytest.raises(InputError) as error:
        _updates(_UserModel(fails=True).double())
    assert error.value.code == "E215"
    assert "today" in error.value.why
    assert "\x1b" not in error.value.why


def _rounds(auxiliary: Auxiliary, plan: Plan, clients: int) -> list[list[NDArray[np.int64]]]:
    count = len(auxiliary.labels)
    return [draw_batches(count, plan.steps, np.random.default_rng(c)) for c in range(clients)]


def _configs(clients: int, **given: Any) -> list[ForwardConfig]:
    return [replace(CONFIG, seed=CONFIG.seed + number, **given) for number in range(clients)]


@pytest.mark.parametrize("name", LOCALS)
def test_clients_trained_together_end_where_each_alone_does(name: str) -> None:
    plan = Plan(lr=0.05, epochs=4, batch_size=8, local=LOCALS[name])
    model, auxiliary = _with_batch_norm(nn.Dropout2d(0.2), nn.Dropout(0.5)), _digits()
    checkpoint, training = _checkpoint(model), _training(plan)
    rounds, configs = _rounds(auxiliary, plan, 3), _configs(3)
    ends = train_together(model, checkpoint, auxiliary, rounds, training, configs)
    assert ends is not None
    for batches, config, end in zip(rounds, configs, ends, strict=True):
        alone = train_virtual(model, checkpoint, auxiliary, batches, training, config)
        _same(end, alone, atol=1e-8)
    assert not torch.equal(ends[0]["1.running_mean"], ends[1]["1.running_mean"])
    _same(copy_state(model), dict(checkpoint.state))


class _Odd(nn.Module):
    """A model that some clients at once cannot share, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.norm = nn.BatchNorm2d(3, momentum=None if way == "counter" else 0.1)
        self.fc = nn.Linear(3072, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        if self.way == "decides" and float(x.detach().sum()) > 1e9:
            x = x * 0
        if self.way == "random":
            x = nn.functional.dropout(x, 0.5, self.training)
        out: Tensor = self.fc(x.flatten(1))
        return out


@pytest.mark.parametrize("way", ["counter", "decides", "random"])
def test_a_model_that_cannot_train_several_at_once_trains_one_by_one(way: str) -> None:
    model, auxiliary, plan = _Odd(way).double(), _digits(), Plan(epochs=2, batch_size=8)
    checkpoint, training = _checkpoint(model), _training(plan)
    rounds = _rounds(auxiliary, plan, 2)
    given = model, checkpoint, auxiliary, rounds, training
    assert train_together(*given, _configs(2)) is None
    _same(copy_state(model), dict(checkpoint.state))
    for end, batches, config in zip(train_each(*given, CONFIG), rounds, _configs(2), strict=True):
        _same(end, train_virtual(model, checkpoint, auxiliary, batches, training, config))


def test_frozen_weights_stay_and_tied_ones_train_one_by_one() -> None:
    model, auxiliary, plan = _with_batch_norm(), _digits(), Plan(epochs=2, batch_size=8)
    model.get_parameter("0.weight").requires_grad_(False)
    given = auxiliary, _rounds(auxiliary, plan, 2), _training(plan), _configs(2)
    ends = train_together(model, _checkpoint(model), *given)
    assert ends is not None
    assert torch.equal(ends[1]["0.weight"], model.get_parameter("0.weight"))
    assert not torch.equal(ends[1]["fc.weight"], ends[0]["fc.weight"])
    model.get_submodule("1").bias = model.get_submodule("0").bias
    assert train_together(model, _checkpoint(model), *given) is None


def test_training_together_that_diverges_is_refused_as_it_is_alone() -> None:
    model, auxiliary = _with_batch_norm(), _digits()
    plan = Plan(lr=1e200, epochs=5, batch_size=8, local=Local(momentum=0.9))
    given = model, _checkpoint(model), auxiliary, _rounds(auxiliary, plan, 2), _training(plan)
    assert train_together(*given, _configs(2)) is None
    with pytest.raises(InputError, match="diverged"):
        list(train_each(*given, CONFIG))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_trains_more_than_fit_at_once_to_the_same_ends() -> None:
    model, auxiliary = _with_batch_norm(nn.Dropout(0.5)), _digits()
    plan = Plan(lr=0.05, epochs=4, batch_size=8, local=Local(clip=0.1))
    checkpoint, training = _checkpoint(model), _training(plan)
    given = model, checkpoint, auxiliary, _rounds(auxiliary, plan, 18), training
    here = list(train_each(*given, CONFIG))
    there = train_each(*given, replace(CONFIG, device=torch.device("cuda")))
    for one, other in zip(here, there, strict=True):
        _same(one, other, atol=1e-8)
