"""The update is longer or shorter than the settings say: learning rate, steps, momentum."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rlu_cli.audit.explanations.clues import Clues, Fit, compared, length
from rlu_cli.audit.explanations.explanation import PROOF, Explanation
from rlu_cli.local_training.description import LocalTraining
from rlu_cli.schemes import step_weights

_SPREAD, _SPREAD_TRAINED = 0.1, 0.2  # of the log length of right updates over virtual ones
_LONGEST_GAP = -1.0  # log of the generalisation gap, at most
_CLOSE = 0.1  # log length at which the search for the rate stops
_SEARCHES = 4  # virtual clients that it may train
_NINETY = 1.645
_GAMMA = 0.9
_SUSPECT = 2.5  # standard deviations from which another rate is looked for


@dataclass(frozen=True)
class Rate:
    """A learning rate, as a multiple of the given one, that gives updates of the client's length.

    factor  of the given rate
    spread  standard deviation of its logarithm
    fit     of the update to a virtual client's at this rate
    """

    factor: float
    spread: float
    fit: Fit


def scale(clues: Clues) -> Explanation | None:
    """The factor of the learning rate at which a virtual client's update is as long.

    The steps are known from BatchNorm counters where there are any; else more steps, another
    learning rate and momentum look alike.

    gain  the proof by counters that differ from the settings; else the drop of the squared,
          standardised log length
    """
    counted = clues.pair.steps
    if counted and counted != clues.case.plan.steps:
        return _steps(clues, counted)
    if clues.fit is None:
        return None
    mean, spread = expected(clues)
    distance = (clues.fit.log_length - mean) / spread
    if abs(distance) < _SUSPECT:
        return None
    rate = fitting_rate(clues, clues.fit, mean, spread)
    left = (rate.fit.log_length - mean) / spread
    return _explained(clues, rate, distance**2 - left**2)


def expected(clues: Clues) -> tuple[float, float]:
    """Mean and standard deviation of the log length where every setting is right.

    A trained model was trained on the client's images, whose errors are therefore smaller than the
    server's: about by the factor (1 - confidence) / (1 - accuracy) on the server's images, as the
    model is about as often right on its training images as it is sure.
    """
    t, trial = clues.learned, clues.trial
    gap = 0.0
    if trial is not None and trial.accuracy < 1:
        gap = math.log(max(1 - trial.sure, 1e-3) / (1 - trial.accuracy))
    mean = t * min(max(gap, _LONGEST_GAP), 0.0)
    return mean, _SPREAD + t * (_SPREAD_TRAINED - _SPREAD)


def fitting_rate(clues: Clues, fit: Fit, mean: float, spread: float) -> Rate:
    """Search the factor of the learning rate at which the log length is `mean`.

    A secant through the last two tries; the first assumes that length is proportional to the rate.
    """
    log_factor, slope = 0.0, 1.0
    for _ in range(_SEARCHES):
        wanted = (fit.log_length - mean) / slope
        if abs(fit.log_length - mean) < _CLOSE:
            break
        following = log_factor + min(max(wanted, -3.0), 3.0)
        factor = math.exp(following)
        shares = clues.shares_at(factor)
        virtual = clues.replica(shares, at_rate(clues.case.training, factor))
        found = compared(clues.update, virtual, shares)
        slope = min(max((fit.log_length - found.log_length) / (following - log_factor), 0.4), 2.0)
        log_factor, fit = following, found
    return Rate(math.exp(log_factor), spread / slope, fit)


def at_rate(training: LocalTraining, factor: float) -> LocalTraining:
    """The same training with all learning rates multiplied."""
    recursion = training.recursion
    rates = tuple(rate * factor for rate in recursion.lr)
    return replace(training, recursion=replace(recursion, lr=rates))


def momentum_factor(clues: Clues) -> float:
    """By how much momentum 0.9 lengthens the update, Σρ(γ) / Σρ; 1 where momentum is given."""
    recursion = clues.case.training.recursion
    if recursion.momentum:
        return 1.0
    with_momentum = step_weights(replace(recursion, momentum=_GAMMA))[-1].sum()
    return float(with_momentum / clues.evidence.weights[-1].sum())


def _steps(clues: Clues, counted: int) -> Explanation:
    given = clues.case.plan.steps
    rounds = f", as after {counted // given} rounds" * (counted % given == 0 and counted > given)
    return Explanation(
        "steps",
        PROOF,
        f"BatchNorm counters show {counted} steps between the two files, the settings give "
        f"{given}{rounds}",
        f"give the epochs that make {counted} steps, or the global model of the client's own round",
    )


def _explained(clues: Clues, rate: Rate, gain: float) -> Explanation:
    low, high = (math.exp(sign * _NINETY * rate.spread) for sign in (-1, 1))
    lr, factor = clues.evidence.lr * rate.factor, rate.factor
    interval = f"{lr:.2g} ({lr * low:.2g} to {lr * high:.2g})"
    counted = bool(clues.pair.steps)
    others = [] if counted else [f"{factor:.2g} times as many steps"]
    by_momentum = momentum_factor(clues)
    momentum = low < by_momentum / factor < high and by_momentum > 1.1
    if momentum:
        others.append(f"momentum {_GAMMA} at the given rate")
    if factor < 1:
        others.append(f"clipping to a norm of about {_clipped_norm(clues):.2g}")
    elif not counted:
        others.append("a global model of an earlier round")
    longer = (
        f"{factor:.2g} times as long as" if factor > 1 else f"only {factor:.2g} times as long as"
    )
    rest = f"; {' or '.join(others)} would look the same" * bool(others)
    name = "momentum" if momentum and counted else "learning rate"
    return Explanation(
        name,
        gain,
        f"the update is {longer} the settings make it: a learning rate of {interval} fits{rest}",
        "check --lr"
        + "" * counted
        + ", --epochs, --samples" * (not counted)
        + " and --momentum"
        + ", --clip" * (factor < 1),
    )


def _clipped_norm(clues: Clues) -> float:
    """‖Δθ‖ / (η Σρ): the norm of gradients that all steps would have along the update."""
    total = clues.evidence.lr * float(clues.evidence.weights[-1].sum())
    return length(clues.update) / total
