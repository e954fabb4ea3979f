"""Another image size as the explanation: the network is right more often on resized images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from rlu_cli.audit.explanations import inputs
from rlu_cli.audit.explanations.inputs import image_size
from rlu_cli.audit.explanations.trial import Trial
from rlu_cli.types import Auxiliary


def trial(right: float) -> Trial:
    """A hundred images, that part of them classified right."""
    return Trial(torch.arange(100) < 100 * right, 0.9, 0.9, 1.0)


@pytest.fixture
def clues(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trained network that is right on 30 % of its images of 16 pixels, and 90 % at 32."""
    images = torch.rand(100, 3, 16, 16)
    auxiliary = Auxiliary(images, torch.arange(10).repeat(10), tuple("abcdefghij"), "test", "")

    def tried(model: Any, checkpoint: Any, config: Any, sample: Auxiliary, scaling: Any) -> Trial:
        return trial(0.9 if sample.images.shape[-1] == 32 else 0.2)

    monkeypatch.setattr(inputs, "try_images", tried)
    monkeypatch.setattr(inputs, "takes_any_size", lambda clues: True)
    return SimpleNamespace(
        labelled=True,
        learned=1.0,
        auxiliary=auxiliary,
        trial=trial(0.3),
        setting=(nn.Identity(), None, None),
        config=SimpleNamespace(normalise=None),
        evidence=SimpleNamespace(classes=10),
    )


def test_a_network_trained_on_larger_images_says_so(clues: Any) -> None:
    found = image_size(clues)
    assert found is not None
    assert found.name == "image size"
    assert found.gain == pytest.approx(60)  # (b - c)² / (b + c) with b = 60, c = 0
    assert "32" in found.advice


def test_an_untrained_network_says_nothing(clues: Any) -> None:
    clues.learned = 0.0
    assert image_size(clues) is None


def test_noise_images_have_no_size(clues: Any) -> None:
    clues.labelled = False
    assert image_size(clues) is None


def test_a_network_that_cannot_take_other_sizes_says_nothing(
    clues: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "try_images", lambda *_: None)
    assert image_size(clues) is None
    monkeypatch.setattr(inputs, "takes_any_size", lambda _: False)
    assert image_size(clues) is None
    clues.trial = None
    assert image_size(clues) is None


def test_a_size_at_which_it_is_hardly_right_is_no_explanation(
    clues: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "try_images", lambda *_: trial(0.11))
    clues.trial = trial(0.0)
    assert image_size(clues) is None
