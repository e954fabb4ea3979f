"""Whatever a client sent, and under whatever names, the counts are those of its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_case import COUNTS, SAMPLE, State, sample_states
from torch import Tensor, nn

import rlu_cli
from rlu_cli.api.finding import Finding
from rlu_cli.errors import InputError
from rlu_cli.models import build_model
from rlu_cli.simulator.digits import draw_digits

TOLD: dict[str, Any] = {"epochs": 10, "lr": 0.01, "batch_size": 32, "normalize": "half"}
TOLD |= {"draws": 500, "method": "rlu", "device": "cpu", "classes": [*map(str, range(10))]}
ACT = {"act": "relu"}


def found(before: Any, after: Any, **settings: Any) -> Finding:
    told = {**TOLD, "model": "lenet5", "model_args": ACT, **settings}
    told = {name: value for name, value in told.items() if value is not None}
    return rlu_cli.attack(before, after, SAMPLE / "aux", **told)


def kind(finding: Finding) -> tuple[Any, str]:
    setting = finding.case_finding.settings["update_kind"]
    return setting.value, setting.source


def counted(finding: Finding) -> list[int]:
    assert finding.counts is not None
    return list(finding.counts.values())


def noted(finding: Finding, *words: str) -> bool:
    return any(all(w in line for w in words) for line in finding.case_finding.assumptions)


def difference(before: State, after: State) -> State:
    return {name: after[name] - before[name] for name in before}


pytestmark = pytest.mark.usefixtures("work")

# What was sent


def test_weights_are_weights() -> None:
    finding = found(*sample_states())
    assert counted(finding) == COUNTS
    assert kind(finding)[0] == "weights"


@pytest.mark.parametrize("told", ["auto", "delta"])
def test_a_delta_is_read_right(told: str) -> None:
    before, after = sample_states()
    finding = found(before, difference(before, after), update_kind=told)
    assert counted(finding) == COUNTS
    assert kind(finding)[0] == "delta"
    assert noted(finding, "sent a delta", "client minus global")
    assert finding.case_finding.explanation is None


def test_a_reversed_delta_is_read_when_it_is_named() -> None:
    before, after = sample_states()
    finding = found(before, difference(after, before), update_kind="minus-delta")
    assert counted(finding) == COUNTS


def gradient_of(counts: list[int], build: Callable[[], nn.Module]) -> tuple[State, State]:
    """A model's state, and its gradient on a batch with these labels, in training mode."""
    torch.manual_seed(4)
    model = build().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pixels, labels = draw_digits(max(counts), seed=5)
    shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    classes = torch.from_numpy(labels)
    index = torch.cat([torch.nonzero(classes == n)[:c, 0] for n, c in enumerate(counts)])
    loss = nn.functional.cross_entropy(model(shown[index]), classes[index])
    loss.backward()  # type: ignore[no-untyped-call]
    return before, {name: p.grad.detach() for name, p in model.named_parameters()
                    if p.grad is not None}  # fmt: skip


ONE_STEP = [5, 0, 9, 1, 0, 0, 12, 3, 2, 0]


def test_a_reversed_delta_is_noticed() -> None:
    before, gradient = gradient_of(ONE_STEP, lambda: build_model("lenet5", arguments=ACT))
    sent = {name: 0.05 * g for name, g in gradient.items()}
    told = {"epochs": 1, "lr": 0.05}
    explanation = found(before, sent, **told).case_finding.explanation
    assert explanation is not None
    assert "minus-delta" in explanation.advice
    assert counted(found(before, sent, **told, update_kind="minus-delta")) == ONE_STEP


@pytest.mark.parametrize("untold", [{"lr": None, "epochs": None}, {"epochs": 1}, {"lr": 0.3}])
def test_a_gradient_needs_neither_rate_nor_steps(untold: dict[str, Any]) -> None:
    before, gradient = gradient_of(ONE_STEP, lambda: build_model("lenet5", arguments=ACT))
    finding = found(before, gradient, **{"lr": None, "epochs": None, **untold})
    assert kind(finding)[0] == "gradient"
    assert counted(finding) == ONE_STEP


