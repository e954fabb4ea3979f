"""The images seen along the interpolation: which statistics, which masks, whose rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlu_cli.case.auxiliary import noise_auxiliary
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError
from rlu_cli.evidence.batchnorm_statistics import Statistics, recover
from rlu_cli.evidence.forward import ForwardConfig, evaluate_pair, outputs
from rlu_cli.evidence.interpolation import (
    POINTS,
    between,
    evaluate_along_interpolation,
    reevaluate_with_aux_statistics,
)
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.simulator.client import copy_state, seeded
from rlu_cli.types import Auxiliary, Checkpoint, Interpolation

CPU = torch.device("cpu")
CLASSES, STEPS, BATCH = 5, 4, 8
CONFIG = ForwardConfig("fc", PRESETS["half"], training=True, batch=BATCH, device=CPU, seed=3)
State = Mapping[str, Tensor]


class Net(nn.Module):
    """Convolution, BatchNorm, a hidden layer with BatchNorm and dropout, and the output layer."""

    def __init__(self, *, norm: bool = True, dropout: float = 0.3) -> None:
        super().__init__()
        self.conv, self.hidden = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(36, 6)
        self.norm1 = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.norm2 = nn.BatchNorm1d(6, momentum=0.3) if norm else nn.Identity()
        self.drop, self.fc = nn.Dropout(dropout), nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        seen = torch.tanh(self.norm1(self.conv(images))).flatten(1)
        out: Tensor = self.fc(self.drop(torch.tanh(self.norm2(self.hidden(seen)))))
        return out


def _new(kind: type[nn.Module] = Net, **given: Any) -> nn.Module:
    with seeded((1,), CPU):
        return kind(**given).double()


def _images(count: int, seed: int = 0) -> Auxiliary:
    """Images of all classes in class order."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    labels = (torch.arange(count) * CLASSES) // count
    return Auxiliary(images, labels, tuple("abcde"), "test", "0" * 64)


def _checkpoint(name: str, state: State) -> Checkpoint:
    return Checkpoint(Path(name), "0" * 64, "torch-zip", dict(state))


def _pair(before: State, after: State) -> CheckpointPair:
    return CheckpointPair(_checkpoint("g.pt", before), _checkpoint("c.pt", after), CONFIG.layer)


def _round(
    model: nn.Module, *, training: bool = True, steps: int = STEPS, lr: float = 0.3
) -> CheckpointPair:
    """Checkpoints before and after plain steps on images that are all rather bright."""
    data = _images(40, seed=9)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    model.train(training)
    states = [copy_state(model)]
    with seeded((2,), CPU):
        for _ in range(steps):
            batch = torch.randint(len(data.labels), (BATCH,))
            optimiser.zero_grad()
            logits = model(1.5 * data.images[batch])
            nn.functional.cross_entropy(logits, data.labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    states.append(copy_state(model))
    return _pair(*states)


def _interpolated(
    model: nn.Module,
    pair: CheckpointPair,
    auxiliary: Auxiliary,
    config: ForwardConfig = CONFIG,
    steps: int = STEPS,
) -> Interpolation:
    ends = evaluate_pair(model, pair, auxiliary, config)
    return evaluate_along_interpolation(model, pair, auxiliary, config, steps=steps, ends=ends)


def _shown(auxiliary: Auxiliary, config: ForwardConfig = CONFIG) -> Tensor:
    """The images as the model sees them, in the order of its outputs."""
    count = len(auxiliary.images)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(config.seed))
    return config.normalise(auxiliary.images[order])


