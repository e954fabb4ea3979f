"""Updates without names, in the order of the parameters: the counts are those of the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_case import COUNTS, State, sample_states
from test_sent import (
    ACT,
    ONE_STEP,
    VGG,
    counted,
    difference,
    found,
    gradient_of,
    kind,
    noted,
    of_vgg,
    vgg_round,
)

from rlu_cli.models import build_model

pytestmark = pytest.mark.usefixtures("work")


def _npz(state: State, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, *[tensor.numpy() for tensor in state.values()])


def _saved(wrap: Callable[[State], Any]) -> Callable[[State, Path], None]:
    return lambda state, path: torch.save(wrap(state), path)


def _vector(state: State) -> Any:
    return torch.cat([tensor.flatten() for tensor in state.values()])


FORMS: dict[str, Callable[[State, Path], None]] = {
    "list": _saved(lambda state: list(state.values())),
    "tuple": _saved(lambda state: tuple(state.values())),
    "numbered": _saved(lambda state: {str(n): t for n, t in enumerate(state.values())}),
    "vector": _saved(_vector),
    "npz": _npz,
}
UNTOLD: dict[str, Any] = {"lr": None, "epochs": None}
form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module")
def gradient() -> tuple[State, State]:
    return gradient_of(ONE_STEP, lambda: build_model("lenet5", arguments=ACT))


@form
@pytest.mark.parametrize("told", ["auto", "gradient"])
def test_a_gradient(form: str, told: str, gradient: tuple[State, State], work: Path) -> None:
    before, sent = gradient
    FORMS[form](sent, work / "c")
    finding = found(before, work / "c", **UNTOLD, update_kind=told)
    assert kind(finding)[0] == "gradient"
    assert counted(finding) == ONE_STEP
    assert noted(finding, "client's file has no names")


@form
@pytest.mark.parametrize("told", ["auto", "delta", "minus-delta"])
def test_a_delta(form: str, told: str, work: Path) -> None:
    before, after = sample_states()
    ends = (after, before) if told == "minus-delta" else (before, after)
    FORMS[form](difference(*ends), work / "c")
    finding = found(before, work / "c", update_kind=told)
    assert kind(finding)[0] == ("delta" if told == "auto" else told)
    assert counted(finding) == COUNTS


@form
def test_weights(form: str, work: Path) -> None:
    before, after = sample_states()
    FORMS[form](after, work / "c")
    finding = found(before, work / "c")
    assert kind(finding)[0] == "weights"
    assert counted(finding) == COUNTS


@form
def test_neither_file_has_names(form: str, gradient: tuple[State, State], work: Path) -> None:
    for state, name in zip(gradient, "gc", strict=True):
        FORMS[form](state, work / name)
    for model in ("lenet5", None):
        assert counted(found(work / "g", work / "c", **UNTOLD, model=model)) == ONE_STEP


@pytest.mark.parametrize("form", ["list", "vector", "npz"])
@pytest.mark.parametrize("sent", ["gradient", "delta", "whole delta"])
def test_a_model_with_buffers(form: str, sent: str, work: Path) -> None:
    """Parameters alone, as `model.parameters()` lists them, or the whole state dict."""
    rate = 0.01
    before, after = vgg_round(rate)
    names = [name for name, _ in build_model("vgg16", arguments=VGG).named_parameters()]
    moved = {name: after[name] - before[name] for name in names}
    told: dict[str, Any] = {"lr": None} if sent == "gradient" else {}
    state: State = {
        "gradient": {name: tensor / -rate for name, tensor in moved.items()},
        "delta": moved,
        "whole delta": difference(before, after),
    }[sent]
    FORMS[form](state, work / "c")
    finding = of_vgg(before, work / "c", **told)
    assert kind(finding)[0] == sent.split()[-1]
    assert counted(finding) == ONE_STEP
    assert noted(finding, "buffers were not sent") == (sent != "whole delta")


@pytest.mark.parametrize("key", ["gradients", "grads"])
@pytest.mark.parametrize("listed", [True, False])
def test_under_its_own_name(
    key: str, listed: bool, gradient: tuple[State, State], work: Path
) -> None:
    before, sent = gradient
    value = list(sent.values()) if listed else _vector(sent)
    torch.save({"round": 3, key: value, "num_samples": 32}, work / "c")
    finding = found(before, work / "c", **UNTOLD)
    assert kind(finding) == ("gradient", "told from the numbers: the name it is saved under")
    assert counted(finding) == ONE_STEP


@form
def test_the_global_file_has_prefixes_and_a_loss(
    form: str, gradient: tuple[State, State], work: Path
) -> None:
    before, sent = gradient
    FORMS[form](sent, work / "c")
    kept = {"criterion.weight": torch.ones(10), "n_averaged": torch.tensor(3)}
    given = {**kept, **{f"net.{name}": tensor for name, tensor in before.items()}}
    finding = found(given, work / "c", **UNTOLD)
    assert counted(finding) == ONE_STEP
    assert noted(finding, "ignored", "criterion.weight")


def test_a_state_in_memory_is_numbered_as_a_file_is(gradient: tuple[State, State]) -> None:
    before, sent = gradient
    numbered = {str(n): tensor for n, tensor in enumerate(sent.values())}
    backwards = dict(reversed(numbered.items()))
    finding = found(before, backwards, **UNTOLD)
    assert counted(finding) == ONE_STEP
    assert noted(finding, "no names")
