"""RLU: Chen & Vikalo, "Recovering Labels from Local Updates in Federated Learning", ICML 2024.

Algorithm 1 solves for the label shares with the confidence averaged over both ends of the round;
Algorithm 2 simulates the round with a guess and corrects the guess by what the simulation misses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.attacks.answer import labels_to_give, whole_passes
from rlu_cli.attacks.method import Method
from rlu_cli.numerics.dynamics import (
    implied_embedding,
    logit_gain,
    offset_shifts,
    simulated_shift,
)
from rlu_cli.numerics.moments import class_moments
from rlu_cli.numerics.monte_carlo import LogitDraws, affordable_draws, logit_draws
from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.numerics.simplex import label_shares
from rlu_cli.numerics.weighting import expected_loss
from rlu_cli.types import Evidence, Outputs, Recovery, Status

PRINTED_ITERATIONS = 10  # T of B.2.2


@dataclass(frozen=True)
class RLU:
    """Label counts from one client's update (Algorithms 1 and 2).

    draws       M, Monte-Carlo samples per class
    iterations  T, most passes of the posterior search; None: 10 as printed, or until settled
    search      "checked": a move is kept only when the simulated round comes closer, until none
                does; "printed": Algorithm 2 as it stands; "none": Algorithm 1 alone
    seed        of the base noise
    """

    draws: int = 10_000
    iterations: int | None = None
    search: str = "checked"
    seed: int = 0

    def __call__(self, evidence: Evidence) -> Recovery:
        # (1) S before and after the round, by Monte Carlo with the same noise (Eqs. 7, 8).
        before = self._logits(evidence, evidence.before)
        after = self._logits(evidence, evidence.after)
        start, end = before.confidence(), after.confidence()
        # (2) Least squares: S at the start for one step, between both ends for several.
        share = end_share(evidence.weights)
        confidence = start * (1 - share) + end * share
        solution = label_shares(confidence, evidence.signal, evidence.smoothing)
        # (3) Whole labels summing to K; without |B|, a fine grid stands in for them.
        total = labels_to_give(evidence)
        counts = round_to_total(solution.shares, total)
        trace = Trace(counts, Status.SOLVED)
        # (4) Posterior search, when there are intermediate steps to guess.
        if evidence.steps > 1 and self.search != "none" and solution.status.ok:
            observed = (after.moments.mean - before.moments.mean).mean(0).double().cpu()
            ends = [
                label_shares(s, evidence.signal, evidence.smoothing).shares * total
                for s in (start, end)
            ]
            replay = _Simulation(evidence, before, observed, torch.stack(ends))
            trace = SEARCHES[self.search](replay, counts, self.iterations)
        status = trace.status if solution.status.ok else solution.status
        moved = not torch.equal(trace.counts, counts)
        shares = trace.counts.double() / total if moved else solution.shares
        return Recovery(
            shares=shares,
            counts=None if evidence.total is None else whole_passes(trace.counts, evidence),
            status=status,
            diagnostics={
                "residual": solution.residual,
                "condition": solution.condition,
                "draws": len(before.noise),
                "confidence_sum_before": erroneous_confidence(start),
                "confidence_sum_after": erroneous_confidence(end),
                "search": self.search if evidence.steps > 1 else "none",
                "search_passes": trace.passes,
                "discrepancy_start": trace.first,
                "discrepancy_end": trace.last,
                "weighting_loss": _weighting_loss(evidence, shares),
            },
        )

    def _logits(self, evidence: Evidence, outputs: Outputs) -> LogitDraws:
        moments = class_moments(outputs.logits.float(), outputs.labels, evidence.classes)
        draws = affordable_draws(self.draws, evidence.classes, moments.images)
        return logit_draws(moments, draws, self.seed)


def end_share(weights: Tensor) -> float:
    """How far between both ends of the round S lies, as the update sees it: 0 at the start.

    weights  (m + 1, m) in-round weights, the last row ρ. Under equal gradients state τ has come the
             share Σ_i weights[τ, i] / Σ_i ρ_i of the way; a step is met halfway, and counts ρ.

    Paper note: Algorithm 1 averages both ends, whatever the scheme. That is what this gives for
    plain SGD; a proximal term comes far early and counts the late steps, momentum the reverse.
    """
    if weights.shape[1] == 1:
        return 0.0
    rho = weights[-1]
    way = weights.sum(1) / rho.sum()
    halfway = (way[:-1] + way[1:]) / 2
    return float((rho * halfway).sum() / rho.sum())


def _weighting_loss(evidence: Evidence, shares: Tensor) -> float | None:
    if evidence.batch_sizes is None:
        return None
    return expected_loss(evidence.weights[-1], evidence.batch_sizes, shares, evidence.passes)


def erroneous_confidence(confidence: Tensor) -> float:
    """Σ_j S_j, 1 for an untrained model and 0 for a perfect one (Eqs. 29-33).

    confidence  (N, N)  S[n, j]; S_j is the mean of S[n, j] over n ≠ j
    """
    classes = len(confidence)
    return float((classes - confidence.trace()) / (classes - 1))


@dataclass(frozen=True)
class Trace:
    """What a search did: the counts it ended with, and the discrepancy at both ends."""

    counts: Tensor
    status: Status
    passes: int = 0
    first: float | None = None
    last: float | None = None


class _Simulation:
    """The round replayed with guessed counts, against what the checkpoints show.

    observed  (N,) change of the mean logits over the round, averaged over the classes
    ends      (2, N) counts that Δb gives with the confidence of either end of the round
    """

    def __init__(
        self, evidence: Evidence, logits: LogitDraws, observed: Tensor, ends: Tensor
    ) -> None:
        embedding = implied_embedding(evidence.learned)
        gain = logit_gain(embedding, biased=evidence.biased)
        self.steps = evidence.steps
        self.total = labels_to_give(evidence)
        self._logits = logits
        self._rate = evidence.lr * gain
        self._weights = evidence.weights
        self._drift = offset_shifts(evidence.offset, embedding, biased=evidence.biased)
        self._smoothing = evidence.smoothing
        self._observed = observed
        self._low, self._high = ends.amin(0), ends.amax(0)

    def allows(self, counts: Tensor, trial: Tensor) -> bool:
        """Whether Δb leaves room for a move: the better part of it lies between the two ends."""
        middle = (counts + trial) / 2
        moved = counts != trial
        return bool(((middle >= self._low) & (middle <= self._high))[moved].all())

    def discrepancy(self, per_step: Tensor) -> Tensor:
        """d_j = Σ_n (μ̂_{n,j} - μ_{n,j}) after the last step, (N,).

        per_step  (N,) labels of each class in each step, g
        """
        mix = per_step.double() * self.steps / self.total
        shift = simulated_shift(
            self._logits, mix, self._weights, self._rate, self._drift, self._smoothing
        )
        return (shift - self._observed) * len(mix)


def _printed(simulation: _Simulation, counts: Tensor, iterations: int | None) -> Trace:
    """Algorithm 2 as printed: T moves of m labels, whether they help or not.

    Paper note: a class gives up at most the labels it has, so that counts stay ≥ 0.
    """
    first = last = None
    passes = PRINTED_ITERATIONS if iterations is None else iterations
    for _ in range(passes):
        gap = simulation.discrepancy(counts // simulation.steps)
        last = float(gap.abs().sum())
        first = last if first is None else first
        donor, taker = int(gap.argmax()), int(gap.argmin())
        counts = _moved(counts, donor, taker, simulation.steps)
    return Trace(counts, Status.STOPPED, passes, first, last)


def _checked(simulation: _Simulation, counts: Tensor, iterations: int | None) -> Trace:
    """Algorithm 2 with every move tested: it stays only when D = Σ_j |d_j| falls.

    Ends by itself, since D falls with every move and there are finitely many counts; fewer
    `iterations` than that leave it unsettled.

    Paper note: the print neither tests a move nor keeps g = N/m unrounded, and so makes good
    answers worse; the base noise is the same for every guess, so that D compares them fairly. D
    also falls by moves that answer for changes of the embedding, not of the counts; where both
    ends of the round agree on the counts, as on an untrained LeNet-5, there is nothing to move.
    """
    gap = simulation.discrepancy(counts / simulation.steps)
    first = last = float(gap.abs().sum())
    passes = 0
    while iterations is None or passes < iterations:
        passes += 1
        trial = _moved(counts, int(gap.argmax()), int(gap.argmin()), simulation.steps)
        if torch.equal(trial, counts) or not simulation.allows(counts, trial):
            return Trace(counts, Status.SETTLED, passes, first, last)
        gap = simulation.discrepancy(trial / simulation.steps)
        closer = float(gap.abs().sum())
        if closer >= last:
            return Trace(counts, Status.SETTLED, passes, first, last)
        counts, last = trial, closer
    return Trace(counts, Status.UNSETTLED, passes, first, last)


def _moved(counts: Tensor, donor: int, taker: int, labels: int) -> Tensor:
    """`counts` with up to `labels` labels moved from one class to another."""
    moved = counts.clone()
    amount = min(labels, int(counts[donor]))
    moved[donor] -= amount
    moved[taker] += amount
    return moved


SEARCHES: dict[str, Callable[[_Simulation, Tensor, int | None], Trace]] = {
    "checked": _checked,
    "printed": _printed,
}

METHOD = Method(
    title="RLU",
    paper="Chen & Vikalo 2024, ICML",
    attack=RLU(),
    auxiliary=True,
)