def _by_hand(model: Net, state: State, recovered: Mapping[str, Statistics], images: Tensor) -> Any:
    """Layer by layer under the recovered statistics: logits, means before the norms."""

    def normalised(name: str, seen: Tensor, values: int) -> Tensor:
        shape = (1, -1) + (1,) * (seen.dim() - 2)
        variance = (recovered[name].variance * (values - 1) / values).view(shape)
        plain = (seen - recovered[name].mean.view(shape)) / (variance + 1e-5).sqrt()
        return plain * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)

    first = nn.functional.conv2d(images, state["conv.weight"], state["conv.bias"], stride=2)
    flat = torch.tanh(normalised("norm1", first, BATCH * 9)).flatten(1)
    second = flat @ state["hidden.weight"].T + state["hidden.bias"]
    last = torch.tanh(normalised("norm2", second, BATCH))
    return last @ state["fc.weight"].T + state["fc.bias"], first.mean((2, 3)), second


@pytest.mark.parametrize("point", [0.0, 0.25, 1.0])
def test_the_interpolation_runs_from_the_global_model_to_the_client_s(point: float) -> None:
    pair = _round(_new())
    state = between(pair, point)
    assert state.keys() == pair.after.state.keys()
    for name, value in state.items():
        before, after = (checkpoint.state[name] for checkpoint in pair)
        if value.is_floating_point():
            torch.testing.assert_close(value, before + point * (after - before), atol=1e-12, rtol=0)
        else:
            assert torch.equal(value, after)
        if point in (0.0, 1.0) and value.is_floating_point():
            assert torch.equal(value, (before, after)[int(point)])


@pytest.mark.parametrize("count", [20, 33])
def test_without_batch_norm_both_ends_are_the_plain_outputs(count: int) -> None:
    model, auxiliary = _new(norm=False), _images(count)
    pair = _round(model)
    ends = evaluate_pair(model, pair, auxiliary, CONFIG)
    interpolation = evaluate_along_interpolation(
        model, pair, auxiliary, CONFIG, steps=STEPS, ends=ends
    )
    assert interpolation.points == POINTS
    assert (interpolation.means, interpolation.notes) == ((), ())
    assert (interpolation.outputs[0], interpolation.outputs[2]) == ends
    middle = outputs(model, between(pair, 0.5), auxiliary, CONFIG, Path("m.pt"))
    assert torch.equal(interpolation.outputs[1].logits, middle.logits)
    assert not torch.equal(interpolation.outputs[1].logits, ends[0].logits)


