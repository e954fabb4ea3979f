"""What BatchNorm buffers tell of the batches between two files, against the batches themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.evidence.batchnorm_statistics import Statistics, norm_layers, recover
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.simulator.client import copy_state, seeded, train_client
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.simulator.plan import Plan
from rlu_cli.types import Checkpoint

State = Mapping[str, Tensor]
COUNTER = "num_batches_tracked"
STEPS, BATCH = 5, 16


def _checkpoint(state: State, narrow: str | None = None) -> Checkpoint:
    return Checkpoint(Path("a.pt"), "0" * 64, "torch-zip", dict(state), narrow=narrow)


def _recover(
    model: nn.Module, before: State, after: State, narrow: str | None = None
) -> tuple[dict[str, Statistics], tuple[str, ...]]:
    return recover(model, CheckpointPair(_checkpoint(before, narrow), _checkpoint(after, narrow)))


def _images(*settings: Any, two: bool = True, **given: Any) -> nn.Sequential:
    """A small net for (B, 3, 8, 8) whose BatchNorm layers take `settings`."""
    rest = [nn.Flatten(), nn.Linear(4 * 9, 6)]
    rest += [nn.BatchNorm1d(6, *settings, **given), nn.Tanh()] if two else [nn.Tanh()]
    first = [nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4, *settings, **given), nn.Tanh()]
    with seeded((1,), torch.device("cpu")):
        return nn.Sequential(*first, *rest, nn.Linear(6, 5)).double()


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Inputs of every BatchNorm layer, use by use: channels last, one row a value."""
    seen: dict[str, list[Tensor]] = {name: [] for name in norm_layers(model)}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].detach().transpose(0, 1).flatten(1).T
            if module.training:
                seen[name].append(rows)

        return hook

    hooks = [m.register_forward_pre_hook(keep(n)) for n, m in norm_layers(model).items()]
    yield seen
    for hook in hooks:
        hook.remove()


def _train(model: nn.Module, steps: int = STEPS) -> tuple[State, State, dict[str, list[Tensor]]]:
    """State before and after a few plain steps, and every BatchNorm layer's inputs meanwhile."""
    generator = torch.Generator().manual_seed(5)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
    before = copy_state(model)
    with _watched(model) as seen:
        for _ in range(steps):
            images = 1 + torch.randn(BATCH, 3, 8, 8, generator=generator, dtype=torch.float64)
            labels = torch.randint(5, (BATCH,), generator=generator)
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return before, copy_state(model), seen


def _warm(model: nn.Module, steps: int = 3) -> nn.Module:
    """The same with a past: buffers that no longer are what they begin as."""
    _train(model, steps)
    return model


