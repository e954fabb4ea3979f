"""Every scheme on real clients: what they send obeys the weighted identity, and what the server
makes of it is the scheme's own rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import read, simulate
from torch import Tensor, nn

from rlu_cli.case.round_history import read_history
from rlu_cli.checkpoints import open_checkpoint
from rlu_cli.schemes import derived_server_value, offset_weights, step_weights
from rlu_cli.simulator import one_round
from rlu_cli.simulator.client import LocalRound, State, train_client
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.pool import Holding

LAST = 2
CLIENTS = 3
BASE = Plan(clients=CLIENTS, alpha=5.0, lr=0.05, batch_size=8, epochs=3, rounds=LAST + 1, seed=1)
EVERYTHING: dict[str, Any] = {
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.1,
    "lr_schedule": "step:2:0.5",
}
LOCALS = {
    "sgd": Local(),
    "nesterov": Local(momentum=0.5, nesterov=True, weight_decay=0.1),
    "fedprox": Local("fedprox", pull=5.0, momentum=0.9),
    "scaffold": Local("scaffold"),
    "scaffold-all": Local("scaffold", **EVERYTHING),
    "feddyn": Local("feddyn", pull=0.5),
    "feddyn-all": Local("feddyn", pull=0.5, **EVERYTHING),
    "feddc": Local("feddc", pull=0.5),
    "feddc-all": Local("feddc", pull=0.5, **EVERYTHING),
    "short-batch": Local("scaffold", momentum=0.5, samples=19),
    "smoothing": Local("feddyn", pull=0.5, label_smoothing=0.2),
}


@dataclass(frozen=True)
class Ran:
    """A finished run.

    seen  (round, client) → Σ of softmax rows of each step's forward pass, m rows of (N,)
    """

    path: Path
    plan: Plan
    seen: dict[tuple[int, int], list[Tensor]]


def _double() -> nn.Module:
    layers = (nn.Conv2d(3, 4, 5, stride=4), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(196, 10)).double()


def _single() -> nn.Module:
    return _double().float()


def _run(path: Path, holding: Holding, plan: Plan, factory: Callable[[], nn.Module]) -> Ran:
    """Simulate, keeping the probabilities of the very forward passes that were trained on."""
    seen: dict[tuple[int, int], list[Tensor]] = {}

    def watched(model: nn.Module, *given: Any, seed: tuple[int, ...], **more: Any) -> LocalRound:
        rows = seen.setdefault((seed[2], seed[3]), [])
        hook = model.register_forward_hook(
            lambda _m, _i, logits: rows.append(logits.detach().double().softmax(1).sum(0))
        )
        done = train_client(model, *given, seed=seed, **more)
        hook.remove()
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_round, "train_client", watched)
        simulate(path, holding, plan, factory=factory)
    return Ran(path, plan, seen)


def _residual(ran: Ran, number: int, client: int) -> float:
    """How far a client's (Δb + h)/η + Σ w P/|B| is from Σ w N/|B|, in the worst class."""
    recursion, here = ran.plan.recursion, ran.path / f"r{number:03d}"
    start, end = (read(here / name) for name in ("global.pt", f"c{client}.pt"))
    before, after = (state["5.bias"].double() for state in (start, end))
    weights = step_weights(recursion)[-1]
    coefficients = offset_weights(recursion)[-1].tolist()
    drift = before * coefficients[0]
    constant = _constant(ran, number, client)
    if constant is not None:
        drift = drift + constant * coefficients[1]
    truth = json.loads((here / f"c{client}.truth.json").read_text())
    labels = torch.tensor(truth["per_step"], dtype=torch.float64)
    epsilon = ran.plan.local.label_smoothing
    wanted = (1 - epsilon) * labels + epsilon / 10 * labels.sum(1, keepdim=True)
    sizes = labels.sum(1, keepdim=True)
    gap = (wanted - torch.stack(ran.seen[number, client])) / sizes
    left = (after - before + drift) / recursion.lr[0]
    return float((left - (weights[:, None] * gap).sum(0)).abs().max())