@pytest.mark.parametrize("count", [16, 21])
def test_every_layer_normalises_with_what_the_client_s_buffers_tell(count: int) -> None:
    model, auxiliary = _new(dropout=0.0), _images(count)
    assert isinstance(model, Net)
    pair = _round(model)
    interpolation = _interpolated(model, pair, auxiliary)
    recovered, _ = recover(model, pair)
    assert [mean.layer for mean in interpolation.means] == ["norm2"]
    mean = interpolation.means[0]
    assert torch.equal(mean.mean, recovered["norm2"].mean)
    torch.testing.assert_close(mean.weights, recovered["norm2"].weights)
    assert torch.equal(mean.rounding, recovered["norm2"].rounding)
    for point, seen, inputs in zip(
        interpolation.points, interpolation.outputs, mean.inputs, strict=True
    ):
        logits, _, second = _by_hand(model, between(pair, point), recovered, _shown(auxiliary))
        torch.testing.assert_close(seen.logits, logits.float(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(inputs.double(), second, atol=1e-5, rtol=1e-5)
        assert len(inputs) == len(seen.labels) == count
    plain = evaluate_pair(model, pair, auxiliary, CONFIG)
    assert not torch.allclose(interpolation.outputs[2].logits, plain[1].logits, atol=1e-2)


class Last(nn.Module):
    """A model whose last BatchNorm layer sees maps: the measurement is their mean over space."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.fc = nn.Linear(36, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.tanh(self.norm(self.conv(images))).flatten(1))
        return out


def test_a_layer_s_rows_are_the_spatial_means_of_its_input_in_the_order_of_the_labels() -> None:
    model, auxiliary = _new(Last), _images(21)
    pair = _round(model)
    interpolation = _interpolated(model, pair, auxiliary)
    for point, inputs in zip(interpolation.points, interpolation.means[0].inputs, strict=True):
        state = between(pair, point)
        maps = nn.functional.conv2d(
            _shown(auxiliary), state["conv.weight"], state["conv.bias"], stride=2
        )
        torch.testing.assert_close(inputs.double(), maps.mean((2, 3)), atol=1e-6, rtol=1e-6)


def test_the_client_s_own_images_have_the_mean_that_the_buffers_tell() -> None:
    """The measurement and its rows speak of the same figure: one step on the very images shown."""
    model, auxiliary = _new(), _images(BATCH)
    before, shown = copy_state(model), _shown(auxiliary)
    model.train()
    with seeded((2,), CPU):
        model(shown)
    pair = _pair(before, copy_state(model))
    interpolation = _interpolated(model, pair, auxiliary, steps=1)
    mean = interpolation.means[0]
    assert mean.weights.tolist() == [1.0]
    torch.testing.assert_close(mean.inputs[0].double().mean(0), mean.mean, atol=1e-6, rtol=1e-6)


def test_checkpoints_and_model_are_left_as_they_were() -> None:
    model, auxiliary = _new(), _images(20)
    pair = _round(model)
    copies = [{n: v.clone() for n, v in c.state.items()} for c in pair]
    plain = evaluate_pair(model, pair, auxiliary, CONFIG)
    interpolation = _interpolated(model, pair, auxiliary)
    for checkpoint, copy in zip(pair, copies, strict=True):
        assert all(torch.equal(value, checkpoint.state[name]) for name, value in copy.items())
    again = evaluate_pair(model, pair, auxiliary, CONFIG)
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(again, plain, strict=True))
    assert not torch.equal(interpolation.outputs[0].logits, plain[0].logits)
    hooks = [m._forward_pre_hooks or m._forward_hooks for m in model.modules()]
    assert not any(hooks)


def test_hooks_are_taken_off_when_the_model_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model, auxiliary = _new(), _images(20)
    pair = _round(model)
    ends = evaluate_pair(model, pair, auxiliary, CONFIG)
    monkeypatch.setattr(model, "forward", None)
    with pytest.raises(InputError):
        evaluate_along_interpolation(model, pair, auxiliary, CONFIG, steps=STEPS, ends=ends)
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("norm", [True, False])
def test_dropout_is_the_same_at_every_point_and_every_time(norm: bool) -> None:
    """Between a model and itself: nothing but the masks could differ."""
    model, auxiliary = _new(norm=norm), _images(20)
    pair = _round(model, lr=0.0)
    one = _interpolated(model, pair, auxiliary)
    torch.manual_seed(77)
    other = _interpolated(model, pair, auxiliary)
    for seen in (*one.outputs[1:], *other.outputs):
        assert torch.equal(seen.embeddings == 0, one.outputs[0].embeddings == 0)
        torch.testing.assert_close(seen.logits, one.outputs[0].logits, atol=1e-6, rtol=1e-6)
    dropped = (one.outputs[0].embeddings == 0).double().mean()
    assert 0.1 < float(dropped) < 0.5


def test_a_single_step_shows_the_global_model_alone() -> None:
    model, auxiliary = _new(), _images(20)
    pair = _round(model, steps=1)
    interpolation = _interpolated(model, pair, auxiliary, steps=1)
    assert interpolation.points == (0.0,)
    assert len(interpolation.outputs) == len(interpolation.means[0].inputs) == 1
    plain = _interpolated(_new(norm=False), _round(_new(norm=False), steps=1), auxiliary, steps=1)
    assert plain.points == (0.0,)
    assert len(plain.outputs) == 1


@pytest.mark.parametrize("training", [True, False])
def test_in_evaluation_mode_no_layer_is_a_measurement(training: bool) -> None:
    """Whether or not the buffers moved."""
    model, auxiliary, config = _new(), _images(20), replace(CONFIG, training=False)
    pair = _round(model, training=training)
    interpolation = _interpolated(model, pair, auxiliary, config)
    assert (interpolation.means, interpolation.notes) == ((), ())
    ends = evaluate_pair(model, pair, auxiliary, config)
    assert torch.equal(interpolation.outputs[2].logits, ends[1].logits)
    assert len(interpolation.outputs) == 3


def test_frozen_buffers_are_said_to_tell_nothing() -> None:
    model, auxiliary = _new(), _images(20)
    pair = _round(model, training=False)
    interpolation = _interpolated(model, pair, auxiliary)
    assert interpolation.means == ()
    assert len(interpolation.notes) == 1
    plain = evaluate_pair(model, pair, auxiliary, CONFIG)
    assert torch.equal(interpolation.outputs[0].logits, plain[0].logits)


def test_noise_is_no_measurement_of_the_client_s_batches() -> None:
    model = _new()
    pair = _round(model)
    noise = noise_auxiliary(tuple("abcde"), channels=3, size=8, seed=0)
    noise = replace(noise, images=noise.images.double())
    interpolation = _interpolated(model, pair, noise)
    assert interpolation.means == ()
    plain = evaluate_pair(model, pair, noise, CONFIG)
    assert torch.equal(interpolation.outputs[0].logits, plain[0].logits)


class Twice(nn.Module):
    """One BatchNorm layer, the last as the model lists them, used twice, and one used once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 1)
        self.once, self.norm = nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=0.3)
        self.fc = nn.Linear(4, CLASSES)

    def uses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first = self.once(self.stem(images))
        return first, self.again(torch.tanh(self.norm(first))) + 1

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.tanh(self.norm(self.uses(images)[1])).mean((2, 3)))
        return out


