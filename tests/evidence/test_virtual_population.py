"""Populations of virtual clients: which images they use, and that their labels are what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError
from rlu_cli.evidence.forward import ForwardConfig
from rlu_cli.evidence.virtual_population import (
    VirtualClient,
    compare,
    draw_near,
    draw_shares,
    halves,
    label_shift,
    take,
    train_clients,
    update_statistics,
)
from rlu_cli.local_training.description import LocalTraining, describe_local_training
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.numerics.emulator import emulate
from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.simulator.client import copy_state, seeded
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.types import Auxiliary, Checkpoint, VirtualPopulation

CPU = torch.device("cpu")
CONFIG = ForwardConfig("fc", PRESETS["none"], training=True, batch=5, device=CPU, seed=3)
CLASSES = 4


def _training(**given: Any) -> LocalTraining:
    defaults = {"scheme": "fedavg", "optimizer": "sgd", "lr_schedule": "constant", "lr": 0.01}
    return describe_local_training({**defaults, **given}.get)


def _checkpoint(state: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint(Path("global.pt"), "0" * 64, "torch-zip", state)


def _auxiliary(pixels: Tensor, labels: Tensor, classes: int = CLASSES) -> Auxiliary:
    return Auxiliary(pixels, labels, tuple(map(str, range(classes))), "test", "0" * 64)


def _numbered(*sizes: int) -> Auxiliary:
    """So many images of each class; image i has the pixels i / 255."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    pixels = torch.arange(len(labels)).float()[:, None, None, None].expand(-1, 3, 2, 2) / 255
    return _auxiliary(pixels.contiguous(), labels, len(sizes))


