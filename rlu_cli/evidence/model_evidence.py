"""What both checkpoints and the auxiliary images say for one model hypothesis.

Four witnesses, each a figure that is smallest under the true activation and input scaling:

- the share of the output layer's update that no mixture of the classes' gradients explains;
- the loss of both models on the auxiliary images, after a calibration of their logits;
- how far the BatchNorm buffers, which the true network made, lie from the images' statistics;
- units of the last hidden layer that never moved although they are active, or the reverse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rlu_cli.case.auxiliary import is_noise
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.evidence.batchnorm_statistics import norm_layers, recover
from rlu_cli.evidence.forward import ForwardConfig, mean_embedding, outputs, per_logit, with_bias
from rlu_cli.models import load_weights
from rlu_cli.numerics.dynamics import implied_embedding
from rlu_cli.numerics.output_means import class_means
from rlu_cli.numerics.simplex import cone
from rlu_cli.types import Auxiliary, Checkpoint, Head, Outputs

_MIXES = ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))  # weights of both ends of the round
_RIDGE = 1e-6  # relative, of a Gram matrix that may be singular
_STILL = 1e-5  # movement of a unit, over that of the median one, up to which it did not move
_INACTIVE = 1e-7  # size of an activation, over the mean one, up to which it is zero
_NEWTON_STEPS = 30
_HALVINGS = 20  # of a Newton step, until it is an improvement
_SLIP = 0.05  # probability that a unit moves or not for another reason
_DEAD = 1e-3  # of the median channel's variance: added to all, since some channels are constant
_UNMOVED = (0.0, 1.0)  # running mean and variance of a layer that has seen nothing

Moments = tuple[Tensor, Tensor]  # mean and variance (C,) of a layer's input, float64


@dataclass(frozen=True)
class ModelEvidence:
    """The witnesses under one hypothesis.

    cosine       between the embedding implied by the update and the images' mean embedding
    norm_ratio   norm of the implied embedding over that of the mean embedding
    unexplained  share of the squared update of the output layer left by the best mixture of
                 classes, in 0…1
    losses       (A,) calibrated cross-entropy of each image, mean of both models, nats; None for
                 noise images
    norms        (B,) of each BatchNorm layer: mean squared distance of buffers and images, in
                 standard deviations of the channel
    units        mean of log p over the units of the last hidden layer, p being the probability
                 that the unit moved if it did and that it did not otherwise
    confidence   (2, N, N) S[n, j] of both models; None for noise images
    embeddings   (2, N, L) class means of the embeddings of both models; None for noise images
    """

    cosine: float
    norm_ratio: float
    unexplained: float
    losses: Tensor | None
    norms: Tensor
    units: float
    confidence: Tensor | None = None
    embeddings: Tensor | None = None


def look_at(
    model: nn.Module,
    pair: CheckpointPair,
    update: Head,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    images: float,
) -> ModelEvidence:
    """Run both models on the auxiliary images, and see what speaks for the hypothesis.

    update  of the output layer, without the gradient-free offset
    images  distinct images the client trained on, about
    """
    (before, made_before), (after, made_after) = (
        _watched(model, checkpoint, auxiliary, config) for checkpoint in pair
    )
    update, noise = per_logit(update, before, after), is_noise(auxiliary)
    learned = with_bias(update, replace(before, gates=None), after)
    cosine, ratio = embedding_fit(learned, before, after)
    ends, classes = (before, after), auxiliary.classes
    return ModelEvidence(
        cosine=cosine,
        norm_ratio=ratio,
        unexplained=1 - cosine**2 if noise else unexplained(update, ends),
        losses=None if noise else (calibrated_losses(before) + calibrated_losses(after)) / 2,
        norms=torch.zeros(0) if noise else norm_distances(model, pair, made_before, made_after),
        units=unit_agreement(update.weight, ends, images),
        confidence=None if noise else _of_classes(ends, classes, probabilities=True),
        embeddings=None if noise else _of_classes(ends, classes, probabilities=False),
    )


def embedding_fit(update: Head, before: Outputs, after: Outputs) -> tuple[float, float]:
    """Cosine and norm ratio of the implied embedding to the images' mean embedding (Eq. 14)."""
    implied = implied_embedding(update).double()
    mean = mean_embedding(before, after).double()
    cosine = torch.nn.functional.cosine_similarity(implied, mean, dim=0)
    return float(cosine), float(implied.norm() / mean.norm())


def _of_classes(ends: Sequence[Outputs], classes: int, *, probabilities: bool) -> Tensor:
    """Class means (2, N, ·) of the probabilities, or of the embeddings, of both models."""
    labels = ends[0].labels.cpu()
    values = (one.probabilities if probabilities else one.embeddings.double() for one in ends)
    return torch.stack([class_means(value.cpu(), labels, classes) for value in values])


