"""Virtual clients: the client's local training, run on auxiliary images with known labels.

They start from the global checkpoint and use the client's optimiser. They have neither a scheme's
memory (Scaffold, FedDyn, FedDC) nor an old momentum buffer: compare with `evidence.learned`, which
excludes both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlu_cli.checkpoints import read_head
from rlu_cli.errors import InputError, printable
from rlu_cli.evidence.forward import ForwardConfig, seeded_dropout
from rlu_cli.evidence.logit_hooks import watch_output_layer
from rlu_cli.local_training.batch_order import draw_batches
from rlu_cli.local_training.description import LocalTraining
from rlu_cli.models import load_weights
from rlu_cli.schemes import offset_weights
from rlu_cli.schemes.descent import clip_to_norm, descent
from rlu_cli.types import Auxiliary, Checkpoint, Head

Batches = Sequence[NDArray[np.int64]]


def class_updates(
    model: nn.Module,
    checkpoint: Checkpoint,
    auxiliary: Auxiliary,
    training: LocalTraining,
    config: ForwardConfig,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Head]:
    """Δθ + h of the output layer for N virtual clients that hold one class each.

    Client c trains only on images of class c. Their order is shuffled with `config.seed`, and again
    whenever they run out. h is the offset by weight decay. The bias is None for a layer without.

    auxiliary  labelled images, at least one per class
    training   the client's local training; `config.batch` replaces a missing batch size
    progress   progress callback

    In training mode, BatchNorm sees batches of one class, whose statistics differ from those of the
    client's mixed batches. The updates are then further from additive.

    Raises InputError E207 and E215 as `train_virtual` does.
    """
    origin = read_head(checkpoint.state, config.layer)
    decayed = origin * float(offset_weights(training.recursion)[-1, 0])
    updates = []
    for label in range(auxiliary.classes):
        progress(f"training virtual client {label + 1} of {auxiliary.classes}")
        batches = _batches_of_class(label, auxiliary, training, config)
        end = train_virtual(model, checkpoint, auxiliary, batches, training, config)
        updates.append(read_head(end, config.layer) - origin + decayed)
    return updates


def _batches_of_class(
    label: int, auxiliary: Auxiliary, training: LocalTraining, config: ForwardConfig
) -> list[NDArray[np.int64]]:
    """Image positions of each step's batch, all of one class, in the client's batch sizes."""
    plan = training.plan
    if plan.batch_sizes is None:
        plan = replace(plan, batch_sizes=(config.batch,) * plan.steps)
    own = np.flatnonzero(auxiliary.labels.numpy() == label)
    rng = np.random.default_rng((config.seed, label))
    return [own[batch] for batch in draw_batches(len(own), plan, rng)]


def train_virtual(
    model: nn.Module,
    checkpoint: Checkpoint,
    auxiliary: Auxiliary,
    batches: Batches,
    training: LocalTraining,
    config: ForwardConfig,
) -> dict[str, Tensor]:
    """The state dict, on the CPU, that a client with these batches would send.

    model    loaded with the checkpoint's weights before and after training
    batches  for each step, positions among the auxiliary images; repetitions are allowed
    config   mode, input scaling, device and seed of dropout

    Raises InputError E207 if training diverges, E215 if the model cannot be trained.
    """
    load_weights(model, checkpoint.state, path=checkpoint.path)
    model.to(config.device).train(config.training)
    try:
        # What a user's own model prints must not end up in the report.
        with redirect_stdout(sys.stderr), seeded_dropout(model, config):
            _take_steps(model, auxiliary, batches, training, config)
        return {name: v.detach().cpu().clone() for name, v in model.state_dict().items()}
    except InputError:
        raise
    except Exception as problem:  # whatever the user's own code raises
        raise _cannot_train(problem) from problem
    finally:
        load_weights(model, checkpoint.state, path=checkpoint.path)


def _take_steps(
    model: nn.Module,
    auxiliary: Auxiliary,
    batches: Batches,
    training: LocalTraining,
    config: ForwardConfig,
) -> None:
    """Take one step on the mean cross-entropy of each batch (Eq. 5)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    take_step = descent(training.optimizer, parameters, training.recursion, betas=training.betas)
    with output_logits(model, config) as logits:
        for index, batch in enumerate(batches):
            rows = torch.from_numpy(batch)
            images = config.normalise(auxiliary.images[rows].to(config.device))
            targets = auxiliary.labels[rows].to(config.device)
            model(images)
            loss = training.loss(logits(), targets)
            gradients = torch.autograd.grad(
                loss, parameters, allow_unused=True, materialize_grads=True
            )
            take_step(index, _clipped(gradients, training.clip))
    _require_finite(parameters)


def _clipped(gradients: Sequence[Tensor], limit: float | None) -> Sequence[Tensor]:
    return gradients if limit is None else clip_to_norm(gradients, limit)


@contextmanager
def output_logits(model: nn.Module, config: ForwardConfig) -> Iterator[Callable[[], Tensor]]:
    """Yields a function that takes the logits (B, N) of the last pass, captured at the layer."""
    with watch_output_layer(model, config.layer, rectified=config.rectified) as passes:

        def taken() -> Tensor:
            logits = passes[-1].logits
            passes.clear()
            return logits

        yield taken


def _require_finite(parameters: Sequence[Tensor]) -> None:
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise InputError(
            "E207",
            "the training of a virtual client diverged: its weights are not finite",
            why="it trains as the client did, from the global checkpoint on auxiliary images",
            hint="check --lr, --optimizer and --normalize, or omit the methods that train "
            "virtual clients (`rlu methods`)",
        )


def _cannot_train(problem: Exception) -> InputError:
    if isinstance(problem, torch.cuda.OutOfMemoryError):
        why, hint = "the device ran out of memory", "use --device cpu"
    else:
        why = printable(f"{type(problem).__name__}: {problem}", 300)
        hint = "omit the methods that train virtual clients (`rlu methods`)"
    return InputError("E215", "a virtual client cannot train this model", why=why, hint=hint)