class _Watched(nn.Module):
    """A linear model that keeps the number of each image of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, CLASSES)
        self.shown: list[list[int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append((images[:, 0, 0, 0] * 255).round().int().tolist())
        return self.fc(images.flatten(1))  # type: ignore[no-any-return]


def _watched() -> _Watched:
    with seeded((0,), CPU):
        return _Watched()


# --- halves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (5, 9, 4, 30)], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_halves_share_no_image_and_have_half_of_every_class(
    sizes: tuple[int, ...], seed: int
) -> None:
    whole = _numbered(*sizes)
    one, other = halves(whole, seed)
    numbers = [half.images[:, 0, 0, 0].mul(255).round().int().tolist() for half in (one, other)]
    assert sorted(numbers[0] + numbers[1]) == list(range(len(whole.labels)))
    for half, shown in zip((one, other), numbers, strict=True):
        assert torch.equal(half.labels, whole.labels[shown])
        assert half.class_names == whole.class_names
    counts = [torch.bincount(half.labels, minlength=CLASSES) for half in (one, other)]
    assert int((counts[0] - counts[1]).abs().max()) <= 1


def test_halves_are_drawn_by_the_seed() -> None:
    whole = _numbered(20, 20, 20, 20)
    first, again, other = (halves(whole, seed)[0].images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("sizes", [(4, 4, 3, 4), (9, 0, 9, 9), (1, 1, 1, 1)], ids=str)
def test_fewer_than_four_images_of_a_class_are_an_error(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as error:
        halves(_numbered(*sizes), 0)
    assert error.value.code == "E226"
    assert "--aux" in error.value.hint


def test_taken_images_come_in_the_order_asked_for() -> None:
    taken = take(_numbered(2, 2, 2, 2), np.array([7, 0, 3]))
    assert taken.labels.tolist() == [3, 0, 1]
    assert taken.images[:, 0, 0, 0].mul(255).round().tolist() == [7, 0, 3]


# --- shares -------------------------------------------------------------------------------------


def test_drawn_shares_are_shares_and_drawn_by_the_seed() -> None:
    shares = draw_shares(6, 0.5, 50, seed=1)
    assert shares.shape == (50, 6)
    assert shares.dtype == torch.float64
    assert bool((shares >= 0).all())
    torch.testing.assert_close(shares.sum(1), torch.ones(50, dtype=torch.float64))
    assert torch.equal(draw_shares(6, 0.5, 50, seed=1), shares)
    assert not torch.equal(draw_shares(6, 0.5, 50, seed=2), shares)


def test_a_small_concentration_gives_few_classes_a_client() -> None:
    largest = [float(draw_shares(6, a, 200, 0).max(1).values.mean()) for a in (0.05, 0.5, 50)]
    assert largest[0] > 0.8
    assert largest[0] > largest[1] > largest[2]
    assert largest[2] < 0.3


def test_shares_near_an_estimate_lie_about_it_the_nearer_the_more_concentrated() -> None:
    about = torch.tensor([0.7, 0.3, 0.0, 0.0], dtype=torch.float64)
    apart = []
    for concentration in (20.0, 60.0, 1e4):
        near = draw_near(about, 400, 0, concentration)
        assert near.shape == (400, 4)
        torch.testing.assert_close(near.sum(1), torch.ones(400, dtype=torch.float64))
        assert bool((near[:, 2:].mean(0) > 0).all())  # or the slope there would not be known
        apart.append(float((near - about).abs().sum(1).mean()))
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 0.03
    assert float((near.mean(0) - about).abs().max()) < 0.01
    assert torch.equal(draw_near(about, 400, 0, 1e4), near)
    assert draw_near(about, 0, 0).shape == (0, 4)


# --- training -----------------------------------------------------------------------------------


def _train(
    shares: Tensor,
    auxiliary: Auxiliary,
    training: LocalTraining,
    *,
    config: ForwardConfig = CONFIG,
    likeness: Tensor | None = None,
) -> tuple[list[VirtualClient], list[list[list[int]]]]:
    """The clients, and the numbers of the images in the batches of each."""
    model = _watched()
    given = (model, _checkpoint(copy_state(model)), auxiliary, training, config)
    clients, batches = [], []
    for client in train_clients(*given, shares, likeness):
        clients.append(client)
        batches.append(list(model.shown))
        model.shown.clear()
    return clients, batches


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 4, "batch_size": 5},
        {"epochs": 4},
        {"epochs": 3, "batch_size": 5, "samples": 12},
        {"epochs": 3, "batch_size": 5, "samples": 12, "drop_last": True},
        {"epochs": 2, "batch_size": 7, "steps_per_epoch": 3, "optimizer": "adam"},
        {"epochs": 1, "batch_size": 1},
    ],
    ids=str,
)
def test_counts_are_those_of_the_images_used(given: dict[str, Any]) -> None:
    auxiliary, training = _numbered(6, 3, 9, 4), _training(**given)
    shares = draw_shares(CLASSES, 0.5, 5, 1)
    clients, batches = _train(shares, auxiliary, training)
    sizes = training.plan.batch_sizes or (CONFIG.batch,) * training.plan.steps
    assert len(clients) == 5
    for row, client, shown in zip(shares, clients, batches, strict=True):
        assert tuple(map(len, shown)) == sizes
        used = torch.tensor([number for batch in shown for number in batch])
        expected = torch.bincount(auxiliary.labels[used], minlength=CLASSES)
        assert client.counts.dtype == torch.int64
        assert torch.equal(client.counts, expected)
        one_pass = sum(sizes) // training.plan.passes
        assert torch.equal(client.counts, round_to_total(row, one_pass) * training.plan.passes)
        torch.testing.assert_close(client.shares, expected.double() / sum(sizes))
    assert len({client.checkpoint.sha256 for client in clients}) == 5


def test_full_passes_have_the_same_images_in_a_new_order() -> None:
    training = _training(epochs=4, batch_size=6, samples=14)
    _, (shown,) = _train(draw_shares(CLASSES, 5.0, 1, 1), _numbered(9, 9, 9, 9), training)
    passes = [shown[at][:] + shown[at + 1] + shown[at + 2] for at in range(0, 12, 3)]
    assert all(sorted(one) == sorted(passes[0]) for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def test_an_image_is_used_again_only_when_its_class_runs_out() -> None:
    """Ten labels of a class of four images: two are used twice, two three times."""
    training = _training(epochs=4, batch_size=5)
    shares = torch.tensor([[0.5, 0.3, 0.2, 0.0]], dtype=torch.float64)
    (client,), (shown,) = _train(shares, _numbered(4, 9, 4, 4), training)
    used = np.bincount(np.concatenate(shown), minlength=21)
    assert client.counts.tolist() == [10, 6, 4, 0]
    assert sorted(used[:4]) == [2, 2, 3, 3]
    assert sorted(used[4:13]) == [0] * 3 + [1] * 6
    assert used[13:17].tolist() == [1] * 4
    # Kish: 10² / (2·2² + 2·3²), six images once, four images once, none.
    assert client.images.tolist() == pytest.approx([100 / 26, 6, 4, 0])


def test_full_passes_make_no_new_images() -> None:
    """Twelve labels a pass, three passes: the first class has seven labels of four images."""
    training = _training(epochs=3, batch_size=6, samples=12)
    shares = torch.tensor([[7, 5, 0, 0]], dtype=torch.float64) / 12
    (client,), _ = _train(shares, _numbered(4, 9, 4, 4), training)
    assert client.counts.tolist() == [21, 15, 0, 0]
    # 21² / (3·6² + 3²): three images twice a pass, one once.
    assert client.images.tolist() == pytest.approx([441 / 117, 5, 0, 0])


def _same(one: VirtualClient, other: VirtualClient) -> bool:
    return all(torch.equal(v, other.checkpoint.state[k]) for k, v in one.checkpoint.state.items())


def test_the_seed_alone_decides() -> None:
    shares, training = draw_shares(CLASSES, 0.5, 2, 1), _training(epochs=3, batch_size=5)
    auxiliary = _numbered(30, 30, 30, 30)
    torch.manual_seed(1)
    first, batches = _train(shares, auxiliary, training)
    torch.manual_seed(2)
    again, same = _train(shares, auxiliary, training)
    assert same == batches
    assert all(_same(a, b) for a, b in zip(first, again, strict=True))
    other, different = _train(shares, auxiliary, training, config=replace(CONFIG, seed=4))
    assert different != batches
    assert not _same(other[0], first[0])


def test_clients_of_the_same_shares_draw_images_of_their_own() -> None:
    shares = torch.full((2, CLASSES), 0.25, dtype=torch.float64)
    training = _training(epochs=2, batch_size=8)
    (one, other), batches = _train(shares, _numbered(30, 30, 30, 30), training)
    assert torch.equal(one.counts, other.counts)
    assert batches[0] != batches[1]


def test_images_of_no_likeness_are_never_drawn_and_others_in_proportion() -> None:
    training = _training(epochs=20, batch_size=100)
    shares = torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64)
    likeness = torch.ones(16, dtype=torch.float64)
    likeness[:4] = torch.tensor([0.0, 1.0, 0.0, 3.0])
    (client,), (shown,) = _train(shares, _numbered(4, 4, 4, 4), training, likeness=likeness)
    used = np.bincount(np.concatenate(shown), minlength=16)
    assert client.counts.tolist() == [1000, 1000, 0, 0]
    assert used[[0, 2]].tolist() == [0, 0]
    assert used[3] / 1000 == pytest.approx(0.75, abs=0.06)
    assert used[4:8].tolist() == [250] * 4
    assert float(client.images[0]) == pytest.approx(1000**2 / (used[1] ** 2 + used[3] ** 2))


# --- comparison ---------------------------------------------------------------------------------


def _digits_net(batch_norm: bool) -> nn.Module:
    net = nn.Sequential()
    with seeded((0,), CPU):
        if batch_norm:
            net.add_module("conv", nn.Conv2d(3, 6, 5, stride=4))
            net.add_module("norm", nn.BatchNorm2d(6))
            net.add_module("relu", nn.ReLU())
        net.add_module("flatten", nn.Flatten())
        net.add_module("fc", nn.Linear(294 if batch_norm else 3072, 10))
    return net


def _of(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Auxiliary:
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    return _auxiliary(pixels, torch.tensor(labels), 10)


@pytest.fixture(scope="module")
def digits() -> Auxiliary:
    return _of(*draw_digits(15, seed=1))


ADAM = {"epochs": 4, "batch_size": 25, "optimizer": "adam", "lr": 1e-3}
TRUTH = torch.tensor([0.3, 0, 0, 0.1, 0, 0.2, 0, 0, 0.4, 0], dtype=torch.float64)


def _compared(
    auxiliary: Auxiliary,
    count: int,
    *,
    batch_norm: bool = True,
    config: ForwardConfig | None = None,
) -> tuple[VirtualPopulation, list[str]]:
    """A client with labels TRUTH on images of its own, beside `count` virtual ones."""
    net, training = _digits_net(batch_norm), _training(**ADAM)
    start = _checkpoint(copy_state(net))
    own, shown = _of(*draw_digits(60, seed=2)), replace(CONFIG, normalise=PRESETS["half"])
    (client,) = train_clients(net, start, own, training, shown, TRUTH[None])
    said: list[str] = []
    pair = CheckpointPair(start, client.checkpoint, shown.layer)
    found = compare(net, pair, auxiliary, training, config or shown, count, progress=said.append)
    return found, said


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("count", [6, 7, 8, 20])
def test_as_many_virtual_clients_as_asked_for(
    digits: Auxiliary, count: int, batch_norm: bool
) -> None:
    found, said = _compared(digits, count, batch_norm=batch_norm)
    # Weights' row sums, bias, mean and variance of 6 inputs; mean logits and softmax.
    width = (32 if batch_norm else 20) + 20
    assert found.shares.shape == (count, 10)
    assert found.rows.shape == (count, width)
    assert found.observed.shape == (width,)
    assert found.closeness.shape == (count,)
    assert found.rows.dtype == found.observed.dtype == torch.float64
    assert len(said) == count
    torch.testing.assert_close(found.shares.sum(1), torch.ones(count, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_too_few_to_tell_a_slope_from_are_made_six(digits: Auxiliary, count: int) -> None:
    assert len(_compared(digits, count)[0].shares) == 6


def test_later_virtual_clients_lie_nearer_and_the_first_hardly_count(digits: Auxiliary) -> None:
    found, _ = _compared(digits, 40)
    parts = [10, 15, 15]
    apart = [float((part - TRUTH).abs().sum(1).mean()) for part in torch.split(found.shares, parts)]
    assert apart[0] > apart[1] > apart[2]
    weights = [torch.unique(part).tolist() for part in torch.split(found.closeness, parts)]
    assert [len(one) for one in weights] == [1, 1, 1]
    assert weights[0][0] < 0.1 * weights[1][0]
    assert weights[1] == weights[2]
    answer = emulate(found.shares, found.rows, found.observed, found.closeness)
    assert float((answer.shares - TRUTH).abs().sum()) / 2 < 0.4  # a uniform guess: 0.6


def test_the_same_seed_gives_the_same_population(digits: Auxiliary) -> None:
    (one, _), (again, _) = _compared(digits, 8), _compared(digits, 8)
    assert torch.equal(one.rows, again.rows)
    assert torch.equal(one.shares, again.shares)


def test_figures_that_virtual_clients_do_not_hand_in_are_left_out(digits: Auxiliary) -> None:
    """In evaluation mode their BatchNorm buffers do not move, though the client's did."""
    still = replace(CONFIG, normalise=PRESETS["half"], training=False)
    found, _ = _compared(digits, 6, config=still)
    assert found.rows.shape == (6, 40)
    assert found.observed.shape == (40,)


