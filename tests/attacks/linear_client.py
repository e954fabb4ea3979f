"""A client that trains only a softmax layer on Gaussian features: all that RLU assumes holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlu_cli.attacks.observations import (
    CLASS_UPDATES,
    DUMMIES,
    INTERPOLATION,
    REEVALUATION,
    TILT,
    VIRTUAL_POPULATION,
    VIRTUAL_TRIALS,
)
from rlu_cli.evidence.forward import with_bias
from rlu_cli.types import (
    Evidence,
    GradientFreeOffset,
    Head,
    Interpolation,
    Observation,
    Outputs,
    VirtualPopulation,
)


@dataclass(frozen=True)
class World:
    """Features (n, L) float64 of every class: common centre, class offset, noise.

    apart  length of the classes' own offsets
    wide   standard deviation within a class
    """

    classes: int = 6
    width: int = 12
    apart: float = 0.3
    wide: float = 0.15
    seed: int = 0

    def _normal(self, *shape: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + seed)
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    @property
    def _centre(self) -> Tensor:
        return 0.5 + 0.1 * self._normal(self.width, seed=1)

    @property
    def _offsets(self) -> Tensor:
        return self.apart * self._normal(self.classes, self.width, seed=2)

    def features(self, labels: Tensor, seed: int) -> Tensor:
        noise = self.wide * self._normal(len(labels), self.width, seed=seed)
        return self._centre + self._offsets[labels] + noise

    def untrained_head(self, *, biased: bool = True) -> Head:
        weight = 0.1 * self._normal(self.classes, self.width, seed=3)
        return Head(weight, torch.zeros(self.classes, dtype=torch.float64) if biased else None)

    def trained_head(self, sharp: float) -> Head:
        """Logits are the similarity to each class's offset: mostly right, unevenly confident."""
        weight = sharp * self._offsets
        return Head(weight, -weight @ self._centre)

    def server_images(self, each: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(self.classes).repeat_interleave(each)
        return self.features(labels, seed=4), labels

    def dummy_images(self, each: int) -> tuple[Tensor, Tensor]:
        """Features of images without content: 0 black, 1 white, 2 random."""
        labels = torch.arange(3).repeat_interleave(each)
        noise = self.wide * self._normal(len(labels), self.width, seed=5)
        brightness = torch.tensor([0.2, 1.8, 1.0], dtype=torch.float64)[labels, None]
        return self._centre * brightness + noise * (labels == 2)[:, None], labels


def logits(head: Head, features: Tensor) -> Tensor:
    plain = features @ head.weight.T
    return plain if head.bias is None else plain + head.bias


def plain_weights(steps: int) -> Tensor:
    """Plain SGD: every gradient so far counts once."""
    return torch.tril(torch.ones(steps + 1, steps, dtype=torch.float64), diagonal=-1)


def momentum_weights(steps: int, momentum: float) -> Tensor:
    """Heavy ball: gradient i has been applied with 1, γ, γ², … by state τ."""
    rows = [
        [sum(momentum**k for k in range(state - i)) if i < state else 0.0 for i in range(steps)]
        for state in range(steps + 1)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def evidence_of(
    per_step: Tensor,
    *,
    world: World = World(),
    lr: float = 0.1,
    head: Head | None = None,
    biased: bool = True,
    images: int = 80,
    weights: Tensor | None = None,
    offset: GradientFreeOffset | None = None,
    virtual: bool = False,
) -> Evidence:
    """What a server sees of a client whose step τ holds per_step[τ, n] samples of class n.

    head     the global model; untrained when left out
    images   of each class that the server has
    virtual  whether the server trains virtual clients: one of each class, and a population
    """
    weights = plain_weights(len(per_step)) if weights is None else weights
    start = world.untrained_head(biased=biased) if head is None else head
    client = Client(world, start, lr, weights, offset)
    end = client.train(per_step, seed=100)
    shown, truth = world.server_images(images)
    before, after = _seen(start, shown, truth), _seen(end, shown, truth)
    dummies = world.dummy_images(10)
    observed: dict[Observation[Any], Any] = {
        DUMMIES: (_seen(start, *dummies), _seen(end, *dummies)),
        INTERPOLATION: _interpolation(start, end, shown, truth, steps=len(per_step)),
        REEVALUATION: lambda shares: None,
        TILT: None,
        VIRTUAL_TRIALS: (),
    }
    evidence = Evidence(
        update=with_bias(end - start, before, after),
        weights=weights,
        offset=offset,
        batch_sizes=tuple(per_step.sum(1).tolist()),
        lr=lr,
        before=before,
        after=after,
        origin=start,
        biased=start.bias is not None,
        observed=observed,
    )
    if not virtual:
        return evidence
    evidence = evidence.with_observed(CLASS_UPDATES, _class_updates(client, per_step, evidence))
    return evidence.with_observed(VIRTUAL_POPULATION, _population(client, per_step, end))


def _seen(head: Head, features: Tensor, labels: Tensor) -> Outputs:
    return Outputs(features, logits(head, features), labels)


def _interpolation(
    start: Head, end: Head, features: Tensor, labels: Tensor, *, steps: int
) -> Interpolation:
    """What the server sees from between both models; of a single step, the global model alone."""
    points = (0.0, 0.5, 1.0) if steps > 1 else (0.0,)
    heads = [start + (end - start) * point for point in points]
    return Interpolation(points, tuple(_seen(head, features, labels) for head in heads))


@dataclass(frozen=True)
class Client:
    """One that trains the output layer alone, on features it makes up."""

    world: World
    start: Head
    lr: float
    weights: Tensor
    offset: GradientFreeOffset | None

    def train(self, per_step: Tensor, seed: int) -> Head:
        gradients: list[Head] = []
        for state, counts in enumerate(per_step):
            labels = torch.repeat_interleave(torch.arange(self.world.classes), counts)
            features = self.world.features(labels, seed=seed + state)
            gradients.append(_gradient(self._position(gradients), features, labels))
        return self._position(gradients)

    def _position(self, gradients: list[Head]) -> Head:
        head, state = self.start, len(gradients)
        for gradient, weight in zip(gradients, self.weights[state].tolist(), strict=False):
            head = head - gradient * (self.lr * weight)
        return head if self.offset is None else head - self.offset[state]


def _gradient(head: Head, features: Tensor, labels: Tensor) -> Head:
    """∇ of the mean cross-entropy of a batch."""
    error = torch.softmax(logits(head, features), 1)
    error[torch.arange(len(labels)), labels] -= 1
    bias = None if head.bias is None else error.mean(0)
    return Head(error.T @ features / len(labels), bias)


def _class_updates(client: Client, per_step: Tensor, evidence: Evidence) -> Tensor:
    """Δb + h of clients that hold one class each, in batches of the client's sizes, (N, N)."""
    rows = []
    for label in range(client.world.classes):
        alone = torch.zeros_like(per_step)
        alone[:, label] = per_step.sum(1)
        made = client.train(alone, seed=5000 + 100 * label) - client.start
        learned = replace(
            evidence, update=with_bias(made, evidence.before, evidence.after)
        ).learned.bias
        assert learned is not None
        rows.append(learned)
    return torch.stack(rows)


def _population(client: Client, per_step: Tensor, end: Head, count: int = 40) -> VirtualPopulation:
    """Clients of known labels in batches of the client's sizes, beside the client's own update."""
    shares, rows = [], []
    for index in range(count):
        labels = skewed_steps(
            len(per_step), int(per_step[0].sum()), client.world.classes, seed=7000 + index
        )
        shares.append(labels.sum(0).double() / int(labels.sum()))
        rows.append(_handed_in(client, client.train(labels, seed=9000 + 100 * index)))
    closeness = torch.full((count,), 0.5, dtype=torch.float64)
    closeness[count // 2 :] = 1.0
    return VirtualPopulation(
        torch.stack(shares), torch.stack(rows), _handed_in(client, end), closeness
    )


def _handed_in(client: Client, end: Head) -> Tensor:
    """Row sums of the weights' update, and the bias update where there is one."""
    update = end - client.start
    return torch.cat([update.weight.sum(1), *([] if update.bias is None else [update.bias])])


def skewed_steps(
    steps: int, batch: int, classes: int = 6, *, seed: int = 0, present: int | None = None
) -> Tensor:
    """Labels of each step and class, (m, N), from one skewed distribution."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(classes, generator=generator, dtype=torch.float64) ** 2
    shares[torch.randperm(classes, generator=generator)[present or classes :]] = 0
    rows = [torch.multinomial(shares, batch, True, generator=generator) for _ in range(steps)]
    return torch.stack([row.bincount(minlength=classes) for row in rows])
