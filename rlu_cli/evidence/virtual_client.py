"""Virtual clients: the federation's own local training, on auxiliary images with known labels.

They start from the checkpoint under study and train as the client did, whatever its optimiser. What
a scheme's memory adds to every gradient (Scaffold, FedDyn, FedDC) and an old momentum buffer are
not theirs: compare with `evidence.learned`, where both are removed.
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
from torch.nn import functional

from rlu_cli.checkpoints import read_head
from rlu_cli.errors import InputError, printable
from rlu_cli.evidence.forward import ForwardConfig, seeded_dropout
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
    """Δθ + h of the output layer, of N virtual clients that hold one class each.

    Number c trains on the images of class c alone, in an order that `view.seed` shuffles, anew
    whenever they run out; h is what weight decay does by itself. A head without a bias stays so.

    auxiliary  labelled images, at least one of each class
    training   the client's; with a batch size nobody told, `view.batch`

    BatchNorm in training mode sees batches of one class, whose statistics are not those of the
    client's mixed batches: the columns are then further from additive.

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
    """Positions of the images of each step, all of one class, in as many as the client had."""
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
    """Parameters and buffers, on the CPU, that a client with these batches would hand in.

    model    takes the checkpoint's weights, trains, and is left with the checkpoint's weights
    batches  for each step, positions among the auxiliary images; one may come more than once
    view     training mode or not, scaling, device, and the seed of dropout

    Raises InputError E207 when the training diverges, E215 when the model cannot be trained.
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
    """Steps on mean cross-entropy, one batch each (Eq. 5)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    take_step = descent(training.optimizer, parameters, training.recursion, betas=training.betas)
    with output_logits(model, config.layer) as seen:
        for index, batch in enumerate(batches):
            rows = torch.from_numpy(batch)
            images = config.normalise(auxiliary.images[rows].to(config.device))
            targets = auxiliary.labels[rows].to(config.device)
            model(images)
            loss = functional.cross_entropy(seen.pop(), targets, label_smoothing=training.smoothing)
            gradients = torch.autograd.grad(
                loss, parameters, allow_unused=True, materialize_grads=True
            )
            take_step(index, _clipped(gradients, training.clip))
    _require_finite(parameters)


def _clipped(gradients: Sequence[Tensor], limit: float | None) -> Sequence[Tensor]:
    return gradients if limit is None else clip_to_norm(gradients, limit)


@contextmanager
def output_logits(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """A list in which every pass leaves its logits (B, N), read at the output layer whatever the
    model makes of them then; take them out before the next.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[:] = [output.flatten(1)]

    hook = model.get_submodule(layer).register_forward_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()


def _require_finite(parameters: Sequence[Tensor]) -> None:
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise InputError(
            "E207",
            "the training of a virtual client diverged: its weights are not finite",
            why="it takes the client's steps on auxiliary images, from the global checkpoint",
            hint="check --lr, --optimizer and --normalize, or leave out the methods that train "
            "virtual clients (`rlu methods`)",
        )


def _cannot_train(problem: Exception) -> InputError:
    if isinstance(problem, torch.cuda.OutOfMemoryError):
        why, hint = "the device ran out of memory", "use --device cpu"
    else:
        why = printable(f"{type(problem).__name__}: {problem}", 300)
        hint = "leave out the methods that train virtual clients (`rlu methods`)"
    return InputError("E215", "a virtual client cannot train this model", why=why, hint=hint)
