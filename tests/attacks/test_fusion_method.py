"""Fusion against a small trained BatchNorm net: what the buffers add, and what it does without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_client import World, evidence_of, momentum_weights, skewed_steps
from torch import Tensor, nn

from rlu_cli.attacks import ATTACKS, model_averaging
from rlu_cli.attacks.observations import INTERPOLATION, REEVALUATION, TILT
from rlu_cli.audit.scoring import score
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.evidence.forward import ForwardConfig, evaluate_pair
from rlu_cli.evidence.interpolation import (
    evaluate_along_interpolation,
    reevaluate_with_aux_statistics,
)
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.schemes import step_weights
from rlu_cli.simulator.client import copy_state, seeded, train_client
from rlu_cli.simulator.digits import CLASSES, draw_digits
from rlu_cli.simulator.plan import Plan
from rlu_cli.types import Auxiliary, Checkpoint, Evidence, Recovery, Status

CPU = torch.device("cpu")
PLAN = Plan(lr=0.01, epochs=10, batch_size=64)
CONFIG = ForwardConfig("fc", PRESETS["half"], training=True, batch=64, device=CPU, seed=0)


def _net() -> nn.Module:
    net = nn.Sequential()
    layers = (
        *(nn.Conv2d(3, 12, 5, stride=2), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(12, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
    )
    for index, layer in enumerate(layers):
        net.add_module(str(index), layer)
    net.add_module("fc", nn.Linear(96, CLASSES))
    return net


_draw = cache(draw_digits)


@cache
def _trained() -> dict[str, Tensor]:
    """A global model trained in one place, on images that nobody sees again.

    A client whose images it was trained on is another matter: it is surer of them than of the
    server's, and no measurement tells.
    """
    images, labels = _draw(150, seed=1)
    with seeded((1,), CPU):
        net = _net()
        optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        pixels = PRESETS["half"](torch.tensor(images).permute(0, 3, 1, 2).float() / 255)
        targets = torch.tensor(labels)
        for _ in range(6):
            for batch in torch.randperm(len(targets)).split(50):  # type: ignore[no-untyped-call]
                optimiser.zero_grad()
                loss = nn.functional.cross_entropy(net(pixels[batch]), targets[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        accuracy = (net.eval()(pixels).argmax(1) == targets).float().mean()
    assert float(accuracy) > 0.6, "or it is no trained model"
    return copy_state(net)


@cache
def _untrained() -> dict[str, Tensor]:
    with seeded((1,), CPU):
        return copy_state(_net())


@cache
def _case(client: int, *, trained: bool = True, faint: bool = False) -> tuple[Evidence, Tensor]:
    """What a server sees of a client with few classes, and the counts it used.

    faint  its own images are pale ones
    """
    state = _trained() if trained else _untrained()
    images, labels = _draw(60, seed=3)
    rng = np.random.default_rng((client, 7))
    shares = rng.dirichlet([0.5] * CLASSES)
    own = rng.choice(len(labels), 200, replace=False, p=shares[labels] / shares[labels].sum())
    net = _net()
    net.load_state_dict(state)
    sent = train_client(
        net,
        images[own],
        labels[own],
        PLAN,
        classes=CLASSES,
        normalise=PRESETS["half"],
        seed=(client,),
    )
    pair = CheckpointPair(_checkpoint("g.pt", state), _checkpoint("c.pt", sent.state), "fc")
    return _evidence(pair, faint), torch.from_numpy(sent.per_step.sum(0))


def _checkpoint(name: str, state: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint(Path(name), "0" * 64, "torch-zip", state)


def _evidence(pair: CheckpointPair, faint: bool = False) -> Evidence:
    drawn, labels = _draw(40, seed=2)
    pixels = torch.tensor(drawn).permute(0, 3, 1, 2).float() / 255
    pixels = 0.3 * pixels + 0.6 if faint else pixels
    names = tuple(map(str, range(CLASSES)))
    auxiliary = Auxiliary(pixels, torch.tensor(labels), names, "test", "0" * 64)
    net = _net()
    before, after = evaluate_pair(net, pair, auxiliary, CONFIG)
    interpolation = evaluate_along_interpolation(
        net, pair, auxiliary, CONFIG, steps=PLAN.epochs, ends=(before, after)
    )
    return Evidence(
        update=pair.update,
        weights=step_weights(PLAN.recursion),
        offset=None,
        batch_sizes=PLAN.steps.batch_sizes,
        lr=PLAN.lr,
        before=before,
        after=after,
        origin=pair.heads[0],
        observed={
            INTERPOLATION: interpolation,
            REEVALUATION: partial(
                reevaluate_with_aux_statistics, net, pair, auxiliary, CONFIG, steps=PLAN.epochs
            ),
            TILT: None,
        },
    )


def _answer(name: str, evidence: Evidence) -> Recovery:
    return ATTACKS[name].configured({"draws": 500}.get)(evidence)


def _without_means(evidence: Evidence, *notes: str) -> Evidence:
    bare = replace(evidence[INTERPOLATION], means=(), notes=notes)
    return evidence.with_observed(INTERPOLATION, bare)


def _seen_once(evidence: Evidence) -> Evidence:
    """As if the model could not be run under the statistics of the auxiliary images."""
    return evidence.with_observed(REEVALUATION, lambda shares: None)


def _iacc(name: str, case: tuple[Evidence, Tensor]) -> float:
    evidence, truth = case
    counts = _answer(name, evidence).counts
    assert counts is not None
    return score(counts, truth).iacc


def _reduced_chi_square(found: Recovery) -> float:
    """Of the last BatchNorm layer."""
    return float(list(found.diagnostics["reduced_chi_square"].values())[-1])


def test_the_buffers_of_a_trained_net_win_back_what_the_bias_has_lost() -> None:
    cases = [_case(client) for client in range(4)]
    means = {n: np.mean([_iacc(n, case) for case in cases]) for n in ("rlu", "path", "fusion")}
    assert means["fusion"] > means["rlu"] + 0.02
    assert means["fusion"] > means["path"] + 0.02


def test_both_measurements_are_taken_and_named() -> None:
    evidence, truth = _case(0)
    found = _answer("fusion", evidence)
    assert found.status is Status.SOLVED
    assert list(found.diagnostics["reduced_chi_square"]) == ["bias", "5"]
    assert _reduced_chi_square(found) > 0
    assert sum(found.diagnostics["point_weights"]) == pytest.approx(1)
    assert found.counts is not None
    assert int(found.counts.sum()) == int(truth.sum())
    assert not torch.equal(found.shares, _answer("path", evidence).shares)


def test_it_says_what_it_assumed_of_the_client_s_images_and_of_its_path() -> None:
    """These images nobody trained on: they are like the server's, or nearly."""
    assumed = [_answer("fusion", _case(client)[0]).diagnostics for client in range(4)]
    assert all(0 <= one["tilt"] <= 0.4 for one in assumed)
    assert sum(one["tilt"] for one in assumed) / 4 < 0.2
    assert all(0 <= one["path_position_std"] < 1 for one in assumed)