def _constant(ran: Ran, number: int, client: int) -> Tensor | None:
    """What the scheme added to every gradient, as an attacker derives it from the files."""
    here = ran.path / f"r{number:03d}"
    history = read_history(
        ran.path,
        here / f"c{client}.pt",
        open_checkpoint(here / "global.pt"),
        "5",
        rate=ran.plan.recursion.rate,
        needs_server=ran.plan.local.scheme == "scaffold",
        max_bytes=2**30,
    )
    rate = ran.plan.recursion.rate
    constant = ran.plan.rule.constant(history.past, rate, history.server)
    return None if constant is None else constant.bias.double()


@pytest.mark.parametrize("drawn", [None, 2], ids=["full", "partial"])
@pytest.mark.parametrize("name", LOCALS)
def test_what_every_client_sends_obeys_the_weighted_identity(
    tmp_path: Path, holding: Holding, name: str, drawn: int | None
) -> None:
    plan = replace(BASE, local=LOCALS[name], sample_clients=drawn)
    ran = _run(tmp_path, holding, plan, _double)
    played = [(t, k) for t in range(LAST + 1) for k in plan.drawn(t)]
    assert len(played) == len(ran.seen)
    assert max(_residual(ran, *one) for one in played) < 1e-12


@pytest.mark.parametrize("name", ["sgd", "fedprox", "scaffold-all", "feddyn", "feddc-all"])
def test_single_precision_keeps_the_identity_to_its_own_rounding(
    tmp_path: Path, holding: Holding, name: str
) -> None:
    plan = replace(BASE, local=LOCALS[name], sample_clients=3)
    ran = _run(tmp_path, holding, plan, _single)
    assert max(_residual(ran, LAST, client) for client in plan.drawn(LAST)) < 1e-5


def test_the_identity_would_notice_a_forgotten_round(tmp_path: Path, holding: Holding) -> None:
    plan = replace(BASE, local=LOCALS["feddyn"])
    ran = _run(tmp_path, holding, plan, _double)
    without = replace(ran, plan=replace(plan, local=Local("fedprox", pull=0.5)))
    assert _residual(without, LAST, 0) > 1e-4


def _flat(state: State) -> Tensor:
    """All parameters of `_double` as one vector."""
    return torch.cat([v.flatten() for n, v in state.items() if n.split(".")[1] in _PARAMETERS])


_PARAMETERS = ("weight", "bias")


def _files(ran: Ran, number: int) -> tuple[Tensor, dict[int, Tensor], Tensor]:
    here = ran.path / f"r{number:03d}"
    sent = {k: _flat(read(here / f"c{k}.pt")) for k in ran.plan.drawn(number)}
    following = ran.path / f"r{number + 1:03d}" / "global.pt"
    return _flat(read(here / "global.pt")), sent, _flat(read(following))


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(0)


def _averaged(ran: Ran) -> None:
    for number in range(LAST + 1):
        _, sent, following = _files(ran, number)
        torch.testing.assert_close(following, _mean(list(sent.values())), rtol=0, atol=1e-13)


def _scaffold(ran: Ran) -> None:
    """Algorithm 1 of Karimireddy et al., option II, on the files' vectors."""
    _averaged(ran)
    server, rate = torch.zeros(()), ran.plan.recursion.rate
    own = dict.fromkeys(range(CLIENTS), torch.zeros(()))
    for number in range(LAST + 1):
        start, sent, _ = _files(ran, number)
        renewed = {k: own[k] - server + (start - end) / rate for k, end in sent.items()}
        server = server + sum((renewed[k] - own[k] for k in sent), torch.zeros(())) / CLIENTS
        own.update(renewed)
        written = _flat(read(ran.path / f"r{number + 1:03d}" / "server.pt"))
        torch.testing.assert_close(written, server, rtol=0, atol=1e-11)


