"""Defences: as much noise as asked, exactly the share that is sent, DP-SGD's clipping and noise."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import contents, read, simulate, with_batch_norm
from torch import Tensor, nn

from rlu_cli.errors import UsageError
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.simulator import private
from rlu_cli.simulator.client import copy_state, seeded, train_client
from rlu_cli.simulator.defences import Defence, send_largest
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.pool import Holding
from rlu_cli.simulator.private import epsilon, private_batches, require_opacus

PLAN = Plan(lr=0.1, batch_size=16)


def _model() -> nn.Module:
    with seeded((0,), torch.device("cpu")):
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.Tanh(), nn.Linear(8, 10))


def _sent(plan: Plan, seed: int = 0) -> Tensor:
    images, labels = draw_digits(4, seed=1)
    sent = train_client(
        _model(), images, labels, plan, classes=10, normalise=PRESETS["half"], seed=(0, seed)
    )
    state = sent.state
    return torch.cat([value.flatten() for value in state.values()])


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(("on", "expected"), [("batch", 0.5), ("sample", 0.5 / math.sqrt(16))])
def test_each_steps_gradient_carries_the_noise(on: str, expected: float, steps: int) -> None:
    """A gradient that hardly depends on the weights: the rate is tiny, and the noise adds up."""
    plan = replace(PLAN, epochs=steps, lr=1e-5)
    clean, noisy = (
        _sent(replace(plan, defence=defence)).double()
        for defence in (Defence(), Defence(noise=0.5, noise_on=on))
    )
    noise = (noisy - clean) / plan.lr / math.sqrt(steps)
    assert float(noise.std()) == pytest.approx(expected, rel=0.03)
    assert abs(float(noise.mean())) < 5 * expected / math.sqrt(len(noise))


def test_noise_is_fresh_in_every_round_and_the_same_for_the_same_seed() -> None:
    plan = replace(PLAN, defence=Defence(noise=0.1))
    assert torch.equal(_sent(plan), _sent(plan))
    assert not torch.equal(_sent(plan), _sent(plan, seed=1))


def test_clipping_bounds_every_steps_move() -> None:
    start = torch.cat([value.flatten() for value in copy_state(_model()).values()])
    for limit in (1e-3, 0.1):
        plan = replace(PLAN, local=Local(clip=limit))
        moved = float((_sent(plan).double() - start.double()).norm())
        assert moved == pytest.approx(plan.lr * limit, rel=1e-3)


@pytest.mark.parametrize("share", [1e-9, 0.01, 0.3, 1.0])
def test_exactly_the_share_is_sent_and_it_is_the_largest(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((30, 7), (30,), (4, 5, 6))
    start, end = ([torch.randn(s, generator=generator) for s in shapes] for _ in range(2))
    sent = send_largest(start, end, share)
    update = torch.cat([(e - s).flatten() for s, e in zip(start, end, strict=True)]).abs()
    kept = torch.cat([(v == e).flatten() for v, e in zip(sent, end, strict=True)])
    still = torch.cat([(v == s).flatten() for v, s in zip(sent, start, strict=True)])
    assert int(kept.sum()) == max(1, round(share * 360))
    assert torch.equal(kept, ~still)
    assert float(update[kept].min()) >= float(update[~kept].max() if (~kept).any() else 0)


def test_equal_updates_do_not_make_it_more() -> None:
    sent = send_largest([torch.zeros(10)], [torch.ones(10)], 0.3)
    assert int(sent[0].sum()) == 3


def test_a_client_sends_part_of_its_parameters_and_all_of_its_buffers(
    tmp_path: Path, holding: Holding
) -> None:
    plan = Plan(clients=2, alpha=5.0, batch_size=8, epochs=3, seed=1)
    sparse = replace(plan, defence=Defence(topk=0.1))
    simulate(tmp_path / "whole", holding, plan)
    simulate(tmp_path / "part", holding, sparse)
    start = read(tmp_path / "part" / "r000" / "global.pt")
    part, whole = (read(tmp_path / name / "r000" / "c1.pt") for name in ("part", "whole"))
    names = [name for name, _ in with_batch_norm().named_parameters()]
    changed = sum(int((part[name] != start[name]).sum()) for name in names)
    assert changed == round(0.1 * sum(start[name].numel() for name in names))
    for name in set(start) - set(names):
        assert torch.equal(part[name], whole[name])


def test_without_opacus_dp_sgd_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="opacus") as caught:
        require_opacus()
    assert caught.value.code == "E107"


def _with_group_norm() -> nn.Module:
    layers = (nn.Conv2d(3, 4, 5, stride=4), nn.GroupNorm(2, 4), nn.ReLU(), nn.Dropout(0.2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(196, 10))


def test_dp_sgd_clips_each_sample() -> None:
    pytest.importorskip("opacus")
    model = _model()
    parameters = list(model.parameters())
    images, labels = draw_digits(1, seed=1)
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    targets = torch.tensor(labels)
    bound = 0.5
    expected = [torch.zeros_like(p) for p in parameters]
    for at in range(10):
        loss = nn.functional.cross_entropy(model(pixels[at : at + 1]), targets[at : at + 1])
        gradients = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        for total, gradient in zip(expected, gradients, strict=True):
            total.add_(gradient, alpha=min(1.0, bound / norm) / 10)
    with private_batches(model, parameters, Defence(dp_noise=1e-12, dp_clip=bound)) as (watch, dp):
        loss = nn.functional.cross_entropy(watch(pixels.requires_grad_()), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        found = dp(10)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def test_dp_sgd_adds_its_noise_to_the_sum() -> None:
    """σ C / |B| on each coordinate of the mean."""
    pytest.importorskip("opacus")
    clean, noisy = (
        _sent(replace(PLAN, defence=Defence(dp_noise=sigma, dp_clip=0.5))).double()
        for sigma in (1e-9, 4.0)
    )
    noise = (noisy - clean) / PLAN.lr
    assert float(noise.std()) == pytest.approx(4.0 * 0.5 / 16, rel=0.03)


def test_epsilon_falls_with_noise_and_grows_with_steps() -> None:
    pytest.importorskip("opacus")
    base = epsilon(1.0, [32] * 10, 500, 1 / 500)
    assert epsilon(2.0, [32] * 10, 500, 1 / 500) < base < epsilon(1.0, [32] * 20, 500, 1 / 500)
    assert base < epsilon(1.0, [64] * 10, 500, 1 / 500)
    assert epsilon(1.0, [32] * 9 + [20], 500, 1 / 500) < base


def test_dp_sgd_runs_resumes_and_records_epsilon(tmp_path: Path, holding: Holding) -> None:
    pytest.importorskip("opacus")
    plan = Plan(
        clients=3,
        alpha=5.0,
        batch_size=8,
        rounds=2,
        epochs=2,
        local=Local("scaffold", samples=19),
        defence=Defence(dp_noise=1.0, dp_clip=1.0),
    )
    simulate(tmp_path / "whole", holding, plan, factory=_with_group_norm)
    simulate(tmp_path / "run", holding, replace(plan, rounds=1), factory=_with_group_norm)
    simulate(tmp_path / "run", holding, plan, factory=_with_group_norm)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    rows = json.loads((tmp_path / "run" / "run.json").read_text())["privacy"]
    sizes = [8, 8, 3] * 4
    expected = pytest.approx(epsilon(1.0, sizes, 19, 1 / 19))
    assert [(row["rounds"], row["epsilon"]) for row in rows] == [(2, expected)] * 3


def test_dp_sgd_refuses_batch_norm_and_says_what_to_take(tmp_path: Path, holding: Holding) -> None:
    plan = Plan(clients=2, batch_size=8, defence=Defence(dp_noise=1.0, dp_clip=1.0))
    with pytest.raises(UsageError, match="BatchNorm") as caught:
        simulate(tmp_path, holding, plan)
    assert caught.value.code == "E106"
    assert "norm=group" in caught.value.hint