def test_a_layer_used_twice_has_one_row_an_image() -> None:
    """Both uses, weighed as the buffers weigh them: their images have the mean recovered."""
    model, auxiliary = _new(Twice), _images(BATCH)
    before, shown = copy_state(model), _shown(auxiliary)
    model.train()(shown)
    pair = _pair(before, copy_state(model))
    mean = _interpolated(model, pair, auxiliary, steps=1).means[0]
    assert mean.layer == "norm"
    assert mean.weights.tolist() == [1.0]
    assert mean.inputs[0].shape == (BATCH, 4)
    torch.testing.assert_close(mean.inputs[0].double().mean(0), mean.mean, atol=1e-5, rtol=1e-5)


def test_each_use_of_a_layer_used_twice_keeps_the_images_own_statistics() -> None:
    """What was recovered is of both uses together: the same images give the plain outputs."""
    model, auxiliary = _new(Twice), _images(BATCH)
    before, shown = copy_state(model), _shown(auxiliary)
    model.train()(shown)
    pair = _pair(before, copy_state(model))
    ends = evaluate_pair(model, pair, auxiliary, CONFIG)
    interpolation = evaluate_along_interpolation(model, pair, auxiliary, CONFIG, steps=1, ends=ends)
    torch.testing.assert_close(
        interpolation.outputs[0].logits, ends[0].logits, atol=1e-5, rtol=1e-5
    )


def test_several_steps_of_a_layer_used_twice_are_weighed_step_by_step() -> None:
    model, auxiliary = _new(Twice), _images(20)
    pair = _round(model)
    mean = _interpolated(model, pair, auxiliary).means[0]
    expected = torch.tensor([0.49**i for i in range(STEPS)][::-1], dtype=torch.float64)
    torch.testing.assert_close(mean.weights, expected / expected.sum())
    assert [len(rows) for rows in mean.inputs] == [20] * 3


