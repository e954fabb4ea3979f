"""A case and a model → `Evidence`: evaluate both checkpoints, assemble what every method sees."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from torch import nn

from rlu_cli.case.build import Case
from rlu_cli.checkpoints import layer_parts
from rlu_cli.evidence.forward import (
    DEFAULT_BATCH,
    ForwardConfig,
    OutputsCache,
    choose_device,
    fingerprint,
    outputs,
    trains_differently,
    with_bias,
)
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.schemes import offset_weights, step_weights
from rlu_cli.types import Checkpoint, Evidence, GradientFreeOffset, Head, Outputs


def forward_config(case: Case, model: nn.Module) -> ForwardConfig:
    """The forward config of both models, without input scaling, which is still to be selected."""
    mode = case.value("mode")
    return ForwardConfig(
        layer=case.layer,
        normalise=PRESETS["none"],
        training=trains_differently(model) if mode == "auto" else bool(mode == "train"),
        batch=case.value("batch_size") or DEFAULT_BATCH,
        device=choose_device(case.value("device")),
        seed=case.value("seed"),
        rectified=case.rectified,
    )


def gradient_free_offset(case: Case) -> GradientFreeOffset | None:
    """The part of the output layer's update that does not come from the round's gradients.

    It comes from weight decay, the scheme's memory and an old momentum buffer; None for none.
    """
    recursion, history = case.training.recursion, case.history
    constant = case.training.rule.constant(history.past, recursion.rate, history.server)
    heads = (case.pair.heads[0] if recursion.decay else None, constant, case.velocity)
    moving = {column: head for column, head in enumerate(heads) if head is not None}
    if not moving:
        return None
    return GradientFreeOffset(offset_weights(recursion)[:, list(moving)], tuple(moving.values()))


def evaluate_ends(
    case: Case, model: nn.Module, config: ForwardConfig, cache: OutputsCache, architecture: Hashable
) -> tuple[Outputs, Outputs]:
    """Outputs of the global and of the client's model; the former are cached in `cache`.

    architecture  identifies the architecture of `model` in the cache key
    """

    def evaluate(checkpoint: Checkpoint) -> Outputs:
        return outputs(model, checkpoint.state, case.auxiliary, config, checkpoint.path)

    before, after = case.pair
    key = (before.sha256, architecture, config, fingerprint(case.auxiliary))
    return cache.get(key, lambda: evaluate(before)), evaluate(after)


def assemble(
    case: Case, offset: GradientFreeOffset | None, ends: tuple[Outputs, Outputs]
) -> Evidence:
    """The evidence for every method, without observations.

    offset  result of `gradient_free_offset`
    ends    outputs of the global and of the client's model
    """
    (before, after), training, update = ends, case.training, case.pair.update
    if offset is not None:
        # Where the bias update is derived from the weights, its offset is derived the same way.
        heads = (h if update.bias is not None else replace(h, bias=None) for h in offset.directions)
        directions = tuple(with_bias(head, before, after) for head in heads)
        offset = replace(offset, directions=directions)
    return Evidence(
        update=with_bias(update, before, after),
        weights=step_weights(training.recursion),
        offset=offset,
        batch_sizes=training.plan.batch_sizes,
        lr=training.recursion.lr[0],
        before=before,
        after=after,
        origin=_origin(case),
        biased=update.bias is not None,
        smoothing=training.smoothing,
        passes=training.plan.passes if training.plan.whole else 1,
        lr_known=training.lr_known,
        linear=training.nonlinear is None,
    )


def _origin(case: Case) -> Head:
    """The output layer of the global model; of k layers whose mean is the logits, their bias."""
    head = case.pair.heads[0]
    count = len(layer_parts(case.layer))
    return head if head.bias is None else replace(head, bias=head.bias / count)
