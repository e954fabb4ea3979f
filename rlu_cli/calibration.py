"""How well a method does on this very model: it is tried on virtual clients with known labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from scipy.stats import norm
from torch import Tensor

from rlu_cli.cases import Case
from rlu_cli.ensemble import (
    VirtualClient,
    draw_near,
    halves,
    likeness_of_trained,
    train_clients,
)
from rlu_cli.errors import InputError
from rlu_cli.history import History
from rlu_cli.normalisation import AUTO, parse_normalisation
from rlu_cli.numerics.intervals import count_intervals
from rlu_cli.pipeline import Finding, MethodFinding, attack, view_of
from rlu_cli.types import Auxiliary, Recovery

Say = Callable[[str], None]
_ENOUGH = 20  # counts from which on a quantile of their errors means something


@dataclass(frozen=True)
class Trial:
    """A method's answer for one virtual client.

    counts  (N,) true labels
    fewer   factor by which a real client's error is smaller, which has more images of its own and
            is met by twice the auxiliary ones
    inside  the same for what the method counts with: images of its own alone
    """

    counts: Tensor
    found: MethodFinding
    floor: float
    fewer: float
    inside: float


@dataclass(frozen=True)
class Expectation:
    """What a method does on virtual clients of this model.

    iacc         to expect of a real client: the errors of the virtual ones, less what comes of
                 their fewer images; `error` is the standard error of the mean
    measured     mean iAcc on the virtual clients themselves
    cacc         on them
    floor        mean iAcc of an even guess
    each         iAcc of every client
    present      classes with labels: how many were within their interval, of how many
    absent       the same of classes without; both None where the method knows no interval
    width        mean width of an interval as a share of K
    widening     factor on the deviations with which classes with labels are covered as often as
                 they should be; None where there are too few
    as_learned   whether the virtual clients' images were drawn to look as well learned as the
                 client's; without that the figures are an upper estimate on a trained model
    """

    method: str
    iacc: float
    error: float
    measured: float
    cacc: float
    floor: float
    each: tuple[float, ...]
    present: tuple[int, int] | None
    absent: tuple[int, int] | None
    width: float | None
    widening: float | None
    as_learned: bool


def expect(case: Case, method: str, shares: Tensor, say: Say = lambda text: None) -> Expectation:
    """Try `method` on virtual clients with label shares (R, N), trained from the global model.

    One half of them trains on one half of the auxiliary images while the method sees the other, and
    the other half the other way round.
    """
    told = case.value("train_accuracy"), case.value("train_loss")
    trials = list(_trials(case, method, shares, say))
    scores = [t.found.score for t in trials if t.found.score is not None]
    if not scores:
        raise InputError(
            "E216",
            f"{method} answered for none of {len(trials)} virtual clients",
            hint="calibrate another method, or give --batch-size",
        )
    measured = torch.tensor([score.iacc for score in scores], dtype=torch.float64)
    fewer = torch.tensor([t.fewer for t in trials if t.found.score is not None]).double()
    each = 1 - (1 - measured) * fewer
    present, absent, width = _coverage(trials, case.value("confidence"))
    return Expectation(
        method=trials[0].found.method,
        iacc=float(each.mean()),
        error=float(each.std() / len(each) ** 0.5) if len(each) > 1 else float("nan"),
        measured=float(measured.mean()),
        cacc=sum(score.cacc for score in scores) / len(scores),
        floor=sum(trial.floor for trial in trials) / len(trials),
        each=tuple(each.tolist()),
        present=present,
        absent=absent,
        width=width,
        widening=_widening(trials, case.value("confidence")),
        as_learned=any(value is not None for value in told),
    )


def expect_near(finding: Finding, count: int, say: Say = lambda text: None) -> Expectation:
    """The same for clients like the one of a finding: its first method, labels near its answer."""
    first = next(found for found in finding.methods if found.recovery is not None)
    assert first.recovery is not None
    case = replace(finding.case, readings=finding.readings[:1])
    shares = draw_near(first.recovery.shares, count, case.value("seed"))
    return expect(case, first.method, shares, say)


def widened(recovery: Recovery, expectation: Expectation) -> Recovery:
    """The recovery with intervals as wide as virtual clients need them; never narrower."""
    factor = expectation.widening
    if recovery.covariance is None or factor is None or factor <= 1:
        return recovery
    return replace(recovery, covariance=recovery.covariance * factor**2)


def _trials(case: Case, method: str, shares: Tensor, say: Say) -> Iterator[Trial]:
    """Train virtual clients on half of the images, and attack each with the other half."""
    reading = case.readings[0]
    scaling = reading.normalise if reading.normalise != AUTO else "none"
    model = reading.build(case.pair[0], case.auxiliary.classes)
    view = replace(view_of(case, model), normalise=parse_normalisation(scaling))
    one, other = halves(case.auxiliary, case.value("seed"))
    for turn, (own, shown) in enumerate(((one, other), (other, one))):
        likeness = likeness_of_trained(
            model,
            case.pair[0],
            own,
            view,
            accuracy=case.value("train_accuracy"),
            loss=case.value("train_loss"),
        )
        clients = train_clients(
            model,
            case.pair[0],
            own,
            case.training,
            replace(view, seed=view.seed + 1 + turn),
            shares[turn::2],
            likeness,
            say=say,
        )
        for client in clients:
            virtual = replace(
                case,
                pair=(case.pair[0], client.checkpoint),
                auxiliary=shown,
                truth=client.counts,
                history=History(),
                velocity=None,
                readings=(reading,),
            )
            finding = attack(virtual, (method,))
            assert finding.floor is not None
            fewer = _fewer_images(client, own, case.plan.passes, 2)
            inside = _fewer_images(client, own, case.plan.passes, 1)
            yield Trial(client.counts, finding.methods[0], finding.floor.iacc, fewer, inside)


def _fewer_images(client: VirtualClient, own: Auxiliary, passes: int, times: int) -> float:
    """Ratio of deviations of Σ_n z_n (client's class mean - server's class mean), real to virtual.

    Class means of n images have a variance of 1/n. A virtual client uses few images again and
    again, a real one each image once in a pass; the server then has `times` as many as here.
    """
    present = client.counts > 0
    counts = client.counts[present].double() / passes
    held = torch.bincount(own.labels, minlength=len(present))[present].double()
    real = counts**2 * (1 / counts + 1 / (times * held))
    virtual = counts**2 * (1 / client.images[present].clamp(max=counts) + 1 / held)
    return float((real.sum() / virtual.sum()).sqrt())


Rates = tuple[int, int]


def _coverage(
    trials: list[Trial], confidence: float
) -> tuple[Rates | None, Rates | None, float | None]:
    """How many classes with and without labels lie within their intervals, and the mean width."""
    held, there, widths = [], [], []
    for trial in trials:
        recovery = trial.found.recovery
        if recovery is None or recovery.covariance is None:
            return None, None, None
        total = int(trial.counts.sum())
        low, high = count_intervals(recovery.shares, recovery.covariance, total, confidence)
        held.append((low <= trial.counts) & (trial.counts <= high))
        there.append(trial.counts > 0)
        widths.append(float((high - low).double().mean()) / total)
    inside, present = torch.cat(held), torch.cat(there)
    rates = [(int((inside & mask).sum()), int(mask.sum())) for mask in (present, ~present)]
    return rates[0], rates[1], sum(widths) / len(widths)


def _widening(trials: list[Trial], confidence: float) -> float | None:
    """Quantile of |error| / σ over classes with labels, over that of the normal distribution."""
    ratios = []
    for trial in trials:
        recovery = trial.found.recovery
        if recovery is None or recovery.covariance is None:
            return None
        spread = recovery.covariance.diagonal().clamp_min(1e-18).sqrt()
        error = (recovery.shares - trial.counts.double() / int(trial.counts.sum())).abs()
        ratios.append(trial.inside * (error / spread)[trial.counts > 0])
    found = torch.cat(ratios)
    if len(found) < _ENOUGH:
        return None
    return float(torch.quantile(found, confidence)) / float(norm.ppf((1 + confidence) / 2))
