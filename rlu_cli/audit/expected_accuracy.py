"""Expected accuracy of a method on one global model, from virtual clients with known labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rlu_cli.attacks import ATTACKS
from rlu_cli.attacks import AUTO as AUTO_METHOD
from rlu_cli.attacks.auto import FOR_NONLINEAR
from rlu_cli.attacks.emulation import left_out, nearest
from rlu_cli.audit.attack import attack
from rlu_cli.audit.finding import CaseFinding, MethodFinding
from rlu_cli.audit.scoring import score, uniform_floor
from rlu_cli.case.build import Case
from rlu_cli.case.round_history import RoundHistory
from rlu_cli.errors import InputError
from rlu_cli.evidence.assemble import forward_config
from rlu_cli.evidence.forward import ForwardConfig
from rlu_cli.evidence.generalization_gap import generalization_gap
from rlu_cli.evidence.observations import VIRTUAL_CLIENTS
from rlu_cli.evidence.virtual_population import (
    VirtualClient,
    compare,
    draw_near,
    halves,
    train_clients,
)
from rlu_cli.local_training.description import describe_local_training
from rlu_cli.models.input_scaling import AUTO, PRESETS, parse_normalisation
from rlu_cli.numerics.intervals import count_intervals
from rlu_cli.numerics.rounding import round_to_total
from rlu_cli.types import Auxiliary, ProgressCallback, Setting


@dataclass(frozen=True)
class Trial:
    """A method's result for one virtual client.

    counts          (N,) true label counts
    found           what the method found
    floor           iAcc of a uniform guess
    error_ratio     error of a real client over that of this one: a real client has more distinct
                    images, and the method then uses all auxiliary images, twice as many as here
    interval_ratio  the same with as many auxiliary images as here, to correct the intervals
    """

    counts: Tensor
    found: MethodFinding
    floor: float
    error_ratio: float
    interval_ratio: float


@dataclass(frozen=True)
class ExpectedAccuracy:
    """Accuracy of a method on virtual clients of one global model.

    method       name of the method
    iacc         expected iAcc for a real client: that of the virtual ones, corrected for their
                 fewer images
    error        standard error of `iacc`
    measured     mean iAcc on the virtual clients, uncorrected
    cacc         mean cAcc on the virtual clients
    floor        mean iAcc of a uniform guess
    each         corrected iAcc of every virtual client
    present      present classes: number within their interval, and total; intervals are corrected
                 for the images that a virtual client uses repeatedly
    absent       the same for absent classes; None, as is `present`, if the method has no intervals
    width        mean width of an interval as a share of K
    as_learned   whether the virtual clients' images were drawn to match the training accuracy or
                 loss; if not, the accuracies are upper estimates on a trained model
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
    as_learned: bool


def estimate_accuracy(
    case: Case, method: str, shares: Tensor, progress: ProgressCallback = lambda text: None
) -> ExpectedAccuracy:
    """Estimate the accuracy of `method` on virtual clients trained from the global model.

    shares    (R, N) label shares of the virtual clients
    progress  progress callback

    The auxiliary images are split into two halves. Half of the clients trains on the first, and the
    method uses the second; for the other clients it is the reverse.

    Raises InputError E227 if the method gives counts for none of them.
    """
    if case.training.nonlinear is not None:
        name = FOR_NONLINEAR if method == AUTO_METHOD else method
        if ATTACKS[name].built_of_virtual_clients:
            return _estimate_from_population(case, name, shares, progress)
    trials = list(_trials(case, method, shares, progress))
    scores = [t.found.score for t in trials if t.found.score is not None]
    if not scores:
        raise InputError(
            "E227",
            f"{method} gave counts for none of {len(trials)} virtual clients",
            hint="use another method, or give --batch-size",
        )
    measured = torch.tensor([score.iacc for score in scores], dtype=torch.float64)
    ratios = torch.tensor([t.error_ratio for t in trials if t.found.score is not None]).double()
    each = 1 - (1 - measured) * ratios
    present, absent, width = _coverage(trials, case.value("confidence"))
    return ExpectedAccuracy(
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
        as_learned=_fit_is_given(case),
    )


