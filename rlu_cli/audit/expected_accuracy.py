"""How well a method does on this very model: it is tried on virtual clients with known labels."""

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
class ExpectedAccuracy:
    """What a method does on virtual clients of this model.

    iacc         to expect of a real client: the errors of the virtual ones, less what comes of
                 their fewer images; `error` is the standard error of the mean
    measured     mean iAcc on the virtual clients themselves
    cacc         on them
    floor        mean iAcc of an even guess
    each         iAcc of every client
    present      classes with labels: how many were within their interval, of how many; intervals
                 allow for the images that a virtual client uses again and again
    absent       the same of classes without; both None where the method knows no interval
    width        mean width of an interval as a share of K
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
    as_learned: bool


def estimate_accuracy(
    case: Case, method: str, shares: Tensor, progress: ProgressCallback = lambda text: None
) -> ExpectedAccuracy:
    """Try `method` on virtual clients with label shares (R, N), trained from the global model.

    One half of them trains on one half of the auxiliary images while the method sees the other, and
    the other half the other way round.
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
            f"{method} answered for none of {len(trials)} virtual clients",
            hint="calibrate another method, or give --batch-size",
        )
    measured = torch.tensor([score.iacc for score in scores], dtype=torch.float64)
    fewer = torch.tensor([t.fewer for t in trials if t.found.score is not None]).double()
    each = 1 - (1 - measured) * fewer
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
    """A virtual client is met by an ensemble drawn near it, as a real one is, and each one that is
    near is read from all the others; as many such ensembles as R virtual clients make.
    """
    model, config = _model(case)
    given = case.auxiliary, case.training
    likeness = _likeness(case, model, config)
    groups = max(1, len(shares) // VIRTUAL_CLIENTS)
    each, cacc, floor = [], [], []
    for group in range(groups):
        seeded = replace(config, seed=config.seed + group * len(shares))
        drawn = shares[group : group + 1]
        (client,) = train_clients(
            model, case.pair.before, *given, seeded, drawn, likeness, progress=progress
        )
        pair, total = replace(case.pair, after=client.checkpoint), int(client.counts.sum())
        ensemble = compare(
            model, pair, *given, seeded, len(shares) // groups, likeness, progress=progress
        )
        near = ensemble.shares[nearest(ensemble)]
        for known, answer in zip(near, left_out(ensemble), strict=True):
            counts = round_to_total(known, total)
            scored = score(round_to_total(answer, total), counts)
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
    """What to expect for clients like the one of a finding: its first method on `count` virtual
    clients with labels near its answer.
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
    # A method that is built of virtual clients decides by itself how many it takes.
    settings = {**case.settings, "virtual_clients": Setting(0, "default")}
    for turn, (own, shown) in enumerate(((one, other), (other, one))):
        clients = train_clients(
            model,
            case.pair.before,
            own,
            case.training,
            replace(config, seed=config.seed + 1 + turn),
            shares[turn::2],
            _likeness(replace(case, auxiliary=own), model, config),
            progress=progress,
        )
        for client in clients:
            virtual = replace(
                case,
                pair=replace(case.pair, after=client.checkpoint),
                auxiliary=shown,
                truth=client.counts,
                history=RoundHistory(),
                velocity=None,
                hypotheses=case.hypotheses[:1],
                settings=settings,
            )
            finding = attack(virtual, (method,))
            assert finding.floor is not None
            fewer = _fewer_images(client, own, case.plan.passes, 2)
            inside = _fewer_images(client, own, case.plan.passes, 1)
            yield Trial(client.counts, finding.methods[0], finding.floor.iacc, fewer, inside)


def _model(case: Case) -> tuple[nn.Module, ForwardConfig]:
    """The global model as the files are read first, and how it is shown images."""
    reading = case.hypotheses[0]
    model = reading.build(case.pair.before, case.auxiliary.classes)
    scaling = (
        PRESETS["none"] if reading.normalise == AUTO else parse_normalisation(reading.normalise)
    )
    return model, replace(forward_config(case, model), normalise=scaling)


def _fit_is_given(case: Case) -> bool:
    """Whether anyone said how well the global model has learned its training images."""
    return case.value("train_accuracy") is not None or case.value("train_loss") is not None


def _likeness(case: Case, model: nn.Module, config: ForwardConfig) -> Tensor | None:
    """How likely each auxiliary image is to be drawn; None for all alike."""
    given = {"accuracy": case.value("train_accuracy"), "loss": case.value("train_loss")}
    gap = generalization_gap(model, case.pair.before, case.auxiliary, config, **given)
    return None if gap is None else gap.likeness


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
        covariance = recovery.covariance / trial.inside**2
        low, high = count_intervals(recovery.shares, covariance, total, confidence)
        held.append((low <= trial.counts) & (trial.counts <= high))
        there.append(trial.counts > 0)
        widths.append(float((high - low).double().mean()) / total)
    inside, present = torch.cat(held), torch.cat(there)
    rates = [(int((inside & mask).sum()), int(mask.sum())) for mask in (present, ~present)]
    return rates[0], rates[1], sum(widths) / len(widths)