def test_of_a_model_that_has_learned_nothing_nothing_is_assumed() -> None:
    """No image is surer than another, and the bias is the anchor."""
    for client in range(2):
        found = _answer("fusion", _case(client, trained=False)[0])
        assert list(found.diagnostics["reduced_chi_square"]) == ["bias", "5"]
        assert (found.diagnostics["tilt"], found.diagnostics["path_position_std"]) == (0.0, 0.0)


def test_what_the_assumptions_disagree_in_is_part_of_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evidence, _ = _case(0)
    found = _answer("fusion", evidence)
    monkeypatch.setattr(model_averaging, "_assumptions", lambda *given: iter(()))
    plain = _answer("fusion", evidence)
    assert found.covariance is not None
    assert plain.covariance is not None
    assert (plain.diagnostics["tilt"], plain.diagnostics["path_position_std"]) == (0.0, 0.0)
    assert float(found.covariance.trace()) > float(plain.covariance.trace())


def test_of_an_untrained_model_fusion_and_path_meet_half_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evidence, _ = _case(0, trained=False)
    found, along = _answer("fusion", evidence), _answer("path", evidence)
    monkeypatch.setattr(
        model_averaging, "_halfway", lambda evidence, interpolation, settled: settled
    )
    alone = _answer("fusion", evidence)
    torch.testing.assert_close(found.shares, (alone.shares + along.shares) / 2)
    assert found.covariance is not None
    assert alone.covariance is not None
    assert float(found.covariance.trace()) > float(alone.covariance.trace())


