"""The update is longer or shorter than the settings say: learning rate, steps, momentum."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rlu_cli.audit.explanations.clues import Clues, Fit, length
from rlu_cli.audit.explanations.explanation import PROOF, Explanation
from rlu_cli.evidence.batchnorm_statistics import norm_layers
from rlu_cli.local_training.description import LocalTraining
from rlu_cli.schemes import step_weights

# Of the log length of right updates over virtual ones. A trained model was trained on the client's
# images, whose errors are smaller than the server's, and few images make most of the update.
_MEAN_TRAINED = -0.2
_SPREAD, _SPREAD_NOISY, _SPREAD_TRAINED = (0.08, 0.02), 0.085, 0.3  # the first below and above
# Degrees of freedom of the log length, without and with a trained model.
_FREEDOM, _FREEDOM_TRAINED = 10.0, 3.0
_ALIKE = 0.4  # cosine from which the angle of an untrained model's update tells
_DIRECTIONS = 10.0  # independent directions that it counts for
_COARSE = 0.2  # standard deviation of the log rate that the search finds
_CLOSE = 0.1  # log length at which the search for the rate stops
_SEARCHES = 4  # virtual clients that it may train
_FARTHEST = 3.0  # log factor of a single step of the search
_FLATTEST, _STEEPEST = 0.4, 2.0  # slope of log length over log rate that is believed
_NINETY = 1.645
_GAMMA = 0.9  # the usual momentum
_LONGER = 1.1  # by how much momentum lengthens an update, at least
_SUSPECT = 5.0  # misfit of the length from which another rate is looked for


@dataclass(frozen=True)
class Rate:
    """A learning rate, as a multiple of the given one, and a virtual client's fit at it."""

    factor: float
    fit: Fit


@dataclass(frozen=True)
class Expected:
    """Log length of a right update over a virtual one, and how much its angle tells.

    mean        of the log length
    short, long its standard deviation below and above the mean
    directions  independent directions that the angle counts for; 0 where it tells nothing
    freedom     ν, degrees of freedom of Student's t, whose tails the log length has
    """

    mean: float
    short: float
    long: float
    directions: float
    freedom: float

    def misfit(self, fit: Fit) -> float:
        """-2 log likelihood: (ν + 1) log(1 + d² / ν) + D log sin², d = (log length - mean) / σ."""
        distance = fit.log_length - self.mean
        square = (distance / (self.long if distance > 0 else self.short)) ** 2
        tails = (self.freedom + 1) * math.log1p(square / self.freedom)
        return tails + self.directions * math.log(fit.sine_squared)


def scale(clues: Clues) -> Explanation | None:
    """The factor of the learning rate at which a virtual client's update is the most alike.

    The steps are known from BatchNorm counters where there are any; else more steps, another
    learning rate and momentum look alike.

    gain  the proof by counters that differ from the settings; else the drop of the misfit of length
          and angle
    """
    counted = clues.pair.steps
    if counted and counted != clues.case.plan.steps:
        return _steps(clues, counted)
    if clues.fit is None:
        return None
    right = expected(clues, clues.fit)
    given = Rate(1.0, clues.fit)
    rates = [*_searched(clues, given, right), *_nearby(clues, given, right)]
    if not rates:
        return None
    best = min(rates, key=lambda rate: right.misfit(rate.fit))
    gain = right.misfit(given.fit) - right.misfit(best.fit)
    return _explained(clues, best, _log_error(clues, best, right), gain) if gain > 0 else None


def expected(clues: Clues, fit: Fit) -> Expected:
    """What to expect where every setting is right.

    On a trained model, the spread has a part from the number of images that it classifies wrong.
    Those few can make very long updates, or none, so that the tails are wide, and the angle tells
    little; nor does it under BatchNorm, where gradients are noisy.
    """
    t = clues.learned
    wrong = (clues.images + 1) / clues.case.plan.passes * (1 - clues.accuracy) + 1
    trained = math.hypot(_SPREAD_TRAINED, wrong**-0.5)
    angle_tells = not norm_layers(clues.model) and t == 0 and fit.cosine > _ALIKE
    short, long = _SPREAD if angle_tells else (_SPREAD_NOISY, _SPREAD_NOISY)
    return Expected(
        t * _MEAN_TRAINED,
        short + t * (trained - short),
        long + t * (trained - long),
        _DIRECTIONS * angle_tells,
        _FREEDOM_TRAINED if t else _FREEDOM,
    )


