"""The generalisation gap: auxiliary images weighted until they look as well learned as is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlu_cli.evidence.forward import ForwardConfig
from rlu_cli.evidence.generalization_gap import generalization_gap
from rlu_cli.evidence.virtual_population import take
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.simulator.client import copy_state
from rlu_cli.types import Auxiliary, Checkpoint

CONFIG = ForwardConfig(
    "fc", PRESETS["none"], training=True, batch=5, device=torch.device("cpu"), seed=3
)
CLASSES = 4


class _Sure(nn.Module):
    """Its logits are the pixels of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CLASSES, CLASSES, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(images.flatten(1))  # type: ignore[no-any-return]


def _seen(count: int = 400) -> tuple[Auxiliary, Tensor, Tensor]:
    """Images, their p_y, and whether they are classified right; about 60 % are."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    logits = torch.randn(count, CLASSES, generator=generator)
    logits += 1.2 * nn.functional.one_hot(labels, CLASSES)
    own = torch.softmax(logits.double(), 1).gather(1, labels[:, None])[:, 0]
    names = tuple(map(str, range(CLASSES)))
    images = Auxiliary(logits[:, None, None, :], labels, names, "test", "0" * 64)
    return images, own, logits.argmax(1) == labels


def _likeness(auxiliary: Auxiliary, **given: float | None) -> Tensor | None:
    model = _Sure()
    given = {"accuracy": None, "loss": None, **given}
    gap = generalization_gap(
        model,
        Checkpoint(Path("global.pt"), "0" * 64, "torch-zip", copy_state(model)),
        auxiliary,
        CONFIG,
        accuracy=given["accuracy"],
        loss=given["loss"],
    )
    return None if gap is None else gap.likeness


@pytest.mark.parametrize("accuracy", [0.7, 0.9, 0.99])
def test_images_weighted_by_their_likeness_are_as_well_classified_as_given(accuracy: float) -> None:
    auxiliary, own, right = _seen()
    weights = _likeness(auxiliary, accuracy=accuracy)
    assert float(right.double().mean()) < 0.65
    assert weights is not None
    assert float((weights * right).sum() / weights.sum()) == pytest.approx(accuracy, abs=1e-4)
    # One power of p_y for all images, in their own order.
    exponent = weights.log() / own.log()
    torch.testing.assert_close(exponent, exponent[:1].expand(len(own)), rtol=1e-4, atol=1e-4)
    assert float(exponent[0]) > 0


@pytest.mark.parametrize("loss", [0.8, 0.4, 0.1])
def test_images_weighted_by_their_likeness_have_the_loss_that_is_given(loss: float) -> None:
    auxiliary, own, _ = _seen()
    weights = _likeness(auxiliary, loss=loss)
    assert float(-own.log().mean()) > 0.9
    assert weights is not None
    assert float(-(weights * own.log()).sum() / weights.sum()) == pytest.approx(loss, abs=1e-4)


def test_a_loss_beside_an_accuracy_is_not_looked_at() -> None:
    auxiliary, _, _ = _seen()
    both, alone = _likeness(auxiliary, accuracy=0.8, loss=0.01), _likeness(auxiliary, accuracy=0.8)
    assert both is not None
    assert alone is not None
    assert torch.equal(both, alone)


@pytest.mark.parametrize("given", [{}, {"accuracy": 0.5}, {"loss": 2.0}], ids=str)
def test_nothing_is_weighted_where_the_images_are_learned_well_already(
    given: dict[str, float],
) -> None:
    assert _likeness(_seen()[0], **given) is None


def test_an_accuracy_out_of_reach_gives_finite_weights() -> None:
    auxiliary, _, right = _seen()
    wrong = take(auxiliary, np.flatnonzero(~right.numpy()))
    weights = _likeness(wrong, accuracy=0.9)
    assert weights is not None
    assert bool(torch.isfinite(weights).all())
    assert float(weights.sum()) > 0