def test_with_means_nothing_steeper_than_given_is_assumed() -> None:
    evidence, _ = _case(0)
    for given in (0.0, 0.05, 2.0):
        found = _answer("fusion", evidence.with_observed(TILT, given))
        assert 0 <= found.diagnostics["tilt"] <= given


def test_without_means_the_answer_goes_towards_what_is_given() -> None:
    """Bias and weights do not tell how steep the weighting is: all up to the given one count."""
    head = World().trained_head(4.0)
    evidence = evidence_of(skewed_steps(4, 400, seed=1), head=head, lr=0.01, images=200)
    plain = _answer("fusion", evidence)
    none, little, some, much = (
        _answer("fusion", evidence.with_observed(TILT, given)) for given in (0.0, 1e-6, 0.2, 0.4)
    )
    assert torch.equal(none.shares, plain.shares)
    torch.testing.assert_close(little.shares, plain.shares, atol=1e-4, rtol=0)
    near, far = (one.shares - plain.shares for one in (some, much))
    assert 0 < float(near.norm()) < float(far.norm())
    assert float(near @ far) > 0.8 * float(near.norm() * far.norm())
    assert (some.diagnostics["tilt"], much.diagnostics["tilt"]) == pytest.approx((0.1, 0.2))


@pytest.mark.parametrize(
    "evidence",
    [
        lambda: evidence_of(skewed_steps(4, 24, seed=1)),
        lambda: evidence_of(skewed_steps(1, 24, seed=1)),
        lambda: evidence_of(skewed_steps(6, 24, seed=2), weights=momentum_weights(6, 0.9), lr=1.0),
    ],
    ids=["plain", "one step", "momentum"],
)
def test_of_an_untrained_model_without_means_it_answers_as_path_does_and_says_why(
    evidence: Callable[[], Evidence],
) -> None:
    bare = _without_means(evidence(), "the buffers tell nothing")
    found, expected = _answer("fusion", bare), _answer("path", bare)
    assert torch.equal(found.shares, expected.shares)
    assert found.diagnostics == expected.diagnostics
    assert found.notes == ("the buffers tell nothing",)
    assert _answer("fusion", _without_means(bare)).notes == ()


def test_of_a_trained_model_without_means_the_weights_tell_how_large_the_errors_are() -> None:
    """The rows of bias and weights are read up to one factor, which is found too."""
    steps = skewed_steps(4, 400, seed=1)
    evidence = evidence_of(steps, head=World().trained_head(4.0), lr=0.01, images=200)
    found = _answer("fusion", evidence)
    assert list(found.diagnostics["reduced_chi_square"]) == ["bias", "weights"]
    assert found.diagnostics["error_ratio"] == pytest.approx(1, abs=0.1)
    assert found.covariance is not None
    surer = replace(evidence, update=evidence.update * 0.5)
    again = _answer("fusion", surer)
    ratio = again.diagnostics["error_ratio"] / found.diagnostics["error_ratio"]
    assert ratio == pytest.approx(0.5, abs=0.05)
    truth = steps.sum(0) / steps.sum()
    lost = [float((one.shares - truth).abs().sum()) / 2 for one in (again, _answer("path", surer))]
    assert lost[0] < 0.1 < lost[1]


def test_weights_that_fit_nothing_are_dropped_and_the_answer_says_so() -> None:
    evidence = evidence_of(skewed_steps(4, 400, seed=1), head=World().trained_head(4.0), lr=0.01)
    weight = evidence.update.weight
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    moved = replace(evidence.update, weight=weight + 20 * weight.std() * noise)
    found = _answer("fusion", replace(evidence, update=moved))
    assert torch.equal(found.shares, _answer("path", replace(evidence, update=moved)).shares)
    assert "was not used" in found.notes[-1]


@pytest.mark.parametrize("sharp", [8.0, 15.0, 30.0, 300.0])
def test_a_model_that_is_sure_of_everything_is_answered_all_the_same(sharp: float) -> None:
    evidence = evidence_of(skewed_steps(4, 400, seed=1), head=World().trained_head(sharp), lr=0.01)
    found = _answer("fusion", evidence)
    assert bool(torch.isfinite(found.shares).all())
    assert found.counts is not None
    assert int(found.counts.sum()) == 1600


def test_a_client_that_is_not_linear_and_has_no_means_is_undetermined() -> None:
    bare = replace(evidence_of(skewed_steps(4, 24, seed=1)), linear=False)
    assert _answer("fusion", bare).status is Status.UNDETERMINED