def _expected(batches: list[Tensor], kappa: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, weighted mean of batch means and of unbiased batch variances, by definition."""
    power = [1.0 if kappa is None else (1 - kappa) ** i for i in range(len(batches))][::-1]
    weights = torch.tensor(power, dtype=torch.float64)
    weights = weights / weights.sum()
    mean = torch.stack([batch.mean(0) for batch in batches])
    variance = torch.stack([batch.var(0, unbiased=True) for batch in batches])
    return weights, weights @ mean, weights @ variance


def _same(found: Statistics, batches: list[Tensor], kappa: float | None, atol: float) -> None:
    weights, mean, variance = _expected(batches, kappa)
    torch.testing.assert_close(found.weights, weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=atol)
    torch.testing.assert_close(found.variance, variance, rtol=0, atol=atol)


KAPPAS = (0.1, 0.3, 1.0, None)


@pytest.mark.parametrize("kappa", KAPPAS)
def test_the_batches_come_out_exactly_whatever_the_momentum(kappa: float | None) -> None:
    model = _warm(_images(momentum=kappa))
    before, after, seen = _train(model)
    found, notes = _recover(model, before, after)
    assert list(found) == ["1", "5"]
    assert notes == ()
    for name, one in found.items():
        assert one.mean.dtype == torch.float64
        _same(one, seen[name], kappa, 1e-10)


def test_a_client_of_the_simulator_comes_out_exactly() -> None:
    images, labels = draw_digits(4, seed=1)
    layers = (nn.Conv2d(3, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(196, 10)).double()
    before = copy_state(model)
    plan = Plan(lr=0.05, epochs=4, batch_size=9)
    with _watched(model) as seen:
        sent = train_client(
            model,
            images,
            np.asarray(labels),
            plan,
            classes=10,
            normalise=PRESETS["half"],
            seed=(3,),
        )
    found, _ = _recover(model, before, sent.state)
    assert len(seen["1"]) == 4
    _same(found["1"], seen["1"], 0.1, 1e-10)


def test_a_client_that_starts_from_fresh_buffers_comes_out_exactly() -> None:
    model = _images(momentum=None)
    before, after, seen = _train(model)
    assert before["1.num_batches_tracked"] == 0
    _same(_recover(model, before, after)[0]["1"], seen["1"], None, 1e-12)


class Twice(nn.Module):
    """One BatchNorm layer that a forward pass uses two times, another that it uses once."""

    def __init__(self, kappa: float | None) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 1)
        self.norm, self.last = nn.BatchNorm2d(4, momentum=kappa), nn.BatchNorm2d(4, momentum=kappa)
        self.alias = self.norm
        self.fc = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        first = torch.tanh(self.norm(self.stem(images)))
        second = torch.tanh(self.alias(self.again(first) + 1))
        out: Tensor = self.fc(self.last(second).mean((2, 3)))
        return out


@pytest.mark.parametrize("kappa", [0.1, None])
def test_a_layer_used_twice_in_a_pass_counts_both_uses(kappa: float | None) -> None:
    model = _warm(Twice(kappa).double())
    before, after, seen = _train(model)
    found, _ = _recover(model, before, after)
    assert list(found) == ["norm", "last"]
    assert (len(found["norm"].weights), len(found["last"].weights)) == (2 * STEPS, STEPS)
    for name, one in found.items():
        _same(one, seen[name], kappa, 1e-10)


def _recounted(state: State, first: float, kind: torch.dtype) -> State:
    """The state with every counter set, as a server that averages them may leave it."""
    return {n: torch.tensor(first, dtype=kind) if COUNTER in n else v for n, v in state.items()}


@pytest.mark.parametrize("kappa", [0.3, None])
@pytest.mark.parametrize("start", [10.0, 0.5, 10.3, 4999.7])
def test_counters_averaged_into_fractions_are_counted(start: float, kappa: float | None) -> None:
    model = _images(momentum=kappa)
    for norm in norm_layers(model).values():  # a client whose own counter keeps the fraction
        norm.num_batches_tracked = torch.tensor(start, dtype=torch.float32)
    before, after, seen = _train(model, 10)
    assert float(after["1.num_batches_tracked"]) == pytest.approx(start + 10, abs=1e-3)
    reader = _images(momentum=kappa)
    found, _ = _recover(reader, before, after)
    # Far into a plain mean of all batches ten more hardly move it, and torch's steps are rounded.
    _same(found["1"], seen["1"], kappa, 1e-4 if start > 1000 else 1e-6)
    counter = norm_layers(reader)["1"].num_batches_tracked
    assert isinstance(counter, Tensor)
    assert counter.dtype == torch.int64


@pytest.mark.parametrize("kappa", [0.3, None])
def test_a_client_that_cuts_the_fraction_off_is_counted_from_there(kappa: float | None) -> None:
    """10.4 on the server is 10 once loaded, and 20 after ten batches."""
    model = _images(momentum=kappa)
    for norm in norm_layers(model).values():
        norm.num_batches_tracked = torch.tensor(10)
    before, after, seen = _train(model, 10)
    found, _ = _recover(model, _recounted(before, 10.4, torch.float32), after)
    _same(found["1"], seen["1"], kappa, 1e-10)


@pytest.mark.parametrize(("start", "end"), [(3.0, 13.5), (3.25, 13.5), (7.0, 7.0), (9.0, 4.0)])
def test_counters_that_tell_no_number_of_batches_are_not_trusted(start: float, end: float) -> None:
    model = _images()
    before, after, _ = _train(model)
    pair = _recounted(before, start, torch.float64), _recounted(after, end, torch.float64)
    found, notes = _recover(model, *pair)
    assert found == {}
    assert len(notes) == 1


def test_half_precision_counters_that_skip_numbers_are_not_trusted() -> None:
    model = _images()
    before, after, _ = _train(model, 10)

    def halved(state: State, count: int) -> State:
        kept = _recounted(state, count, torch.float32)
        return {name: value.half().float() for name, value in kept.items()}

    assert _recover(model, halved(before, 5000), halved(after, 5010), "float16")[0] == {}
    found, _ = _recover(model, halved(before, 500), halved(after, 510), "float16")
    assert len(found["1"].weights) == 10
    first, last = (
        _recounted(state, count, torch.int64) for state, count in ((before, 5000), (after, 5010))
    )
    assert len(_recover(model, first, last, "float16")[0]["1"].weights) == 10


def _buffers_of(state: State, source: State) -> State:
    """`state` with the running statistics and counters of `source`."""
    kept = ("running_mean", "running_var", COUNTER)
    return {name: source[name] if name.endswith(kept) else state[name] for name in state}


def _without_counters(state: State) -> State:
    return {name: value for name, value in state.items() if COUNTER not in name}


UNINFORMATIVE: dict[str, Callable[[State, State], tuple[State, State]]] = {
    "counters absent": lambda b, a: (_without_counters(b), _without_counters(a)),
    "counters untouched": lambda b, a: (b, {n: b[n] if COUNTER in n else v for n, v in a.items()}),
    "buffers copied back": lambda b, a: (b, _buffers_of(a, b)),
    "statistics copied back": lambda b, a: (
        b,
        {n: v if COUNTER in n else _buffers_of(a, b)[n] for n, v in a.items()},
    ),
}


@pytest.mark.parametrize("case", UNINFORMATIVE)
def test_buffers_that_tell_nothing_are_said_to(case: str) -> None:
    model = _warm(_images())
    before, after, _ = _train(model)
    assert _recover(model, before, after)[0]  # they tell, until
    found, notes = _recover(model, *UNINFORMATIVE[case](before, after))
    assert found == {}
    assert len(notes) == 1
    assert "BatchNorm" in notes[0]


def test_frozen_layers_tell_nothing() -> None:
    model = _warm(_images())
    model.eval()
    before, after, seen = _train(model)
    assert not seen["1"]
    found, notes = _recover(model, before, after)
    assert (found, len(notes)) == ({}, 1)


def test_a_layer_frozen_beside_others_is_left_out() -> None:
    model = _warm(_images())
    model.get_submodule("1").eval()
    before, after, seen = _train(model)
    found, notes = _recover(model, before, after)
    assert list(found) == ["5"]
    assert notes == ()
    _same(found["5"], seen["5"], 0.1, 1e-10)


def test_a_momentum_of_zero_tells_nothing() -> None:
    model = _images(momentum=0.0)
    before, after, _ = _train(model)
    assert after["1.num_batches_tracked"] == STEPS
    assert _recover(model, before, after)[0] == {}


@pytest.mark.parametrize(
    "model", [_images(track_running_stats=False), nn.Sequential(nn.Linear(2, 2))]
)
def test_without_running_statistics_there_is_nothing_to_say(model: nn.Module) -> None:
    state = copy_state(model)
    assert _recover(model, state, state) == ({}, ())


def test_statistics_of_another_start_are_not_believed() -> None:
    """The client's buffers did not begin at the global model's: its variance would be negative."""
    model = _warm(_images())
    before, after, _ = _train(model, 2)
    shifted = {n: 50 * v if "running_var" in n else v for n, v in before.items()}
    assert _recover(model, shifted, after)[0] == {}


def _rounded(state: State, kind: torch.dtype) -> State:
    return {n: v.to(kind).float() if v.is_floating_point() else v for n, v in state.items()}


NARROW = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("kappa", [0.1, 0.3])
@pytest.mark.parametrize("narrow", NARROW)
def test_the_rounding_covers_the_error_of_a_narrow_file(narrow: str, kappa: float) -> None:
    misses = []
    for seed in range(8):
        torch.manual_seed(seed)
        model = _warm(_images(momentum=kappa, two=False), seed % 3)
        with torch.no_grad():
            model.get_parameter("0.bias").add_(3 * torch.randn(4, dtype=torch.float64))
        before, after, seen = _train(model, 4)
        first, last = (_rounded(state, NARROW[narrow]) for state in (before, after))
        found = _recover(model, first, last, narrow)[0]["1"]
        misses.append((found.mean - _expected(seen["1"], kappa)[1]) / found.rounding)
    missed = torch.cat(misses)
    assert float(missed.abs().max()) < 3
    assert float(missed.square().mean().sqrt()) > 0.1  # and is no wild guess


def test_a_narrow_file_is_read_where_the_variance_is_lost_in_its_rounding() -> None:
    """Inputs about 0 that hardly vary, and an old variance of 1 that is rounded by more."""
    variances = []
    for seed in range(12):
        torch.manual_seed(seed)
        model = _images(two=False)
        with torch.no_grad():
            model.get_parameter("0.weight").mul_(1e-4)
            model.get_parameter("0.bias").mul_(1e-4)
        before, after, _ = _train(model, 1)
        before, after = (_rounded(state, torch.float16) for state in (before, after))
        found, _ = _recover(model, before, after, "float16")
        variances += [found["1"].variance] if "1" in found else []
    assert len(variances) == 12
    assert (torch.cat(variances) >= 0).all()


def test_the_wider_rounding_of_two_files_counts() -> None:
    model = _images()
    before, after, _ = _train(model)
    pair = CheckpointPair(_checkpoint(before, "float16"), _checkpoint(after, "bfloat16"))
    both, _ = recover(model, pair)
    assert torch.equal(
        both["1"].rounding, _recover(model, before, after, "bfloat16")[0]["1"].rounding
    )
    assert (both["1"].rounding > _recover(model, before, after, "float16")[0]["1"].rounding).all()


class Renaming(nn.Module):
    """A user's model that loads what another library saved: other names, under a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _images()
        self._register_load_state_dict_pre_hook(self._rename)  # type: ignore[no-untyped-call]

    def _rename(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        for name in [name for name in state if name.startswith("net.")]:
            state["body." + name[4:].replace("moving_", "running_")] = state.pop(name)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.body(images)
        return out


def test_names_in_the_file_may_be_others_than_in_the_model() -> None:
    model = _warm(Renaming())
    before, after, seen = _train(model)

    def saved(state: State) -> State:
        return {
            n.replace("body.", "net.").replace("running_", "moving_"): v for n, v in state.items()
        }

    found, _ = _recover(model, saved(before), saved(after))
    assert list(found) == ["body.1", "body.5"]
    _same(found["body.5"], seen["body.5"], 0.1, 1e-10)


def test_the_files_are_left_as_they_were() -> None:
    model = _warm(_images())
    before, after, _ = _train(model)
    copies = [{n: v.clone() for n, v in state.items()} for state in (before, after)]
    _recover(model, before, after)
    for state, copy in zip((before, after), copies, strict=True):
        assert all(torch.equal(state[name], copy[name]) for name in copy)
