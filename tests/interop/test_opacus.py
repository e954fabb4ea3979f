"""A client that trains with DP-SGD through Opacus: its file is read, and its counts are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import rlu_cli
from rlu_cli.models import build_model
from rlu_cli.simulator.client import seeded
from rlu_cli.simulator.digits import draw_digits

opacus = pytest.importorskip("opacus", reason="Opacus is not installed")

COUNTS = (40, 0, 8, 24, 0, 16, 0, 32, 4, 4)
BATCH, RATE = 32, 0.05

pytestmark = pytest.mark.filterwarnings("ignore")  # Opacus' own


def folder_with(path: Path, noise: float) -> Path:
    """The global model, the client's after one private pass, and the server's images."""
    images, labels = draw_digits(80, 3)
    own = np.concatenate([np.flatnonzero(labels == n)[:c] for n, c in enumerate(COUNTS)])
    served = np.concatenate([np.flatnonzero(labels == n)[-40:] for n in range(10)])
    np.savez(
        path / "aux.npz",
        images=images[served],
        labels=labels[served],
        class_names=np.array([str(n) for n in range(10)]),
    )
    with seeded((4,), torch.device("cpu")):
        model = build_model("lenet5", arguments={"act": "relu"}, classes=10)
        torch.save(model.state_dict(), path / "global.pt")
        pixels = torch.from_numpy(images[own]).permute(0, 3, 1, 2).float() / 255 * 2 - 1
        loader = DataLoader(
            TensorDataset(pixels, torch.from_numpy(labels[own])), batch_size=BATCH, shuffle=True
        )
        private, optimizer, loader = opacus.PrivacyEngine().make_private(
            module=model.train(),
            optimizer=torch.optim.SGD(model.parameters(), lr=RATE),
            data_loader=loader,
            noise_multiplier=noise,
            max_grad_norm=1e3,
            poisson_sampling=False,
        )
        for batch, target in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(private(batch), target).backward()
            optimizer.step()
        torch.save(private.state_dict(), path / "client.pt")  # under Opacus' own names
    return path


def attacked(folder: Path) -> rlu_cli.Finding:
    return rlu_cli.attack(
        folder / "global.pt",
        folder / "client.pt",
        folder / "aux.npz",
        lr=RATE,
        epochs=1,
        samples=sum(COUNTS),
        batch_size=BATCH,
        normalize="half",
        device="cpu",
        effort="quick",
    )


def iacc(finding: rlu_cli.Finding) -> float:
    assert finding.counts is not None
    return sum(map(min, finding.counts.values(), COUNTS)) / sum(COUNTS)


def test_without_noise_the_counts_are_found(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, noise=0.0)
    assert all(name.startswith("_module.") for name in torch.load(folder / "client.pt"))
    finding = attacked(folder)
    assert iacc(finding) > 0.98
    assert finding.verdict.level == "reliable"


def test_noise_that_hides_them_is_seen_in_the_expected_accuracy(tmp_path: Path) -> None:
    """1e3 × 0.02 / 32 on every entry of the mean gradient, whose entries are below 1."""
    finding = attacked(folder_with(tmp_path, noise=0.02))
    assert finding.expected_iacc is not None
    assert finding.expected_iacc[0] < 0.8
    assert finding.verdict.level == "unreliable"
    assert "noise was added" in str(finding.verdict.cause)
    assert iacc(finding) < 0.9