def test_without_a_learning_rate_the_means_tell_it() -> None:
    evidence, _ = _case(0)
    given = _answer("fusion", evidence)
    inferred = _answer("fusion", replace(evidence, lr=1.0, lr_known=False))
    assert given.lr is None
    assert inferred.lr is not None
    rate, error = inferred.lr
    assert abs(rate - evidence.lr) < 4 * error
    assert torch.allclose(inferred.shares, given.shares, atol=0.1)


def test_a_rate_that_nobody_gave_is_as_unsure_as_what_is_assumed_makes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evidence = replace(_case(0)[0], lr=1.0, lr_known=False)
    found = _answer("fusion", evidence)
    monkeypatch.setattr(model_averaging, "_assumptions", lambda *given: iter(()))
    plain = _answer("fusion", evidence)
    assert found.lr is not None
    assert plain.lr is not None
    assert found.lr[1] > plain.lr[1]
    # The mean over them, not the likeliest alone.
    assert found.lr[0] != plain.lr[0]
    assert abs(found.lr[0] - plain.lr[0]) < 3 * found.lr[1]


def test_of_a_client_that_is_not_linear_the_means_are_read_alone() -> None:
    evidence, _ = _case(0)
    closed = replace(evidence, linear=False)
    found = _answer("fusion", closed)
    assert list(found.diagnostics["reduced_chi_square"]) == ["5"]
    other = _answer("fusion", replace(closed, lr=evidence.lr * 9))
    assert torch.equal(found.shares, other.shares)


def test_a_measurement_from_elsewhere_is_widened_and_does_no_harm() -> None:
    """Means that are off by many times what they differ by between classes."""
    evidence, truth = _case(0)
    interpolation = evidence[INTERPOLATION]
    mean = interpolation.means[0]
    generator = torch.Generator().manual_seed(3)
    shift = 10 * mean.mean.std() * torch.randn(len(mean.mean), generator=generator).double()
    moved = replace(interpolation, means=(replace(mean, mean=mean.mean + shift),))
    shifted = _seen_once(evidence.with_observed(INTERPOLATION, moved))
    found, right = _answer("fusion", shifted), _answer("fusion", evidence)
    assert _reduced_chi_square(found) > 20 * _reduced_chi_square(right)
    assert _iacc("fusion", (shifted, truth)) > _iacc("path", (evidence, truth)) - 0.1


@pytest.mark.parametrize("client", [0, 1])
def test_images_of_another_kind_are_seen_under_their_own_statistics(client: int) -> None:
    evidence, truth = _case(client, faint=True)
    alone = _seen_once(evidence)
    found = _answer("fusion", evidence)
    assert _reduced_chi_square(_answer("fusion", alone)) > 10
    assert _iacc("fusion", (evidence, truth)) > _iacc("fusion", (alone, truth)) + 0.03
    assert any("of another kind" in note for note in found.notes)
    assert found.covariance is not None


def test_images_of_the_client_s_kind_are_looked_at_once() -> None:
    evidence, _ = _case(0)
    found = _answer("fusion", evidence)
    other = _answer("fusion", _seen_once(evidence))
    assert torch.equal(found.shares, other.shares)
    assert found.notes == ()


@pytest.mark.parametrize("why", ["no room for it", "no likelier"])
def test_another_look_that_tells_no_more_changes_nothing(why: str) -> None:
    evidence, _ = _case(0, faint=True)
    kept = None if why == "no room for it" else evidence[INTERPOLATION]
    plain = _answer("fusion", _seen_once(evidence))
    found = _answer("fusion", evidence.with_observed(REEVALUATION, lambda shares: kept))
    assert torch.equal(found.shares, plain.shares)
    assert found.notes == ()


def test_a_bias_that_contradicts_the_means_widens_the_error() -> None:
    """An update that has gone twice the way from one client's to another's."""
    (evidence, _), (other, _) = _case(0), _case(1)
    mixed = replace(evidence, update=other.update * 2 - evidence.update)
    found, right = _answer("fusion", mixed), _answer("fusion", evidence)
    assert found.diagnostics["reduced_chi_square"]["bias"] > 3
    assert found.covariance is not None
    assert right.covariance is not None
    assert float(found.covariance.trace()) > 4 * float(right.covariance.trace())
