"""How far an answer can be trusted: the distribution of the true shares, given all evidence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.numerics.posterior import Posterior, posterior
from rlu_cli.types import Recovery


@dataclass(frozen=True)
class Credibility:
    """What is known of the error of one answer.

    low, high      (N,) bounds of every true share, at the confidence asked for
    count_low, count_high  (N,) int64 the same in labels, rounded outwards; None where K is unknown
    expected_iacc  expected iAcc of the answer, and the bounds of its interval
    floor          expected iAcc of a uniform guess
    own            whether the method estimates its own error; else the answer is judged by the
                   posterior of `bayes`
    """

    low: Tensor
    high: Tensor
    count_low: Tensor | None
    count_high: Tensor | None
    expected_iacc: tuple[float, float, float]
    floor: float
    own: bool

    @property
    def gain(self) -> float:
        """How far the expected iAcc lies from a uniform guess to 1, as a part of that distance."""
        return (self.expected_iacc[0] - self.floor) / max(1 - self.floor, 1e-9)


def posterior_of(recovery: Recovery, total: int | None) -> Posterior | None:
    """The method's own distribution of the shares; None if it does not know its error.

    total  labels of one full pass; None if unknown
    """
    if recovery.posterior is not None or recovery.covariance is None:
        return recovery.posterior
    centre = recovery.shares if recovery.unconstrained is None else recovery.unconstrained
    return posterior(centre.double(), recovery.covariance.double(), total)


def credibility(
    recovery: Recovery,
    reference: Posterior | None,
    *,
    total: int | None,
    passes: int,
    confidence: float,
) -> Credibility | None:
    """The credibility of an answer; None if nothing is known of its error.

    reference  posterior of the client's shares from another method, for methods that do not know
               their error. Their intervals are extended to the answer
    total      K; None if unknown
    passes     full passes over the same samples
    """
    each = None if total is None else total // passes
    own = posterior_of(recovery, each)
    known = reference if own is None else own
    if known is None:
        return None
    low, high = known.interval(confidence)
    shares = recovery.shares.double().cpu()
    low, high = torch.minimum(low, shares), torch.maximum(high, shares)
    count_low = count_high = None
    if recovery.counts is not None and each is not None:
        shares = recovery.counts.double() / int(recovery.counts.sum())
        count_low = torch.minimum((low * each).floor().long() * passes, recovery.counts)
        count_high = torch.maximum((high * each).ceil().long() * passes, recovery.counts)
    return Credibility(
        low,
        high,
        count_low,
        count_high,
        known.expected_iacc(shares, confidence),
        known.expected_floor(),
        own is not None,
    )
