"""Virtual clients whose label counts are known: drawn, trained from the checkpoint under study.

They show what an update of this very model gives away, whatever the optimiser. What they cannot
show: the client's images were trained on, and the auxiliary ones were not.
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
from rlu_cli.evidence.forward import ForwardConfig
from rlu_cli.evidence.virtual_batch import train_each
from rlu_cli.local_training.description import LocalTraining
from rlu_cli.local_training.step_plan import StepPlan
from rlu_cli.numerics.emulator import emulate
from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.types import Auxiliary, Checkpoint, VirtualPopulation

ANY_LABELS = 0.5  # Dirichlet concentration of clients of whom nothing is known
_CLOSE, _SPARE = 20.0, 0.25  # of the distribution about an estimate, and what every class gets
# Of each part of an ensemble: its share, its concentration about the last estimate, and the weight
# of its clients. Those of any labels only lead the way: the slope is another where they are.
_PARTS = ((0.25, 0.0, 0.02), (0.375, 20.0, 1.0), (0.375, 60.0, 1.0))
_FEWEST = 6  # virtual clients, for there to be a slope
_LAYERS = 2  # BatchNorm layers, counted from the output, whose inputs are compared


@dataclass(frozen=True)
class VirtualClient:
    """One virtual client after its round.

    checkpoint  what it hands in
    counts      (N,) int64, labels that went into its update
    images      (N,) effective number of different images behind them: (Σ c)² / Σ c² of a class
                whose images were used c times each; 0 where there is none
    """

    checkpoint: Checkpoint
    counts: Tensor
    images: Tensor

    @property
    def shares(self) -> Tensor:
        return self.counts.double() / int(self.counts.sum())


def halves(auxiliary: Auxiliary, seed: int) -> tuple[Auxiliary, Auxiliary]:
    """The images cut in two, every class alike: one half for virtual clients, one for the server.

    Raises InputError E226 when a class has fewer than four images.
    """
    rng = np.random.default_rng((seed, 11))
    labels = auxiliary.labels.numpy()
    orders = [rng.permutation(np.flatnonzero(labels == n)) for n in range(auxiliary.classes)]
    if min(map(len, orders)) < 4:
        raise InputError(
            "E226",
            "virtual clients need four auxiliary images of every class, or more",
            why="they train on one half of the images, and the method is shown the other",
            hint="add images to --aux, or leave out --virtual-clients",
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
    likeness: Tensor | None = None,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> VirtualPopulation:
    """`count` virtual clients, six or more, beside the client of `pair`: a quarter of any labels,
    the others drawn nearer and nearer to what those before make of the client.

    likeness  (A,) as `train_clients` has it
    """
    count = max(count, _FEWEST)
    near = [round(count * share) for share, _, _ in _PARTS[1:]]
    parts = [count - sum(near), *near]
    observed = handed_in(model, pair)
    shares: list[Tensor] = []
    handed: list[dict[str, Tensor]] = []
    closeness: list[float] = []
    for part, (_, concentration, weight) in zip(parts, _PARTS, strict=True):
        seeded = replace(config, seed=config.seed + len(shares))
        if not shares:
            drawn = draw_shares(auxiliary.classes, ANY_LABELS, part, seeded.seed)
        else:
            so_far = _beside(shares, handed, observed, closeness)
            guess = emulate(so_far.shares, so_far.rows, so_far.observed, so_far.closeness).shares
            drawn = draw_near(guess, part, seeded.seed, concentration)
        told = pair.before, auxiliary, training, seeded, drawn, likeness
        for client in train_clients(model, *told, progress=progress):
            shares.append(client.shares)
            handed.append(handed_in(model, replace(pair, after=client.checkpoint)))
            closeness.append(weight)
    return _beside(shares, handed, observed, closeness)


def _beside(
    shares: Sequence[Tensor],
    handed: Sequence[Mapping[str, Tensor]],
    observed: Mapping[str, Tensor],
    closeness: Sequence[float],
) -> VirtualPopulation:
    """The figures that all hand in: a client may have frozen what virtual ones train."""
    names = [name for name in observed if all(name in one for one in handed)]
    return VirtualPopulation(
        shares=torch.stack(list(shares)),
        rows=torch.stack([torch.cat([one[name] for name in names]) for one in handed]),
        observed=torch.cat([observed[name] for name in names]),
        closeness=torch.tensor(closeness, dtype=torch.float64),
    )


def handed_in(model: nn.Module, pair: CheckpointPair) -> dict[str, Tensor]:
    """What a client hands in, float64, by name, as far as it is there: bias update, row sums of the
    weights' update, mean and variance of the inputs of the last two BatchNorm layers that moved.
    """
    update = pair.update
    figures = {"weights": update.weight.double().sum(1)}
    if update.bias is not None:
        figures["bias"] = update.bias.double()
    told, _ = recover(model, pair)
    for name in list(told)[-_LAYERS:]:
        figures[f"mean input of {name}"] = told[name].mean
        figures[f"variance of the inputs of {name}"] = told[name].variance
    return figures


def draw_near(shares: Tensor, count: int, seed: int, concentration: float = _CLOSE) -> Tensor:
    """(count, N) label shares about those of a client, from a Dirichlet distribution."""
    rng = np.random.default_rng((seed, 14))
    return torch.from_numpy(rng.dirichlet((concentration * shares + _SPARE).numpy(), count))


def take(auxiliary: Auxiliary, index: NDArray[np.int64]) -> Auxiliary:
    """Some of the images, in this order."""
    rows = torch.from_numpy(index)
    return replace(auxiliary, images=auxiliary.images[rows], labels=auxiliary.labels[rows])


def draw_shares(classes: int, alpha: float, count: int, seed: int) -> Tensor:
    """(count, N) label shares of as many clients, from a symmetric Dirichlet distribution."""
    rng = np.random.default_rng((seed, 12))
    return torch.from_numpy(rng.dirichlet([alpha] * classes, count))


def train_clients(
    model: nn.Module,
    checkpoint: Checkpoint,
    auxiliary: Auxiliary,
    training: LocalTraining,
    config: ForwardConfig,
    shares: Tensor,
    likeness: Tensor | None = None,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[VirtualClient]:
    """Train a virtual client for each row of `shares` (R, N).

    likeness  (A,) how likely each auxiliary image is to be drawn within its class; None: all alike

    A class with fewer images than labels is drawn again and again. With full passes over the same
    samples every pass has the same images in a new order.
    """
    plan = _sized(training.plan, config.batch)
    likely = torch.ones(len(auxiliary.labels)).double() if likeness is None else likeness
    rounds = [
        _batches(row, auxiliary, plan, likely, np.random.default_rng((config.seed, 13, index)))
        for index, row in enumerate(shares)
    ]
    ends = train_each(model, checkpoint, auxiliary, rounds, training, config)
    for index, batches in enumerate(rounds):
        progress(f"training virtual client {index + 1} of {len(shares)}")
        used = torch.from_numpy(np.bincount(np.concatenate(batches), minlength=len(likely)))
        counts, squares = (
            torch.zeros(auxiliary.classes).double().index_add_(0, auxiliary.labels, v.double())
            for v in (used, used**2)
        )
        sent = replace(checkpoint, sha256=f"virtual-{config.seed}-{index}", state=next(ends))
        yield VirtualClient(sent, counts.long(), counts**2 / squares.clamp_min(1))


def _sized(plan: StepPlan, batch: int) -> StepPlan:
    """The plan with batches of a usual size where nobody told |B|."""
    if plan.batch_sizes is not None:
        return plan
    return replace(plan, batch_sizes=(batch,) * plan.steps)


def _batches(
    shares: Tensor,
    auxiliary: Auxiliary,
    plan: StepPlan,
    likely: Tensor,
    rng: np.random.Generator,
) -> list[NDArray[np.int64]]:
    """Positions of each step's images among the auxiliary ones."""
    assert plan.batch_sizes is not None
    sizes = plan.batch_sizes[: plan.steps // plan.passes]
    counts = round_to_total(shares, sum(sizes)).tolist()
    labels = auxiliary.labels.numpy()
    weights = likely.numpy()
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
    """`wanted` of the positions, each as often as any other of its weight."""
    if len(np.unique(weights)) > 1:
        return rng.choice(positions, wanted, p=weights / weights.sum())
    whole, rest = divmod(wanted, len(positions))
    more = rng.choice(positions, rest, replace=False)
    return np.concatenate([np.tile(positions, whole), more])
