"""DP-SGD (Abadi et al. 2016) through Opacus: per-sample clipping, noise, and ε."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rlu_cli.errors import UsageError, printable
from rlu_cli.simulator.defences import Defence

Model = Callable[[Tensor], Tensor]


def require_opacus() -> None:
    """Raises UsageError E107 if the optional package is not installed."""
    if find_spec("opacus") is None:
        raise UsageError(
            "E107",
            "--dp-noise needs the package opacus",
            hint='pip install "rlu-cli[dp]"',
        )


def require_private(model: nn.Module) -> None:
    """Raises UsageError E106 for a model without per-sample gradients."""
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise UsageError(
            "E106",
            "DP-SGD cannot train a model with BatchNorm",
            why="BatchNorm mixes the samples of a batch, so there are no per-sample gradients",
            hint="use GroupNorm, for named models that have it: --model-arg norm=group",
        )
    from opacus import GradSampleModule

    errors = GradSampleModule.validate(model, strict=False)
    if errors:
        raise UsageError(
            "E106",
            "DP-SGD cannot train this model",
            why="; ".join(printable(error) for error in errors),
            hint="use another model, such as --model lenet5 or --model vgg16 with "
            "--model-arg norm=group",
        )


@contextmanager
def private_batches(
    model: nn.Module, parameters: Sequence[nn.Parameter], defence: Defence
) -> Iterator[tuple[Model, Callable[[int], Sequence[Tensor]]]]:
    """Yields the model to call, and a function: batch size → private mean gradient.

    The function is called after the backward pass. Batches keep their fixed sizes; noise comes from
    torch's random state.
    """
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    observed = GradSampleModule(model)
    observed.train()
    optimiser = DPOptimizer(
        torch.optim.SGD(parameters, lr=1.0),  # never steps; used only for clipping and noise
        noise_multiplier=defence.dp_noise,
        max_grad_norm=defence.dp_clip,
        expected_batch_size=1,
    )

    def private(batch_size: int) -> Sequence[Tensor]:
        optimiser.expected_batch_size = batch_size
        optimiser.pre_step()
        gradients = [parameter.grad for parameter in parameters]
        optimiser.zero_grad(set_to_none=True)
        return [g for g in gradients if g is not None]

    try:
        yield observed, private
    finally:
        optimiser.zero_grad(set_to_none=True)
        observed.remove_hooks()


def epsilon(noise: float, batch_sizes: Sequence[int], samples: int, delta: float) -> float:
    """ε of (ε, δ)-differential privacy after steps of these batch sizes (Rényi accountant).

    The accountant assumes, as is usual, that every batch is drawn independently, each sample with
    probability |B| / n; shuffled batches of fixed size approximate this.
    """
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    sizes = Counter(batch_sizes)
    accountant.history = [(noise, min(1.0, b / samples), steps) for b, steps in sizes.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # orders at the end of its range: the bound still holds
        return float(accountant.get_epsilon(delta=delta))