def test_a_gradient_under_its_own_name() -> None:
    before, gradient = gradient_of(ONE_STEP, lambda: build_model("lenet5", arguments=ACT))
    finding = found(before, {"gradients": gradient}, epochs=1)
    assert kind(finding) == ("gradient", "told from the numbers: the name it is saved under")
    assert counted(finding) == ONE_STEP


def test_a_gradient_in_the_order_of_the_parameters() -> None:
    before, gradient = gradient_of(ONE_STEP, lambda: build_model("lenet5", arguments=ACT))
    numbered = {str(n): tensor for n, tensor in enumerate(gradient.values())}
    assert counted(found(before, numbered, epochs=1)) == ONE_STEP


# What was left out

VGG = {"act": "relu", "width": 0.125, "hidden": 32, "dropout": 0.0}


def vgg_round(lr: float = 0.01) -> tuple[State, State]:
    """One step of a small VGG-16 with BatchNorm."""
    model = build_model("vgg16", arguments=VGG)
    before, gradient = gradient_of(ONE_STEP, lambda: model)
    after = dict(model.state_dict())
    return before, {**after, **{name: before[name] - lr * g for name, g in gradient.items()}}


def buffers(state: State) -> set[str]:
    ends = ("running_mean", "running_var", "num_batches_tracked")
    return {name for name in state if name.endswith(ends)}


def of_vgg(before: State, after: State, **more: Any) -> Finding:
    return found(before, after, model="vgg16", model_args=VGG, epochs=1, **more)


def test_parameters_without_buffers() -> None:
    before, after = vgg_round()
    bare = {name: t for name, t in after.items() if name not in buffers(after)}
    finding = of_vgg(before, bare)
    assert counted(finding) == counted(of_vgg(before, after)) == ONE_STEP
    assert noted(finding, "buffers were not sent")
    assert finding.case_finding.diagnostics["batchnorm_steps"] is None
    assert "W304" not in {warning.code for warning in finding.case_finding.warnings}
    other = {name: t for name, t in before.items() if name not in buffers(before)}
    assert counted(of_vgg(other, after)) == ONE_STEP


@pytest.mark.parametrize("values", [True, False])
def test_a_delta_of_a_model_with_buffers(values: bool) -> None:
    """Counters and statistics may be differences too, or the client's values."""
    before, after = vgg_round()
    sent = difference(before, after)
    sent |= {name: after[name] for name in buffers(after)} if values else {}
    finding = of_vgg(before, sent)
    assert counted(finding) == ONE_STEP
    assert kind(finding)[0] == "delta"
    assert finding.case_finding.diagnostics["batchnorm_steps"] == 1


def test_buffers_that_were_never_synchronised_count_no_steps() -> None:
    before, after = vgg_round()
    norms = [n.removesuffix("running_mean") for n in before if n.endswith("running_mean")]
    scale = {f"{n}weight": torch.full_like(before[f"{n}weight"], 1.01) for n in norms}
    shift = {name: scale[name] - before[name] for name in scale}
    moved = {name: after[name] + shift[name] for name in scale}
    counters = {n: torch.tensor(300) for n in before if n.endswith("num_batches_tracked")}
    finding = of_vgg({**before, **scale}, {**after, **moved, **counters})
    assert noted(finding, "not synchronised")
    assert finding.case_finding.diagnostics["batchnorm_steps"] is None


def head_of(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if name.startswith("fc3.")}


def test_the_output_layer_alone() -> None:
    before, after = sample_states()
    frozen = {**before, **head_of(after)}
    finding = found(before, head_of(after))
    assert counted(finding) == counted(found(before, frozen))
    assert noted(finding, "sent 2 of 10 parameters")


def test_the_update_of_the_output_layer_alone() -> None:
    before, after = sample_states()
    finding = found(before, head_of(difference(before, after)))
    assert kind(finding)[0] == "delta"
    assert counted(finding) == counted(found(before, {**before, **head_of(after)}))


def refused(before: State, after: State) -> InputError:
    with pytest.raises(InputError) as caught:
        found(before, after)
    return caught.value


def test_a_body_without_the_output_layer_is_refused_as_such() -> None:
    before, after = sample_states()
    error = refused(before, {n: t for n, t in after.items() if n not in head_of(after)})
    assert error.code == "E214"
    assert "fc3" in error.message
    assert "FedPer" in error.hint