def unexplained(update: Head, ends: tuple[Outputs, Outputs]) -> float:
    """min_w ‖y - Σ_n w_n M_n‖² / ‖y‖² over amounts w ≥ 0 of the classes, in 0…1.

    y are weight and bias update of the output layer, the bias scaled to the same norm. M_n is the
    mean of (e_y - p) eᵀ (with the 1 of the bias) over the auxiliary images of class n, as of the
    global model, the client's or half of both, whichever explains most. The scale is free: the
    learning rate need not be known, nor the size of the generalisation gap. A layer without a bias
    has its weights alone.

    The gradients enter by their inner products only, (e_y - p)·(e_y - p)' × (e·e' + s²), so that
    no (N L, N) matrix is formed.
    """
    weight = update.weight.double().cpu()
    bias = torch.zeros(len(weight)).double() if update.bias is None else update.bias.double().cpu()
    if not float(weight.norm()) > 0:
        return 1.0
    scale = float(weight.norm() / bias.norm()) ** 2 if float(bias.norm()) > 0 else 0.0
    labels, classes = ends[0].labels.cpu(), len(bias)
    targets = torch.nn.functional.one_hot(labels, classes).double()
    errors = torch.cat([targets - one.probabilities for one in ends])  # (2 A, N)
    embeddings = torch.cat([one.embeddings.double().cpu() for one in ends])  # (2 A, L)
    kernel = (errors @ errors.T) * (embeddings @ embeddings.T + scale)
    along = ((errors @ weight) * embeddings).sum(1) + scale * (errors @ bias)
    share = (targets / targets.sum(0).clamp_min(1)).repeat(2, 1)  # (2 A, N)
    total = float(weight.norm()) ** 2 + scale * float(bias.norm()) ** 2
    left = []
    for mix in _MIXES:
        of_end = torch.tensor(mix, dtype=torch.float64).repeat_interleave(len(labels))
        member = share * of_end[:, None]
        left.append(_left_by_mixture(member.T @ kernel @ member, member.T @ along, total))
    return min(1.0, max(0.0, min(left)))


def _left_by_mixture(gram: Tensor, along: Tensor, total: float) -> float:
    """min_w (total - 2 w·along + wᵀ gram w) / total over w ≥ 0; 1 if unsolved."""
    ridge = _RIDGE * float(gram.diagonal().mean()) * torch.eye(len(gram), dtype=torch.float64)
    root, failed = torch.linalg.cholesky_ex(gram + ridge)
    if int(failed):
        return 1.0
    target = torch.linalg.solve_triangular(root, along[:, None], upper=False)[:, 0]
    amounts = cone(root.T, target)
    if amounts is None:
        return 1.0
    return float(total - 2 * amounts @ along + amounts @ gram @ amounts) / total


def calibrated_losses(found: Outputs) -> Tensor:
    """Cross-entropy of each image (A,), nats, after the best scale and shift of the logits.

    min_{a, b} Σ_i -log softmax(a l_i + b)[y_i] + ‖b‖²/2, a convex problem. The scale makes an
    overconfident model comparable with a cautious one, the shift a client's with another's: its
    model prefers its own classes.
    """
    labels = found.labels.cpu()
    logits = found.logits.double().cpu()
    logits = logits - logits.mean(0)
    logits = logits / logits.std().clamp_min(1e-12)
    targets = torch.nn.functional.one_hot(labels, logits.shape[1]).double()

    def losses(at: Tensor) -> Tensor:
        scores = at[0] * logits + at[1:]
        return scores.logsumexp(1) - (scores * targets).sum(1)

    def value(at: Tensor) -> float:
        return float(losses(at).sum() + (at[1:] @ at[1:]) / 2)

    found_at = torch.zeros(logits.shape[1] + 1, dtype=torch.float64)
    for _ in range(_NEWTON_STEPS):
        step, least = _newton_step(logits, targets, found_at), value(found_at)
        sizes = (0.5**halvings for halvings in range(_HALVINGS))
        size = next((one for one in sizes if value(found_at - one * step) < least), 0.0)
        if size == 0.0:
            break
        found_at = found_at - size * step
    return losses(found_at)


def _newton_step(logits: Tensor, targets: Tensor, at: Tensor) -> Tensor:
    """H⁻¹ g of `calibrated_losses` at (a, b), (N + 1,)."""
    probabilities = (at[0] * logits + at[1:]).softmax(1)
    errors, mean = probabilities - targets, (probabilities * logits).sum(1)
    gradient = torch.cat([(errors * logits).sum().view(1), errors.sum(0) + at[1:]])
    hessian = torch.eye(len(at), dtype=torch.float64)
    hessian[1:, 1:] += torch.diag(probabilities.sum(0)) - probabilities.T @ probabilities
    hessian[0, 0] += (probabilities * logits**2).sum() - mean @ mean
    hessian[0, 1:] = hessian[1:, 0] = (probabilities * (logits - mean[:, None])).sum(0)
    step: Tensor = torch.linalg.solve(hessian, gradient)
    return step