class Pieces(nn.Module):
    """A model whose BatchNorm layer sees two rows an image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(96), nn.Linear(192, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.tanh(self.norm(images.flatten(1).view(-1, 96))).view(-1, 192))
        return out


def test_a_layer_that_sees_other_rows_than_images_is_left_out_and_said_to() -> None:
    model, auxiliary = _new(Pieces), _images(20)
    pair = _round(model)
    interpolation = _interpolated(model, pair, auxiliary)
    assert interpolation.means == ()
    assert len(interpolation.notes) == 1
    assert [len(seen.labels) for seen in interpolation.outputs] == [20] * 3


def _reevaluated(
    model: nn.Module, pair: CheckpointPair, auxiliary: Auxiliary, *shares: float
) -> Interpolation:
    given = torch.tensor(shares, dtype=torch.float64)
    interpolation = reevaluate_with_aux_statistics(
        model, pair, auxiliary, CONFIG, given, steps=STEPS
    )
    assert interpolation is not None
    return interpolation


@pytest.mark.parametrize("count", [20, 300])
def test_with_even_shares_the_images_own_statistics_are_those_of_one_large_batch(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlu_cli.evidence.interpolation._WEIGHTED_BATCH", 300)
    model, auxiliary = _new(dropout=0.0), _images(count)
    pair = _round(model)
    interpolation = _reevaluated(model, pair, auxiliary, *[1 / CLASSES] * CLASSES)
    plain = evaluate_pair(model, pair, auxiliary, replace(CONFIG, batch=count))
    assert interpolation.points == POINTS
    for seen, other in zip(
        (interpolation.outputs[0], interpolation.outputs[2]), plain, strict=True
    ):
        torch.testing.assert_close(seen.logits, other.logits, atol=1e-5, rtol=1e-5)
        assert torch.equal(seen.labels, other.labels)
    recovered, _ = recover(model, pair)
    assert torch.equal(interpolation.means[0].mean, recovered["norm2"].mean)
    assert len(interpolation.means[0].inputs[0]) == count


def test_the_images_own_statistics_are_weighted_to_the_shares() -> None:
    """A client of one class: its batches are like that class's images, whatever the others are."""
    model, auxiliary = _new(Last), _images(25)
    pair = _round(model)
    interpolation = _reevaluated(model, pair, auxiliary, 0, 0, 1, 0, 0)
    state, shown = pair.after.state, _shown(auxiliary)
    maps = nn.functional.conv2d(shown, state["conv.weight"], state["conv.bias"], stride=2)
    own = maps[interpolation.outputs[2].labels == 2].transpose(0, 1).flatten(1)
    mean, variance = (v.view(-1, 1, 1) for v in (own.mean(1), own.var(1, correction=0)))
    normed = (maps - mean) / (variance + 1e-5).sqrt()
    normed = normed * state["norm.weight"].view(-1, 1, 1) + state["norm.bias"].view(-1, 1, 1)
    logits = torch.tanh(normed).flatten(1) @ state["fc.weight"].T + state["fc.bias"]
    torch.testing.assert_close(
        interpolation.outputs[2].logits, logits.float(), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("count", [20, 600])
def test_another_look_leaves_nothing_behind(count: int) -> None:
    """Batches that are not whole ones are filled up, and the surplus is dropped."""
    model, auxiliary = _new(), _images(count)
    pair = _round(model)
    plain = evaluate_pair(model, pair, auxiliary, CONFIG)
    interpolation = _reevaluated(model, pair, auxiliary, 0.4, 0.3, 0.2, 0.1, 0)
    assert len(interpolation.outputs[1].logits) == count
    again = evaluate_pair(model, pair, auxiliary, CONFIG)
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(again, plain, strict=True))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_another_look_that_the_model_cannot_have_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, auxiliary = _new(), _images(20)
    pair = _round(model)
    monkeypatch.setattr(model, "forward", None)
    assert (
        reevaluate_with_aux_statistics(
            model, pair, auxiliary, CONFIG, torch.ones(CLASSES) / 5, steps=STEPS
        )
        is None
    )