def _feddyn(ran: Ran) -> None:
    """Algorithm 1 of Acar et al."""
    state, pull = torch.zeros(()), ran.plan.local.pull
    for number in range(LAST + 1):
        start, sent, following = _files(ran, number)
        state = state - pull / CLIENTS * sum(
            (end - start for end in sent.values()), torch.zeros(())
        )
        expected = _mean(list(sent.values())) - state / pull
        torch.testing.assert_close(following, expected, rtol=0, atol=1e-12)


def _feddc(ran: Ran) -> None:
    """Algorithm 1 of Gao et al.: the mean of what was sent, each with its drift so far."""
    drift = dict.fromkeys(range(CLIENTS), torch.zeros(()))
    for number in range(LAST + 1):
        start, sent, following = _files(ran, number)
        for client, end in sent.items():
            drift[client] = drift[client] + end - start
        expected = _mean([end + drift[k] for k, end in sent.items()])
        torch.testing.assert_close(following, expected, rtol=0, atol=1e-12)


RULES = {
    "fedprox": _averaged,
    "scaffold-all": _scaffold,
    "feddyn": _feddyn,
    "feddc": _feddc,
}


@pytest.mark.parametrize("drawn", [None, 2], ids=["full", "partial"])
@pytest.mark.parametrize("name", RULES)
def test_the_server_follows_the_schemes_rule(
    tmp_path: Path, holding: Holding, name: str, drawn: int | None
) -> None:
    plan = replace(BASE, local=LOCALS[name], sample_clients=drawn)
    RULES[name](_run(tmp_path, holding, plan, _double))


def test_server_files_are_there_from_round_1_on_where_the_server_remembers(
    tmp_path: Path, holding: Holding
) -> None:
    for name in ("sgd", "fedprox", "scaffold", "feddyn", "feddc"):
        local = LOCALS[name]
        plan = replace(BASE, local=local, rounds=2, epochs=1)
        simulate(tmp_path / name, holding, plan)
        written = sorted(p.parent.name for p in (tmp_path / name).glob("r*/server.pt"))
        assert written == (["r001", "r002"] if local.scheme in ("scaffold", "feddyn") else [])


def test_scaffolds_server_value_is_the_derived_one_when_all_take_part(
    tmp_path: Path, holding: Holding
) -> None:
    ran = _run(tmp_path, holding, replace(BASE, local=LOCALS["scaffold"]), _double)
    for number in range(LAST + 1):
        start, _, following = _files(ran, number)
        derived = derived_server_value(start, following, ran.plan.recursion.rate)
        written = _flat(read(ran.path / f"r{number + 1:03d}" / "server.pt"))
        torch.testing.assert_close(written, derived, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "feddc"])
def test_buffers_are_averaged_plainly_whatever_the_scheme(
    tmp_path: Path, holding: Holding, name: str
) -> None:
    ran = _run(tmp_path, holding, replace(BASE, local=LOCALS[name], rounds=2), _double)
    sent = [read(ran.path / "r001" / f"c{k}.pt") for k in range(CLIENTS)]
    following = read(ran.path / "r002" / "global.pt")
    mean = _mean([state["1.running_var"] for state in sent])
    torch.testing.assert_close(following["1.running_var"], mean, rtol=0, atol=1e-14)
    assert int(following["1.num_batches_tracked"]) == 2 * BASE.epochs


def test_a_parameter_of_two_names_stays_one(tmp_path: Path, holding: Holding) -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10), nn.Linear(10, 10))
        model.append(nn.Linear(10, 10))
        model[3].weight = model[2].weight
        return model.double()

    ran = _run(tmp_path, holding, replace(BASE, local=LOCALS["scaffold"], rounds=3), tied)
    for file in ran.path.glob("r*/*.pt"):
        state = read(file)
        assert torch.equal(state["2.weight"], state["3.weight"])
