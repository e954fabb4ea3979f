"""What the client sent: its weights, the difference from the global model, or a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from rlu_cli.checkpoints.names import is_buffer
from rlu_cli.checkpoints.pair import CheckpointPair
from rlu_cli.checkpoints.unwrap import DELTAS, GRADIENTS

State = Mapping[str, Tensor]

WEIGHTS, DELTA, MINUS_DELTA, GRADIENT = "weights", "delta", "minus-delta", "gradient"
AUTO = "auto"
GRADIENT_RATE = 1e-2  # of the step a gradient is turned into, where no other is given

# kind: (global tensor, sent tensor, Σ of the steps' rates) → the client's tensor
KINDS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    WEIGHTS: lambda origin, sent, rate: sent,
    DELTA: lambda origin, sent, rate: origin + sent,
    MINUS_DELTA: lambda origin, sent, rate: origin - sent,
    GRADIENT: lambda origin, sent, rate: origin - rate * sent,
}

_NAMED = {  # keys under which programs send them
    **dict.fromkeys(DELTAS, DELTA),
    **dict.fromkeys(GRADIENTS, GRADIENT),
}
_SHORT = 0.35  # length of the sent tensors over the global's, below which they are no weights
_NEAR = 0.5  # projection of the sent weights on the global's, from which they are nearer to them
_BALANCED, _UNBALANCED = 1e-3, 1e-2  # share of a layer's weights left by the sum over its outputs
_SLACK = 1.1  # over the largest update that a learning rate allows
_LARGEST = 2.0  # Σ_j |p_j - y_j| of one example, at most


def recognise_kind(pair: CheckpointPair, rate: float | None) -> tuple[str, str]:
    """Weights, delta or gradient, and what shows it.

    Weights lie nearer to the global model's than to zero. What does not, and is short beside them
    (or sums to zero over the classes, as updates of a softmax layer do, where the global model's
    weights do not), is an update. An update is a gradient if it is larger than a client can move at
    its learning rate, Σ_j |Δb_j| ≤ 2 Σ_τ η_τ, or if no rate is given and it is no larger than a
    gradient may be and pulls its largest entry down; else a delta.

    rate  Σ_τ η_τ of the round; None if it is not known
    """
    before, after = pair
    named = next((_NAMED[key] for key in after.wrappers if key in _NAMED), None)
    if named is not None:
        return named, "the name it is saved under"
    why = _is_update(before.state, after.state)
    if why is None:
        return WEIGHTS, "nearer to the global model than to zero"
    return (GRADIENT if _is_gradient(before.state, after.state, rate) else DELTA), why


def as_weights(pair: CheckpointPair, kind: str, rate: float) -> CheckpointPair:
    """The pair with the client's weights in place of what it sent, in float64 where it is added.

    rate  Σ_τ η_τ, by which a gradient is multiplied

    BatchNorm buffers are differences under a delta, unless their variances show them to be values.
    """
    if kind == WEIGHTS:
        return pair
    before, after = pair
    differ = kind in (DELTA, MINUS_DELTA) and _buffers_are_differences(before.state, after.state)
    state = {
        name: tensor
        if name not in before.state or (is_buffer(name, tensor) and not differ)
        else _moved(kind, before.state[name], tensor, rate)
        for name, tensor in after.state.items()
    }
    return replace(pair, after=replace(after, state=state))


def _moved(kind: str, origin: Tensor, sent: Tensor, rate: float) -> Tensor:
    if not origin.is_floating_point():
        return KINDS[kind](origin, sent, rate).round().to(origin.dtype)
    return KINDS[kind](origin.double(), sent.double(), rate)


def _is_update(origin: State, sent: State) -> str | None:
    """What shows that the tensors sent are no weights; None if they are."""
    shared = _shared(origin, sent)
    length = math.sqrt(sum(_dot(origin[name], origin[name]) for name in shared))
    if not length:
        return None
    if _negative_variance(sent):
        return "negative variances"
    ratio = math.sqrt(sum(_dot(sent[name], sent[name]) for name in shared)) / length
    if sum(_dot(origin[name], sent[name]) for name in shared) >= _NEAR * length**2:
        return None
    if ratio < _SHORT:
        return f"its length is {ratio:.2%} of the global model's"
    balanced = (_sum_left(sent[n]) < _BALANCED and _sum_left(origin[n]) > _UNBALANCED
                for n in shared if origin[n].dim() == 2)  # fmt: skip
    return "its output layer sums to zero over the classes" if any(balanced) else None


def _is_gradient(origin: State, sent: State, rate: float | None) -> bool:
    """Whether an update is a gradient rather than a difference of weights."""
    head = _bias_of_head(origin, sent)
    if head is None:
        return False
    size = float(head.abs().sum())
    if rate is not None:
        return size > _SLACK * _LARGEST * rate
    return size <= _SLACK * _LARGEST and float(head.max() + head.min()) < 0


def _bias_of_head(origin: State, sent: State) -> Tensor | None:
    """The last bias that sums to zero: that of a softmax layer."""
    found = [
        tensor.double()
        for name, tensor in sent.items()
        if name in origin
        and tensor.dim() == 1
        and tensor.numel() > 1
        and not is_buffer(name, tensor)
        and float(tensor.abs().sum()) > 0
        and _sum_left(tensor[:, None]) < _BALANCED
    ]
    return found[-1] if found else None


def _buffers_are_differences(origin: State, sent: State) -> bool:
    """Whether the running variances sent are nearer to zero than to those of the global model."""
    names = [n for n in sent if n.endswith("running_var") and n in origin]
    if not names or _negative_variance(sent):
        return True
    apart = sum(_dot(sent[n] - origin[n], sent[n] - origin[n]) for n in names)
    return apart > sum(_dot(sent[n], sent[n]) for n in names)


def _negative_variance(sent: State) -> bool:
    return any(n.endswith("running_var") and bool((t < 0).any()) for n, t in sent.items())


def _shared(origin: State, sent: State) -> list[str]:
    """Weights of layers in both files, of the same shape."""
    return [
        name
        for name, tensor in sent.items()
        if tensor.dim() > 1
        and tensor.is_floating_point()
        and name in origin
        and origin[name].shape == tensor.shape
    ]


def _dot(one: Tensor, other: Tensor) -> float:
    return float(one.double().flatten() @ other.double().flatten())


def _sum_left(tensor: Tensor) -> float:
    """Σ_l |Σ_n t_nl| / Σ |t_nl| of (N, L): 0 where every column sums to zero."""
    total = float(tensor.double().abs().sum())
    return float(tensor.double().sum(0).abs().sum()) / total if total else 1.0
