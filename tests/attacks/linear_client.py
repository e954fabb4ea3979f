"""A client that trains only a softmax layer on Gaussian features: all that RLU assumes holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlu_cli.observe import with_bias
from rlu_cli.types import Drift, Evidence, Head, Outputs


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
    drift: Drift | None = None,
) -> Evidence:
    """What a server sees of a client whose step τ holds per_step[τ, n] samples of class n.

    head    the global model; untrained when left out
    images  of each class that the server has
    """
    steps = len(per_step)
    weights = plain_weights(steps) if weights is None else weights
    start = world.untrained_head(biased=biased) if head is None else head
    gradients: list[Head] = []

    def position(state: int) -> Head:
        head = start
        for i, gradient in enumerate(gradients):
            head = head - gradient * (lr * float(weights[state, i]))
        return head if drift is None else head - drift[state]

    for state in range(steps):
        labels = torch.repeat_interleave(torch.arange(world.classes), per_step[state])
        features = world.features(labels, seed=100 + state)
        error = torch.softmax(logits(position(state), features), 1)
        error[torch.arange(len(labels)), labels] -= 1
        bias = error.mean(0) if biased else None
        gradients.append(Head(error.T @ features / len(labels), bias))
    end = position(steps)
    shown, truth = world.server_images(images)
    before, after = (Outputs(shown, logits(head, shown), truth) for head in (start, end))
    return Evidence(
        update=with_bias(end - start, before, after),
        weights=weights,
        drift=drift,
        batch_sizes=tuple(per_step.sum(1).tolist()),
        lr=lr,
        before=before,
        after=after,
        biased=biased,
    )


def skewed_steps(
    steps: int, batch: int, classes: int = 6, *, seed: int = 0, present: int | None = None
) -> Tensor:
    """Labels of each step and class, (m, N), from one skewed distribution."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(classes, generator=generator, dtype=torch.float64) ** 2
    shares[torch.randperm(classes, generator=generator)[present or classes :]] = 0
    rows = [torch.multinomial(shares, batch, True, generator=generator) for _ in range(steps)]
    return torch.stack([row.bincount(minlength=classes) for row in rows])


def relabelled(evidence: Evidence, order: Tensor) -> Evidence:
    """The same round with class order[i] called i."""
    position = torch.argsort(order)

    def head(seen: Head) -> Head:
        return Head(seen.weight[order], None if seen.bias is None else seen.bias[order])

    def outputs(seen: Outputs) -> Outputs:
        return Outputs(seen.embeddings, seen.logits[:, order], position[seen.labels])

    drift = evidence.drift
    return replace(
        evidence,
        update=head(evidence.update),
        drift=drift and replace(drift, directions=tuple(map(head, drift.directions))),
        before=outputs(evidence.before),
        after=outputs(evidence.after),
    )