def norm_distances(
    model: nn.Module,
    pair: CheckpointPair,
    before: Mapping[str, Moments],
    after: Mapping[str, Moments],
) -> Tensor:
    """(B,) distance of every BatchNorm layer's buffers from what the auxiliary images give.

    Of the global model's buffers, unless they are as they were made; then of the client's own
    batches, recovered from both files, against the mean of both models.

    before, after  moments of the layers' inputs under the hypothesis
    """
    load_weights(model, pair.before.state, path=pair.before.path)
    buffers = {name: _buffers(module) for name, module in norm_layers(model).items()}
    used = {name: moments for name, moments in buffers.items() if not _is_initial(moments)}
    if used:
        return _distances(used, before)
    recovered, _ = recover(model, pair)
    halfway = {
        name: ((before[name][0] + after[name][0]) / 2, (before[name][1] + after[name][1]) / 2)
        for name in recovered
        if name in before and name in after
    }
    return _distances({n: (one.mean, one.variance) for n, one in recovered.items()}, halfway)


def _buffers(layer: nn.Module) -> Moments:
    """Running mean and variance (C,)."""
    mean, variance = layer.running_mean, layer.running_var
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    return mean.double().cpu(), variance.double().cpu()


def _is_initial(moments: Moments) -> bool:
    return all(bool((m == value).all()) for m, value in zip(moments, _UNMOVED, strict=True))


def _distances(buffers: Mapping[str, Moments], images: Mapping[str, Moments]) -> Tensor:
    """Mean over channels of (Δ mean)² / variance + (½ log ratio of variances)², per layer."""
    found = []
    for name, (mean, variance) in buffers.items():
        if name not in images:
            continue
        shown, spread = images[name]
        constant = _DEAD * spread.median().clamp_min(1e-30)
        spread, variance = spread + constant, variance + constant
        found.append(((mean - shown) ** 2 / spread + ((variance / spread).log() / 2) ** 2).mean())
    return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)


def unit_agreement(weight: Tensor, ends: Sequence[Outputs], images: float) -> float:
    """Mean over the units of the last hidden layer of log p(moved or not).

    The column of a unit that is zero for every image of the client has an update of exactly zero,
    under any optimiser, and rectifiers only have such units. If k of A auxiliary images activate
    the unit, one of the client's does with probability q = (k + ½)/(A + 1), and it moves with
    1 - (1 - q)^d for d images.

    weight  (N, L) update of the output layer, without the gradient-free offset
    images  d
    """
    size = weight.double().cpu().abs().amax(0)
    moved = size > _STILL * float(size.median())
    values = torch.cat([one.embeddings.double().cpu().abs() for one in ends])
    active = (values > _INACTIVE * float(values.mean())).double().mean(0)
    count = len(values) / len(ends)
    chance = (active * count + 0.5) / (count + 1)
    moving = _SLIP + (1 - 2 * _SLIP) * (1 - (1 - chance) ** images)
    return float(torch.where(moved, moving, 1 - moving).log().mean())


def _watched(
    model: nn.Module, checkpoint: Checkpoint, auxiliary: Auxiliary, config: ForwardConfig
) -> tuple[Outputs, dict[str, Moments]]:
    """Outputs on the images, and the moments of every BatchNorm layer's input meanwhile."""
    with _moments(model) as sums:
        found = outputs(model, checkpoint.state, auxiliary, config, checkpoint.path)
    return found, {name: _from_sums(*parts) for name, parts in sums.items()}


@contextmanager
def _moments(model: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor, int]]]:
    """Collect Σx, Σx² and the number of values per channel of every BatchNorm layer's input."""
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def watch(name: str) -> Any:
        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().double()
            flat = x.transpose(0, 1).flatten(1).cpu()
            parts = (flat.sum(1), (flat**2).sum(1), flat.shape[1])
            old = sums.get(name)
            sums[name] = (
                parts if old is None else (old[0] + parts[0], old[1] + parts[1], old[2] + parts[2])
            )

        return before

    hooks = [layer.register_forward_pre_hook(watch(n)) for n, layer in norm_layers(model).items()]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


def _from_sums(total: Tensor, squares: Tensor, count: int) -> Moments:
    mean = total / count
    return mean, (squares / count - mean**2).clamp_min(0)
