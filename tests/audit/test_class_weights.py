"""Shares of weighted labels → those of the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_case import MOVED, case_of, recovered

from rlu_cli.audit.attack import attack
from rlu_cli.audit.class_weights import without_weights
from rlu_cli.case.build import build_case
from rlu_cli.errors import UsageError
from rlu_cli.models import build_model
from rlu_cli.models.input_scaling import parse_normalisation
from rlu_cli.settings.layers import ARGUMENT, flag_layer
from rlu_cli.simulator.client import copy_state, seeded, train_client
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.types import Auxiliary

WEIGHTS = (1.0, 0.5, 4.0)


def test_weights_are_divided_out() -> None:
    true = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    weighted = true * torch.tensor(WEIGHTS, dtype=torch.float64)
    found = without_weights(recovered((weighted / weighted.sum()).tolist()), WEIGHTS, 10)
    torch.testing.assert_close(found.shares, true)


def test_covariances_follow_by_the_jacobian() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 0.3, 0.2])
    errors = rng.normal(0, 1e-3, (20_000, 3))
    errors -= errors.mean(1, keepdims=True)
    covariance = torch.from_numpy(np.cov(errors.T))
    plain = recovered(shares.tolist())
    from dataclasses import replace

    plain = replace(plain, covariance=covariance)
    found = without_weights(plain, WEIGHTS, None)
    drawn = (shares + errors) / np.array(WEIGHTS)
    drawn /= drawn.sum(1, keepdims=True)
    assert found.covariance is not None
    np.testing.assert_allclose(found.covariance.numpy(), np.cov(drawn.T), rtol=0.05, atol=1e-9)


def test_as_many_weights_as_classes() -> None:
    case = case_of(class_weights=WEIGHTS)
    states = [dict(checkpoint.state) for checkpoint in case.pair]
    flags = flag_layer({"lr": 0.1, "epochs": 1, "class_weights": (1.0, 2.0)}, ARGUMENT)
    with pytest.raises(UsageError) as caught:
        build_case(states[0], states[1], case.auxiliary, flags)
    assert caught.value.code == "E101"
    assert MOVED.bias is not None


def test_a_client_with_class_weights_is_recovered() -> None:
    """One step of an untrained model: exact but for the auxiliary images."""
    images, labels = draw_digits(60, 1)
    counts = np.array([20, 0, 4, 0, 8, 16, 0, 0, 12, 4])
    own = np.concatenate([np.flatnonzero(labels == n)[:c] for n, c in enumerate(counts)])
    weights = tuple(float(w) for w in np.linspace(0.5, 3, 10))
    with seeded((5,), torch.device("cpu")):
        net = build_model("lenet5", arguments={"act": "relu"}, classes=10)
    start = copy_state(net)
    plan = Plan(lr=0.05, batch_size=64, epochs=1, local=Local(class_weights=weights))
    scaling = parse_normalisation("half")
    sent = train_client(
        net, images[own], labels[own], plan, classes=10, normalise=scaling, seed=(1,)
    )
    kept = np.arange(len(labels)) % 60 >= 20
    pixels = torch.from_numpy(images[kept]).permute(0, 3, 1, 2).float() / 255
    names = tuple(map(str, range(10)))
    auxiliary = Auxiliary(
        pixels.contiguous(), torch.from_numpy(labels[kept]), names, str(Path("digits.npz")), ""
    )
    settings = {"model": "lenet5", "model_args": {"act": "relu"}, "normalize": "half"}
    settings |= {"lr": 0.05, "epochs": 1, "batch_size": 64, "device": "cpu"}

    def found(**more: object) -> np.ndarray:
        flags = flag_layer({**settings, **more}, ARGUMENT)
        finding = attack(build_case(start, sent.state, auxiliary, flags), ("rlu",))
        recovery = finding.first.recovery
        assert recovery is not None
        assert recovery.counts is not None
        return np.minimum(recovery.counts.numpy(), counts).sum() / 64

    assert found(class_weights=weights) > 0.95
    assert found() < 0.9