def test_half_a_layer_is_no_layer() -> None:
    before, after = sample_states()
    del after["conv1.bias"]
    assert refused(before, after).code == "E212"


# Under which names

WRAPPED: dict[str, Callable[[str], str]] = {
    "model.": lambda name: f"model.{name}",
    "student.": lambda name: f"student.{name}",
    "model._orig_mod.": lambda name: f"model._orig_mod.{name}",
    "within": lambda name: name.replace("conv1.", "conv1._orig_mod."),
    "fsdp": lambda name: f"net._fsdp_wrapped_module.{name}",
}


@pytest.mark.parametrize("form", list(WRAPPED))
@pytest.mark.parametrize("side", [0, 1])
def test_one_side_has_a_prefix(form: str, side: int) -> None:
    states = list(sample_states())
    states[side] = {WRAPPED[form](name): tensor for name, tensor in states[side].items()}
    finding = found(*states)
    assert counted(finding) == COUNTS
    assert noted(finding, "names" if form != "within" else "matched")


@pytest.mark.parametrize("form", list(WRAPPED))
def test_both_sides_have_a_prefix(form: str) -> None:
    states = [{WRAPPED[form](n): t for n, t in state.items()} for state in sample_states()]
    assert counted(found(*states)) == COUNTS


def test_a_student_beside_its_teacher() -> None:
    before, after = sample_states()
    sent = {f"teacher.{name}": tensor for name, tensor in before.items()}
    sent |= {f"student.{name}": tensor for name, tensor in after.items()}
    finding = found(before, sent)
    assert counted(finding) == COUNTS
    assert noted(finding, "ignored", "teacher.conv1.weight")


BESIDE = {"crit.weight": torch.ones(10), "n_averaged": torch.tensor(3)}


@pytest.mark.parametrize("sides", [(0,), (1,), (0, 1)])
def test_what_a_trainer_keeps_beside_the_model_is_listed(
    sides: tuple[int, ...],
) -> None:
    states = list(sample_states())
    for side in sides:
        states[side] = {**BESIDE, **states[side]}
    for model in ("lenet5", None):
        finding = found(*states, model=model)
        assert counted(finding) == COUNTS
        assert noted(finding, "ignored", "crit.weight", "n_averaged")


def test_a_layer_that_the_model_lacks_is_not_ignored() -> None:
    states = [{"conv3.weight": torch.ones(4, 16, 3, 3), **state} for state in sample_states()]
    assert refused(*states).code == "E215"


def adapted(state: State, raw: bool) -> State:
    """As PEFT saves a model with an adapter on fc2 and a head trained in full."""
    low: dict[str, Tensor] = {"A": torch.ones(4, 120), "B": torch.zeros(84, 4)}
    if not raw:
        sent = {f"base_model.model.{name}": t for name, t in head_of(state).items()}
        return sent | {f"base_model.model.fc2.lora_{k}.weight": t for k, t in low.items()}
    sent = {f"base_model.model.{n}".replace("fc2.", "fc2.base_layer."): t for n, t in state.items()}
    for name in head_of(state):
        value = sent.pop(f"base_model.model.{name}")
        part = name.partition(".")[2]
        sent[f"base_model.model.fc3.original_module.{part}"] = value + 1
        sent[f"base_model.model.fc3.modules_to_save.default.{part}"] = value
    return sent | {f"base_model.model.fc2.lora_{k}.default.weight": t for k, t in low.items()}


@pytest.mark.parametrize("raw", [True, False])
def test_a_head_that_an_adapter_trains_in_full(raw: bool) -> None:
    before, after = sample_states()
    frozen = {**before, **head_of(after)}
    finding = found(before, adapted(frozen, raw))
    assert counted(finding) == counted(found(before, frozen))
    assert noted(finding, "lora_A")


def test_files_and_states_in_memory_are_read_alike(work: Path) -> None:
    before, after = sample_states()
    torch.save({"model": before}, work / "g.pt")
    torch.save({"delta": difference(before, after)}, work / "c.pt")
    assert counted(found(work / "g.pt", work / "c.pt")) == COUNTS
