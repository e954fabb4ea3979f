"""A virtual population: virtual clients with known label counts, trained from the global model.

They show how much an update of this model reveals, for any optimiser. They cannot show the effect
of the generalisation gap: the model has not been trained on the auxiliary images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError
from rlu_cli.evidence.batchnorm_statistics import recover
from rlu_cli.evidence.forward import ForwardConfig, outputs
from rlu_cli.evidence.virtual_batch import train_each
from rlu_cli.local_training.description import LocalTraining
from rlu_cli.local_training.step_plan import StepPlan
from rlu_cli.numerics.emulator import emulate
from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.types import Auxiliary, Checkpoint, VirtualPopulation

ANY_LABELS = 0.5  # Dirichlet concentration of clients with unknown labels
_CLOSE, _SPARE = 20.0, 0.25  # concentration around an estimate, and a constant for every class
# For each part of a population: its share of the clients, its concentration around the current
# estimate, and the weight of its clients. The first part has arbitrary labels, where the emulator's
# slope differs, so it hardly counts.
_PARTS = ((0.25, 0.0, 0.02), (0.375, 20.0, 1.0), (0.375, 60.0, 1.0))
_FEWEST = 6  # virtual clients; fewer do not determine the emulator's slope
_SHOWN = 300  # images that the models are shown for the label shift
_LAYERS = 2  # BatchNorm layers, counted from the output, whose statistics are compared


@dataclass(frozen=True)
class VirtualClient:
    """One virtual client after its round.

    checkpoint  checkpoint it sends
    counts      (N,) int64, labels in its update
    images      (N,) effective number of distinct images per class: (Σ c)² / Σ c², with c the number
                of uses of each image; 0 for absent classes
    """

    checkpoint: Checkpoint
    counts: Tensor
    images: Tensor

    @property
    def shares(self) -> Tensor:
        return self.counts.double() / int(self.counts.sum())


def halves(auxiliary: Auxiliary, seed: int) -> tuple[Auxiliary, Auxiliary]:
    """Split the images at random into two halves, stratified by class.

    Raises InputError E226 if a class has fewer than four images.
    """
    rng = np.random.default_rng((seed, 11))
    labels = auxiliary.labels.numpy()
    orders = [rng.permutation(np.flatnonzero(labels == n)) for n in range(auxiliary.classes)]
    if min(map(len, orders)) < 4:
        raise InputError(
            "E226",
            "virtual clients need at least four auxiliary images per class",
            why="they train on one half of the images, and the method uses the other",
            hint="add images to --aux, or omit --virtual-clients",
        )
    first, second = (np.sort(np.concatenate([o[k::2] for o in orders])) for k in (0, 1))
    return take(auxiliary, first), take(auxiliary, second)


def compare(
    model: nn.Module,
    pair: CheckpointPair,
    auxiliary: Auxiliary,
    training: LocalTraining,
    config: ForwardConfig,
    count: int,
    sampling_weights: Tensor | None = None,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> VirtualPopulation:
    """Train a virtual population and compute the update statistics of its clients and of `pair`.

    A quarter of the clients has arbitrary label shares. The others are drawn in two parts, with
    rising concentration, around the emulator's estimate from the clients so far.

    pair              global and client checkpoint
    count             virtual clients; at least six are trained
    sampling_weights  (A,) as in `train_clients`
    progress          progress callback
    """
    count = max(count, _FEWEST)
    near = [round(count * share) for share, _, _ in _PARTS[1:]]
    parts = [count - sum(near), *near]
    sample = _sample(auxiliary)
    observed = update_statistics(model, pair) | label_shift(model, pair, sample, config)
    shares: list[Tensor] = []
    rows: list[dict[str, Tensor]] = []
    closeness: list[float] = []
    for part, (_, concentration, weight) in zip(parts, _PARTS, strict=True):
        seeded = replace(config, seed=config.seed + len(shares))
        if not shares:
            drawn = draw_shares(auxiliary.classes, ANY_LABELS, part, seeded.seed)
        else:
            so_far = _population(shares, rows, observed, closeness)
            estimate = emulate(so_far.shares, so_far.rows, so_far.observed, so_far.closeness).shares
            drawn = draw_near(estimate, part, seeded.seed, concentration)
        arguments = pair.before, auxiliary, training, seeded, drawn, sampling_weights
        for client in train_clients(model, *arguments, progress=progress):
            shares.append(client.shares)
            sent = replace(pair, after=client.checkpoint)
            rows.append(update_statistics(model, sent) | label_shift(model, sent, sample, config))
            closeness.append(weight)
    return _population(shares, rows, observed, closeness)


def _population(
    shares: Sequence[Tensor],
    rows: Sequence[Mapping[str, Tensor]],
    observed: Mapping[str, Tensor],
    closeness: Sequence[float],
) -> VirtualPopulation:
    """Stack the statistics common to all clients; the real one may have frozen some layers."""
    names = [name for name in observed if all(name in row for row in rows)]
    return VirtualPopulation(
        shares=torch.stack(list(shares)),
        rows=torch.stack([torch.cat([row[name] for name in names]) for row in rows]),
        observed=torch.cat([observed[name] for name in names]),
        closeness=torch.tensor(closeness, dtype=torch.float64),
    )


def update_statistics(model: nn.Module, pair: CheckpointPair) -> dict[str, Tensor]:
    """Statistics of a client's update by name, float64, those that exist.

    Row sums (N,) of the weight update, the bias update (N,), and mean and variance (C,) of the
    inputs of the last two BatchNorm layers whose buffers moved.
    """
    update = pair.update
    statistics = {"weights": update.weight.double().sum(1)}
    if update.bias is not None:
        statistics["bias"] = update.bias.double()
    found, _ = recover(model, pair)
    for name in list(found)[-_LAYERS:]:
        statistics[f"mean input of {name}"] = found[name].mean
        statistics[f"variance of the inputs of {name}"] = found[name].variance
    return statistics


def label_shift(
    model: nn.Module, pair: CheckpointPair, sample: Auxiliary, config: ForwardConfig
) -> dict[str, Tensor]:
    """Mean logits and mean softmax (N,) of the client's model on some images, float64.

    After a long round, its update shows little; what it has come to predict shows its labels, as in
    the estimation of label shift from a black-box predictor (Lipton, Wang and Smola 2018).
    """
    found = outputs(model, pair.after.state, sample, config, pair.after.path)
    return {
        "mean logits": found.logits.double().mean(0).cpu(),
        "mean softmax": found.probabilities.double().mean(0).cpu(),
    }


def _sample(auxiliary: Auxiliary) -> Auxiliary:
    """An even sample of the images."""
    count = len(auxiliary.labels)
    return take(auxiliary, np.linspace(0, count - 1, min(_SHOWN, count)).astype(np.int64))


def draw_near(shares: Tensor, count: int, seed: int, concentration: float = _CLOSE) -> Tensor:
    """Draw label shares (count, N) around `shares` (N,) from a Dirichlet distribution."""
    rng = np.random.default_rng((seed, 14))
    return torch.from_numpy(rng.dirichlet((concentration * shares + _SPARE).numpy(), count))


def take(auxiliary: Auxiliary, index: NDArray[np.int64]) -> Auxiliary:
    """The images at the positions `index`, in this order."""
    rows = torch.from_numpy(index)
    return replace(auxiliary, images=auxiliary.images[rows], labels=auxiliary.labels[rows])


def draw_shares(classes: int, alpha: float, count: int, seed: int) -> Tensor:
    """Draw label shares (count, N) from a symmetric Dirichlet distribution, parameter `alpha`."""
    rng = np.random.default_rng((seed, 12))
    return torch.from_numpy(rng.dirichlet([alpha] * classes, count))


def train_clients(
    model: nn.Module,
    checkpoint: Checkpoint,
    auxiliary: Auxiliary,
    training: LocalTraining,
    config: ForwardConfig,
    shares: Tensor,
    sampling_weights: Tensor | None = None,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[VirtualClient]:
    """Train a virtual client for each row of `shares` (R, N).

    sampling_weights  (A,) weight with which each auxiliary image is drawn within its class; None
                      for equal weights
    progress          progress callback

    Images repeat if a class has fewer images than labels. With full passes, every pass has the same
    images in a new order.
    """
    plan = _sized(training.plan, config.batch)
    if sampling_weights is None:
        sampling_weights = torch.ones(len(auxiliary.labels)).double()
    rounds = [
        _batches(
            row, auxiliary, plan, sampling_weights, np.random.default_rng((config.seed, 13, index))
        )
        for index, row in enumerate(shares)
    ]
    ends = train_each(model, checkpoint, auxiliary, rounds, training, config)
    for index, batches in enumerate(rounds):
        progress(f"training virtual client {index + 1} of {len(shares)}")
        used = torch.from_numpy(
            np.bincount(np.concatenate(batches), minlength=len(sampling_weights))
        )
        counts, squares = (
            torch.zeros(auxiliary.classes).double().index_add_(0, auxiliary.labels, v.double())
            for v in (used, used**2)
        )
        sent = replace(checkpoint, sha256=f"virtual-{config.seed}-{index}", state=next(ends))
        yield VirtualClient(sent, counts.long(), counts**2 / squares.clamp_min(1))


def _sized(plan: StepPlan, batch: int) -> StepPlan:
    """The plan, with batch size `batch` if |B| is unknown."""
    if plan.batch_sizes is not None:
        return plan
    return replace(plan, batch_sizes=(batch,) * plan.steps)


def _batches(
    shares: Tensor,
    auxiliary: Auxiliary,
    plan: StepPlan,
    sampling_weights: Tensor,
    rng: np.random.Generator,
) -> list[NDArray[np.int64]]:
    """Positions of each step's images among the auxiliary images."""
    assert plan.batch_sizes is not None
    sizes = plan.batch_sizes[: plan.steps // plan.passes]
    counts = round_to_total(shares, sum(sizes)).tolist()
    labels = auxiliary.labels.numpy()
    weights = sampling_weights.numpy()
    own = np.concatenate(
        [
            _draw(np.flatnonzero(labels == n), weights[labels == n], wanted, rng)
            for n, wanted in enumerate(counts)
        ]
    )
    cuts = np.cumsum(sizes)[:-1]
    return [b for _ in range(plan.passes) for b in np.split(rng.permutation(own), cuts)]


def _draw(
    positions: NDArray[np.int64],
    weights: NDArray[np.float64],
    wanted: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw `wanted` positions: by weight, or equally often (± 1) if all weights are equal."""
    if len(np.unique(weights)) > 1:
        return rng.choice(positions, wanted, p=weights / weights.sum())
    whole, rest = divmod(wanted, len(positions))
    more = rng.choice(positions, rest, replace=False)
    return np.concatenate([np.tile(positions, whole), more])