def _searched(clues: Clues, given: Rate, right: Expected) -> list[Rate]:
    """Rates tried on the way to the length of the update; none where the given one has it.

    A secant through the last two tries; the first assumes that length is proportional to the rate.
    """
    lengths = replace(right, directions=0.0)
    if lengths.misfit(given.fit) < _SUSPECT:
        return []
    log_factor, slope, fit = 0.0, 1.0, given.fit
    rates: list[Rate] = []
    while len(rates) < _SEARCHES and abs(fit.log_length - right.mean) > _CLOSE:
        wanted = (fit.log_length - right.mean) / slope
        following = log_factor + min(max(wanted, -_FARTHEST), _FARTHEST)
        found = rate_of(clues, math.exp(following))
        slope = (fit.log_length - found.fit.log_length) / (following - log_factor)
        slope = min(max(slope, _FLATTEST), _STEEPEST)
        log_factor, fit = following, found.fit
        rates.append(found)
    return rates


def _nearby(clues: Clues, given: Rate, right: Expected) -> list[Rate]:
    """Rates halved and doubled as long as that fits better, where the angle tells.

    Other labels can make up for the length that a wrong rate causes, but not for the angle.
    """
    rates: list[Rate] = []
    for factor in (0.5, 2.0) if right.directions else ():
        best = given
        while best.factor * factor > math.exp(-_FARTHEST) and len(rates) < 2 * _SEARCHES:
            rates.append(rate_of(clues, best.factor * factor))
            if right.misfit(rates[-1].fit) >= right.misfit(best.fit):
                break
            best = rates[-1]
    return rates


def rate_of(clues: Clues, factor: float) -> Rate:
    """The fit of a virtual client at a multiple of the given rate."""
    training = at_rate(clues.case.training, factor)
    return Rate(factor, clues.fit_to(clues.shares_at(factor), training))


def _log_error(clues: Clues, best: Rate, right: Expected) -> float:
    """Standard deviation of the log of the rate that fits.

    From the length at the rate that fits and at the given one, and the spread of lengths; at least
    a part for the coarse search.
    """
    assert clues.fit is not None
    slope = (clues.fit.log_length - best.fit.log_length) / math.log(best.factor)
    slope = min(max(slope, _FLATTEST), _STEEPEST)
    return math.hypot(max(right.short, right.long) / slope, _COARSE)


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


def _explained(clues: Clues, rate: Rate, error: float, gain: float) -> Explanation:
    """The explanation with the rate that fits, its 90 % interval, and what else would fit.

    error  standard deviation of the log of the rate
    """
    low, high = (math.exp(sign * _NINETY * error) for sign in (-1, 1))
    lr, factor = clues.evidence.lr * rate.factor, rate.factor
    interval = f"{lr:.2g} ({lr * low:.2g} to {lr * high:.2g})"
    counted = bool(clues.pair.steps)
    by_momentum = momentum_factor(clues)
    likes = {
        f"{factor:.2g} times as many steps": not counted,
        f"momentum {_GAMMA} at the given rate": low < by_momentum / factor < high
        and by_momentum > _LONGER,
        f"clipping to a norm of about {_clipped_norm(clues):.2g}": factor < 1,
        "a global model of an earlier round": factor > 1 and not counted,
    }
    others = [text for text, fits in likes.items() if fits]
    rest = f"; {' or '.join(others)} would look the same" * bool(others)
    steps = " and the steps (--epochs, --samples)" * (not counted)
    return Explanation(
        "learning rate",
        gain,
        f"the update is too {'long' if factor > 1 else 'short'} for the settings: a learning rate "
        f"of {interval} fits instead of {clues.evidence.lr:g}{rest}",
        f"check --lr{steps}, --momentum and --clip",
    )


def _clipped_norm(clues: Clues) -> float:
    """‖Δθ‖ / (η Σρ): the norm of gradients that all steps would have along the update."""
    total = clues.evidence.lr * float(clues.evidence.weights[-1].sum())
    return length(clues.update) / total
