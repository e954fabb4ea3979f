"""RLU: Chen & Vikalo, "Recovering Labels from Local Updates in Federated Learning", ICML 2024.

Algorithm 1 solves for the label shares with the confidence averaged over both ends of the round.
Algorithm 2 simulates the round with the estimate and corrects it by the discrepancy of the logits.
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
    iterations  T, maximum passes of the posterior search; None: 10 for "printed", as in B.2.2, and
                until convergence for "checked"
    search      "checked": keep a move only if the discrepancy falls, until none does; "printed":
                Algorithm 2 as printed; "none": Algorithm 1 alone
    seed        of the base noise
    """

    draws: int = 10_000
    iterations: int | None = None
    search: str = "checked"
    seed: int = 0

    def __call__(self, evidence: Evidence) -> Recovery:
        # (1) S before and after the round, by Monte Carlo with common noise (Eqs. 7, 8).
        before = self._logits(evidence, evidence.before)
        after = self._logits(evidence, evidence.after)
        start, end = before.confidence(), after.confidence()
        # (2) Least squares: S at the start for one step, between both ends for several.
        share = end_share(evidence.weights)
        confidence = start * (1 - share) + end * share
        solution = label_shares(confidence, evidence.signal, evidence.smoothing)
        # (3) Integer counts summing to K; if |B| is unknown, to a number fine enough.
        total = labels_to_give(evidence)
        counts = round_to_total(solution.shares, total)
        trace = Trace(counts, Status.SOLVED)
        # (4) Posterior search, if the round has intermediate states.
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
    """Weight of the end of the round in S = (1 - share) S_start + share S_end, 0…1.

    weights  (m + 1, m) in-round weights, the last row ρ. With equal gradients state τ is at the
             fraction Σ_i weights[τ, i] / Σ_i ρ_i of the round. Every step is evaluated at its
             midpoint and weighted by ρ.

    Paper note: Algorithm 1 averages both ends under every scheme, which is right for plain SGD. A
    proximal term moves far early and gives the late steps more weight; momentum does the reverse.
    """
    if weights.shape[1] == 1:
        return 0.0
    rho = weights[-1]
    position = weights.sum(1) / rho.sum()
    midpoints = (position[:-1] + position[1:]) / 2
    return float((rho * midpoints).sum() / rho.sum())


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
    """Result of a search: final counts (N,), status, passes, first and last discrepancy."""

    counts: Tensor
    status: Status
    passes: int = 0
    first: float | None = None
    last: float | None = None


class _Simulation:
    """Simulation of the round under trial counts, compared with the observed logits.

    logits    Monte-Carlo logits of the global model
    observed  (N,) change of the mean logits over the round, averaged over the classes
    ends      (2, N) counts from Δb with the confidence of either end of the round
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
        self._offset_shift = offset_shifts(evidence.offset, embedding, biased=evidence.biased)
        self._smoothing = evidence.smoothing
        self._observed = observed
        self._low, self._high = ends.amin(0), ends.amax(0)

    def allows(self, counts: Tensor, trial: Tensor) -> bool:
        """Whether Δb permits a move: its midpoint lies between the counts of both ends."""
        middle = (counts + trial) / 2
        moved = counts != trial
        return bool(((middle >= self._low) & (middle <= self._high))[moved].all())

    def discrepancy(self, per_step: Tensor) -> Tensor:
        """d_j = Σ_n (μ̂_{n,j} - μ_{n,j}) after the last step, (N,).

        per_step  (N,) labels per class and step, g
        """
        mix = per_step.double() * self.steps / self.total
        shift = simulated_shift(
            self._logits, mix, self._weights, self._rate, self._offset_shift, self._smoothing
        )
        return (shift - self._observed) * len(mix)


def _printed(simulation: _Simulation, counts: Tensor, iterations: int | None) -> Trace:
    """Algorithm 2 as printed: T moves of m labels, without a test.

    Paper note: a class loses at most the labels it has, so that counts stay ≥ 0.
    """
    first = last = None
    passes = PRINTED_ITERATIONS if iterations is None else iterations
    for _ in range(passes):
        differences = simulation.discrepancy(counts // simulation.steps)
        last = float(differences.abs().sum())
        first = last if first is None else first
        donor, taker = int(differences.argmax()), int(differences.argmin())
        counts = _moved(counts, donor, taker, simulation.steps)
    return Trace(counts, Status.STOPPED, passes, first, last)


def _checked(simulation: _Simulation, counts: Tensor, iterations: int | None) -> Trace:
    """Algorithm 2 with a test of every move: it is kept only if D = Σ_j |d_j| falls.

    Terminates, since D falls with every move and there are finitely many counts; the status is
    UNSETTLED if `iterations` is reached before.

    Paper note: the printed algorithm neither tests a move nor keeps g = N/m unrounded, and so makes
    good estimates worse. The base noise is the same for all trial counts, so their D are
    comparable. Some moves lower D by compensating changes of the embedding instead of the counts.
    Moves are therefore limited to the range between the counts of both ends of the round; if both
    agree, as on an untrained LeNet-5, nothing is moved.
    """
    differences = simulation.discrepancy(counts / simulation.steps)
    first = last = float(differences.abs().sum())
    passes = 0
    while iterations is None or passes < iterations:
        passes += 1
        trial = _moved(
            counts, int(differences.argmax()), int(differences.argmin()), simulation.steps
        )
        if torch.equal(trial, counts) or not simulation.allows(counts, trial):
            return Trace(counts, Status.SETTLED, passes, first, last)
        differences = simulation.discrepancy(trial / simulation.steps)
        closer = float(differences.abs().sum())
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