def _estimate_from_population(
    case: Case, method: str, shares: Tensor, progress: ProgressCallback
) -> ExpectedAccuracy:
    """Expected accuracy of a method that is built of virtual clients.

    Each group trains one virtual client in place of the real one, and a virtual population drawn
    around it as the method does. Every member of highest weight is then estimated from all other
    members. There are as many groups as R virtual clients allow.
    """
    model, config = _model(case)
    given = case.auxiliary, case.training
    sampling_weights = _sampling_weights(case, model, config)
    groups = max(1, len(shares) // VIRTUAL_CLIENTS)
    each, cacc, floor = [], [], []
    for group in range(groups):
        seeded = replace(config, seed=config.seed + group * len(shares))
        drawn = shares[group : group + 1]
        (client,) = train_clients(
            model, case.pair.before, *given, seeded, drawn, sampling_weights, progress=progress
        )
        pair, total = replace(case.pair, after=client.checkpoint), int(client.counts.sum())
        size = len(shares) // groups
        population = compare(model, pair, *given, seeded, size, sampling_weights, progress=progress)
        near = population.shares[nearest(population)]
        for known, estimate in zip(near, left_out(population), strict=True):
            counts = round_to_total(known, total)
            scored = score(round_to_total(estimate, total), counts)
            each.append(scored.iacc)
            cacc.append(scored.cacc)
            floor.append(uniform_floor(counts).iacc)
    mean = sum(each) / len(each)
    return ExpectedAccuracy(
        method=method,
        iacc=mean,
        error=float(torch.tensor(each).double().std() / len(each) ** 0.5),
        measured=mean,
        cacc=sum(cacc) / len(each),
        floor=sum(floor) / len(each),
        each=tuple(each),
        present=None,
        absent=None,
        width=None,
        as_learned=_fit_is_given(case),
    )


def estimate_accuracy_near(
    finding: CaseFinding, count: int, progress: ProgressCallback = lambda text: None
) -> ExpectedAccuracy:
    """Expected accuracy of the first method of a finding, for clients with similar labels.

    count  virtual clients, with label shares drawn around the estimate
    """
    first = finding.first
    assert first.recovery is not None
    case = replace(finding.case, hypotheses=finding.hypotheses[:1])
    if not case.training.lr_known:  # the rate was inferred
        case = replace(case, settings=finding.settings)
        case = replace(case, training=describe_local_training(case.value))
    shares = draw_near(first.recovery.shares, count, case.value("seed"))
    return estimate_accuracy(case, first.method, shares, progress)


def _trials(case: Case, method: str, shares: Tensor, progress: ProgressCallback) -> Iterator[Trial]:
    """Train virtual clients on half of the images, and attack each with the other half."""
    model, config = _model(case)
    one, other = halves(case.auxiliary, case.value("seed"))
    # A method that trains virtual clients itself uses its default number of them.
    settings = {**case.settings, "virtual_clients": Setting(0, "default")}
    for turn, (own, server) in enumerate(((one, other), (other, one))):
        clients = train_clients(
            model,
            case.pair.before,
            own,
            case.training,
            replace(config, seed=config.seed + 1 + turn),
            shares[turn::2],
            _sampling_weights(replace(case, auxiliary=own), model, config),
            progress=progress,
        )
        for client in clients:
            virtual = replace(
                case,
                pair=replace(case.pair, after=client.checkpoint),
                auxiliary=server,
                truth=client.counts,
                history=RoundHistory(),
                velocity=None,
                hypotheses=case.hypotheses[:1],
                settings=settings,
            )
            finding = attack(virtual, (method,), judge=False)
            assert finding.floor is not None
            ratios = (_error_ratio(client, own, case.plan.passes, times) for times in (2, 1))
            yield Trial(client.counts, finding.methods[0], finding.floor.iacc, *ratios)


def _model(case: Case) -> tuple[nn.Module, ForwardConfig]:
    """The model of the first hypothesis, and its forward config."""
    first = case.hypotheses[0]
    model = first.build(case.pair.before, case.auxiliary.classes)
    scaling = PRESETS["none"] if first.normalise == AUTO else parse_normalisation(first.normalise)
    return model, replace(forward_config(case, model), normalise=scaling)


def _fit_is_given(case: Case) -> bool:
    """Whether the training accuracy or loss of the global model is given."""
    return case.value("train_accuracy") is not None or case.value("train_loss") is not None


def _sampling_weights(case: Case, model: nn.Module, config: ForwardConfig) -> Tensor | None:
    """Sampling weight (A,) of each auxiliary image within its class; None for equal weights."""
    given = {"accuracy": case.value("train_accuracy"), "loss": case.value("train_loss")}
    gap = generalization_gap(model, case.pair.before, case.auxiliary, config, **given)
    return None if gap is None else gap.likeness


def _error_ratio(client: VirtualClient, own: Auxiliary, passes: int, times: int) -> float:
    """Ratio of standard deviations of Σ_n z_n (client's class mean - server's), real to virtual.

    A class mean of n images has variance 1/n, up to a factor. A virtual client uses few images
    repeatedly, a real one each image once per pass.

    own    images that the virtual client draws from; the server has as many
    times  auxiliary images of the server for the real client, relative to here
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
    """Present and absent classes within their intervals, as (number, total), and mean width / K.

    All None if the method has no intervals.
    """
    held, there, widths = [], [], []
    for trial in trials:
        recovery = trial.found.recovery
        if recovery is None or recovery.covariance is None:
            return None, None, None
        total = int(trial.counts.sum())
        covariance = recovery.covariance / trial.interval_ratio**2
        low, high = count_intervals(recovery.shares, covariance, total, confidence)
        held.append((low <= trial.counts) & (trial.counts <= high))
        there.append(trial.counts > 0)
        widths.append(float((high - low).double().mean()) / total)
    inside, present = torch.cat(held), torch.cat(there)
    rates = [(int((inside & mask).sum()), int(mask.sum())) for mask in (present, ~present)]
    return rates[0], rates[1], sum(widths) / len(widths)