def _handed_in(net: nn.Module, before: dict[str, Tensor], after: dict[str, Tensor]) -> Tensor:
    pair = CheckpointPair(_checkpoint(before), _checkpoint(after), "fc")
    return torch.cat(list(update_statistics(net, pair).values()))


def test_the_label_shift_is_what_the_clients_model_says_of_the_images(digits: Auxiliary) -> None:
    net = _digits_net(batch_norm=False)
    state = copy_state(net)
    moved = {**state, "fc.bias": state["fc.bias"] + torch.arange(10).float()}
    config = replace(CONFIG, normalise=PRESETS["half"])
    start, end = (
        label_shift(net, CheckpointPair(_checkpoint(state), _checkpoint(one), "fc"), digits, config)
        for one in (state, moved)
    )
    torch.testing.assert_close(
        end["mean logits"] - start["mean logits"], torch.arange(10).double(), atol=1e-4, rtol=0
    )
    assert float(end["mean softmax"].sum()) == pytest.approx(1)
    assert float(end["mean softmax"][9]) > float(start["mean softmax"][9])


def test_what_is_handed_in(digits: Auxiliary) -> None:
    net = _digits_net(batch_norm=True).double()
    state = copy_state(net)
    moved = {name: value.clone() for name, value in state.items()}
    moved["fc.weight"] += torch.arange(10).double()[:, None]
    moved["fc.bias"] += 0.5
    # Two passes with momentum 0.1 leave 0.81 of 0 and 0.1·(0.9 x̄₁ + x̄₂): 0.19 times their mean.
    moved["norm.running_mean"] += 0.19 * torch.arange(6).double()
    moved["norm.running_var"] += 0.01
    moved["norm.num_batches_tracked"] += 2
    found = _handed_in(net, state, moved)
    expected = torch.cat([294 * torch.arange(10), torch.full((10,), 0.5), torch.arange(6)])
    torch.testing.assert_close(found[:26], expected.double())
    # Of the variances 0.81 of 1 is left, and 1.01 is there.
    torch.testing.assert_close(found[26:], torch.full((6,), 0.2 / 0.19).double())
    frozen = {**moved, "fc.bias": state["fc.bias"]}
    less = _handed_in(net, state, frozen)
    torch.testing.assert_close(less, torch.cat([found[:10], found[20:]]))
